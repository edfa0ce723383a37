import Foundation
import Testing

@testable import Tracker

/// Moves beneath clients that go on, killed and taken up again.
@Suite(.serialized)
struct MoveSimulationTests {
    /// 40, or fewer where `GODWIT_SEEDS` says so: these take real time.
    static let seeds: ClosedRange<UInt64> =
        1...min(40, max(1, ProcessInfo.processInfo.environment["GODWIT_SEEDS"].flatMap { UInt64($0) } ?? 40))

    @Test func `the target is what the source is`() async throws {
        var (trusted, rounds) = (0, 0)
        for seed in Self.seeds {
            var simulation = try MoveSimulation(seed: seed)
            let wrong = try await simulation.run()
            #expect(wrong == nil, "seed \(seed)")
            trusted += simulation.trusted
            rounds += simulation.rounds
        }
        // Otherwise it would show nothing.
        #expect(Self.seeds.count < 20 || (trusted > 10 && rounds > 10))
    }

    @Test func `marks that come after the write are found out`() async throws {
        for seed in 1...200 as ClosedRange<UInt64> {
            var simulation = try MoveSimulation(seed: seed, fault: .marksAfterTheWrite)
            if try await simulation.run() != nil { return }
        }
        Issue.record("200 histories with a writer that marks too late, and none differs")
    }
}
