import Testing

struct SimulationTests {
    @Test(arguments: Seeds.all)
    func `whatever befalls a move, it ends with all that the source held`(seed: UInt64) async throws {
        var simulation = Simulation(seed: seed)
        if let what = try await simulation.run() {
            Issue.record("\(what)\n  \(Seeds.replay(seed, "SimulationTests"))")
        }
    }

    @Test(arguments: PlantedFault.allCases)
    func `a volume that goes wrong silently is noticed`(fault: PlantedFault) async throws {
        for seed in 1...60 as ClosedRange<UInt64> {
            var simulation = Simulation(seed: seed, fault: fault)
            if try await simulation.run() != nil { return }
        }
        Issue.record("none of 60 histories shows it")
    }
}
