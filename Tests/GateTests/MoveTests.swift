import Conformance
import Gate
import Mirror
import Testing
import Volumes

/// A volume that is moved beneath those who use it.
@Suite(.serialized, .timeLimit(.minutes(4)))
struct MoveTests {
    @Test(arguments: 1...30) func `no write that was acknowledged is lost`(seed: UInt64) async throws {
        let scene = Scene(seed: seed)
        let run = scene.run()
        #expect(try await run.go()?.lines == nil)
        scene.expectMoved(run)
    }

    @Test(arguments: 1...5) func `a snapshot taken meanwhile comes along`(seed: UInt64) async throws {
        let scene = Scene(seed: seed)
        let run = scene.run()
        run.controls.isCutoverAsked = false
        let failure = try await run.go { run in
            try await waitUntil { run.gate.hasOpened }
            try await Task.sleep(for: .milliseconds(Int(seed) * 20))
            scene.source.takeSnapshot("meanwhile")
            run.controls.isCutoverAsked = true
        }
        #expect(failure?.lines == nil)
        scene.expectMoved(run)
        let (there, here) = (scene.target.snapshots, scene.source.snapshots)
        #expect(there.map(\.name) == ["meanwhile"] && here.map(\.name) == ["meanwhile"])
        guard let there = there.first, let here = here.first else { return }
        #expect(scene.target.bytes(of: .snapshot(there)) == scene.source.bytes(of: .snapshot(here)))
    }

    @Test func `a command given again finds its clients at the target`() async throws {
        let scene = Scene(seed: 1)
        // Killed as it tidies up.
        let first = scene.run(Fate(.named("target forget"), .death))
        #expect(try await first.go() != nil)
        scene.target.crash()
        let second = scene.run()
        #expect(try await second.go()?.lines == nil)
        scene.expectMoved(second)
    }
}

extension Scene {
    /// It is at the target, all of it, with its clients, whom nothing holds back.
    func expectMoved(_ run: Run, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(violations.all == [], sourceLocation: sourceLocation)
        #expect(target.names == ["finished"], sourceLocation: sourceLocation)
        #expect(ledger.violation(target.bytes()) == nil, "the target", sourceLocation: sourceLocation)
        #expect(!run.gate.isShut && run.hold.whereabouts == "the target", sourceLocation: sourceLocation)
        #expect(!source.snapshots.contains { $0.isTransient }, sourceLocation: sourceLocation)
    }

    /// Its clients go on at the source, and nothing holds them back.
    func expectAtSource(_ run: Run, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        #expect(violations.all == [], sourceLocation: sourceLocation)
        #expect(!run.gate.isShut && run.hold.whereabouts == "the source", sourceLocation: sourceLocation)
        let clock = ContinuousClock()
        // A limit would make it take four seconds.
        let bytes = try await run.gate.bytes(in: 0..<Self.size)
        let taken = try await clock.measure { try await run.gate.write(bytes, at: 0) }
        #expect(taken < Duration.seconds(2), "still limited", sourceLocation: sourceLocation)
        #expect(ledger.violation(source.bytes()) == nil, "the source", sourceLocation: sourceLocation)
    }
}
