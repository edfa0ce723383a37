import Foundation
import Synchronization
import Testing

@testable import Tracker

/// Moves beneath clients that go on, killed and taken up again.
@Suite(.serialized)
struct MoveSimulationTests {
    /// 1 to 60, or as many as `GODWIT_SEEDS` says.
    static let seeds: ClosedRange<UInt64> =
        1...max(1, ProcessInfo.processInfo.environment["GODWIT_SEEDS"].flatMap { UInt64($0) } ?? 60)
    private static let seen = Mutex((trusted: 0, rounds: 0))

    @Test(arguments: seeds) func `the target is what the source is`(seed: UInt64) async throws {
        var simulation = try MoveSimulation(seed: seed)
        let wrong = try await simulation.run()
        #expect(wrong == nil, "seed \(seed)")
        Self.seen.withLock { seen in
            seen.trusted += simulation.trusted
            seen.rounds += simulation.rounds
        }
    }

    @Test func `marks that come after the write are found out`() async throws {
        for seed in 1...200 as ClosedRange<UInt64> {
            var simulation = try MoveSimulation(seed: seed, fault: .marksAfterTheWrite)
            if try await simulation.run() != nil { return }
        }
        Issue.record("200 histories with a writer that marks too late, and none differs")
    }
}
