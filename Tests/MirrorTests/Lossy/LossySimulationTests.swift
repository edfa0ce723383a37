import Synchronization
import Testing

/// The simulation of a live move, over a lossy link to another host.
struct LossySimulationTests {
    private static func simulation(_ seed: UInt64, keepsLog: Bool = false) -> LiveSimulation {
        LiveSimulation(seed: seed, keepsLog: keepsLog) { FarTarget($0, $1, seed: seed) }
    }

    @Test(arguments: Seeds.all)
    func `whatever befalls link and hosts, the writer ends at a volume that holds all it wrote`(seed: UInt64) async {
        guard let what = await Self.simulation(seed).run() else { return }
        let again = Self.simulation(seed, keepsLog: true)
        _ = await again.run()
        let log = again.state.withLock { $0.log.suffix(Seeds.logged) }
        Issue.record(
            "\(what)\n  \(Seeds.replay(seed, "LossySimulationTests"))\n\(log.joined(separator: "\n"))")
    }

    @Test(arguments: Seeds.all)
    func `whatever befalls link and hosts, a still move ends with all that the source held`(seed: UInt64) async {
        guard let what = await StillLossySimulation(seed: seed).run() else { return }
        let again = StillLossySimulation(seed: seed, keepsLog: true)
        _ = await again.run()
        let log = again.lines.suffix(Seeds.logged)
        Issue.record(
            "\(what)\n  \(Seeds.replay(seed, "LossySimulationTests"))\n\(log.joined(separator: "\n"))")
    }

    @Test func `a seed replays exactly`() async {
        for seed in 1...5 as ClosedRange<UInt64> {
            let (first, second) = (Self.simulation(seed), Self.simulation(seed))
            _ = await first.run()
            _ = await second.run()
            let traces = [first, second].map { $0.state.withLock { $0.trace } }
            #expect(traces[0] == traces[1] && !traces[0].isEmpty)
        }
    }
}
