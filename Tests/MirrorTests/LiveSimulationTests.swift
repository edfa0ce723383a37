import Synchronization
import Testing

struct LiveSimulationTests {
    @Test(arguments: Seeds.all)
    func `whatever befalls a live move, its writer ends at a volume that holds all it wrote`(seed: UInt64) async {
        guard let what = await LiveSimulation(seed: seed).run() else { return }
        let again = LiveSimulation(seed: seed, keepsLog: true)
        _ = await again.run()
        let log = again.state.withLock { $0.log.suffix(Seeds.logged) }
        Issue.record(
            "\(what)\n  \(Seeds.replay(seed, "LiveSimulationTests"))\n\(log.joined(separator: "\n"))")
    }

    @Test func `a seed replays exactly`() async {
        for seed in 1...5 as ClosedRange<UInt64> {
            let (first, second) = (LiveSimulation(seed: seed), LiveSimulation(seed: seed))
            _ = await first.run()
            _ = await second.run()
            let traces = [first, second].map { $0.state.withLock { $0.trace } }
            #expect(traces[0] == traces[1] && !traces[0].isEmpty)
        }
    }

    @Test(arguments: LiveFault.allCases)
    func `a live move that goes wrong silently is noticed`(fault: LiveFault) async {
        for seed in 1...300 as ClosedRange<UInt64> where await LiveSimulation(seed: seed, fault: fault).run() != nil {
            // Not by what goes wrong without it.
            if await LiveSimulation(seed: seed).run() == nil { return }
        }
        Issue.record("none of 300 histories shows it")
    }
}
