import Conformance
import Mirror
import Testing
import Volumes

/// Walks that end and begin again at random, step by step as `Walk` takes them, without a byte being moved.
struct LineageWalkTests {
    /// A wrong way to walk.
    enum Fault: CaseIterable { case none, notesBeforeItKeeps, forgetsWhatWasUnderWay }

    private struct Ended: Error {}

    /// What outlives a run: the source's states, the target, and the record.
    private struct World {
        enum Content: Equatable {
            case at(UInt64?)
            case between(UInt64?, UInt64)
        }
        var random: SplitMix64
        let fault: Fault
        var lastID: UInt64 = 0
        var carried: [Snapshot] = []
        var frozen: [Snapshot] = []
        var content = Content.at(nil)
        var kept: [String] = []
        /// Every snapshot that the target was brought to, as often as it was.
        var visited: [UInt64] = []
        var arrived: UInt64?
        var goal: UInt64?
        var findings: [String] = []

        mutating func newState(_ name: (UInt64) -> String) -> Snapshot {
            lastID += UInt64.random(in: 1...3, using: &random)
            return Snapshot(id: lastID, name: name(lastID), size: ByteCount(lastID))
        }
        mutating func takeSnapshot() { carried.append(newState { "s\($0)" }) }
        mutating func freeze() { frozen.append(newState(Snapshot.transientName)) }

        /// One that the target was not brought to and isn't being brought to: any other ends the move.
        mutating func removeSnapshot() {
            let free = carried.indices.filter { carried[$0].id > arrived ?? 0 && carried[$0].id != goal }
            if let index = free.randomElement(using: &random) { carried.remove(at: index) }
        }

        mutating func mayEnd() throws(Ended) { if Int.random(in: 0..<12, using: &random) == 0 { throw Ended() } }

        /// To the newest state of the source, unless it ends before.
        mutating func run() throws(Ended) {
            if frozen.isEmpty { freeze() }
            try mayEnd()
            let lineage: Lineage
            do throws(Lineage.Broken) {
                lineage = try Lineage(
                    carried: carried, frozen: frozen, kept: kept, arrived: arrived,
                    goal: fault == .forgetsWhatWasUnderWay ? nil : goal)
            } catch {
                return findings.append("the walk is broken: \(error)")
            }
            for step in lineage.steps { try take(step) }
        }

        mutating func take(_ step: Step) throws(Ended) {
            let state = step.goal.snapshot!
            // A step that is taken once more may have been finished, and not noted.
            let isRepeated = goal == state.id && [.between(step.base?.id, state.id), .at(state.id)].contains(content)
            if content != .at(step.base?.id), !isRepeated {
                findings.append("a step from \(step.base?.name ?? "nothing") to \(state.name), but it is \(content)")
            }
            (arrived, goal) = (step.base?.id, state.id)
            try mayEnd()
            content = .between(step.base?.id, state.id)
            try mayEnd()
            content = .at(state.id)
            try mayEnd()
            if fault == .notesBeforeItKeeps {
                (arrived, goal) = (state.id, nil)
                try mayEnd()
            }
            if !state.isTransient {
                kept.append(state.name)
                visited.append(state.id)
            }
            try mayEnd()
            (arrived, goal) = (state.id, nil)
            try mayEnd()
        }
    }

    /// What went wrong in one random walk.
    private func findings(seed: UInt64, fault: Fault) -> [String] {
        var world = World(random: SplitMix64(seed: seed), fault: fault)
        for _ in 0..<Int.random(in: 0...5, using: &world.random) { world.takeSnapshot() }
        var hasEnded = true
        for _ in 0..<200 where hasEnded && world.findings.isEmpty {
            do throws(Ended) {
                try world.run()
                hasEnded = false
            } catch {
                for _ in 0..<Int.random(in: 0...2, using: &world.random) {
                    switch Int.random(in: 0..<3, using: &world.random) {
                    case 0: world.takeSnapshot()
                    case 1: world.removeSnapshot()
                    default: world.freeze()
                    }
                }
            }
        }
        if !world.findings.isEmpty { return world.findings }
        var found: [String] = []
        if hasEnded { found.append("no end after 200 runs") }
        if world.visited != world.carried.map(\.id) {
            found.append("visited \(world.visited), not \(world.carried.map(\.id))")
        }
        if world.kept != world.carried.map(\.name) { found.append("kept \(world.kept)") }
        let newest = (world.carried + world.frozen).map(\.id).max()
        if world.content != .at(newest) { found.append("ended \(world.content), not at \(newest ?? 0)") }
        return found
    }

    @Test(arguments: 1...300 as ClosedRange<UInt64>)
    func `every snapshot is visited once, in order, from the state that the target is in`(seed: UInt64) {
        #expect(findings(seed: seed, fault: .none) == [], "seed \(seed)")
    }

    @Test(arguments: Fault.allCases.filter { $0 != .none })
    func `a walk that went wrong would be noticed`(fault: Fault) {
        #expect((1...100).contains { !findings(seed: $0, fault: fault).isEmpty })
    }
}
