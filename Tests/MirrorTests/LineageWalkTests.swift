import Conformance
import Mirror
import Testing
import Volumes

/// Walks that end and begin again at random, beside a user who writes, takes snapshots and removes them, block by block
/// as `Walk` takes its steps.
struct LineageWalkTests {
    /// A wrong way to walk.
    enum Fault: CaseIterable { case none, forgetsWhatWasUnderWay, forgetsThatItIsMixed, overlooksALoss }

    private struct Ended: Error {}
    private static let blockCount = 6

    private struct Held {
        let snapshot: Snapshot
        let blocks: [Int]
        /// How many writes there had been.
        let writes: Int
    }

    /// What outlives a run: the source's states, the target, and the record.
    private struct World {
        var random: SplitMix64
        let fault: Fault
        var lastID: UInt64 = 0
        var head = [Int](repeating: 0, count: LineageWalkTests.blockCount)
        /// Which block each write went to.
        var writes: [Int] = []
        var carried: [Held] = []
        var frozen: [Held] = []

        var target = [Int](repeating: 0, count: LineageWalkTests.blockCount)
        var arrived: UInt64?
        var goal: UInt64?
        var isMixed = false

        mutating func held(_ name: (UInt64) -> String) -> Held {
            lastID += UInt64.random(in: 1...3, using: &random)
            return Held(
                snapshot: Snapshot(id: lastID, name: name(lastID), size: ByteCount(lastID)), blocks: head,
                writes: writes.count)
        }
        mutating func freeze() { frozen.append(held(Snapshot.transientName)) }

        mutating func userActs() {
            switch Int.random(in: 0..<8, using: &random) {
            case 0: carried.append(held { "s\($0)" })
            case 1:
                if let index = carried.indices.randomElement(using: &random) { carried.remove(at: index) }
            case 2:
                // Somebody removes what isn't theirs.
                if let index = frozen.indices.randomElement(using: &random) { frozen.remove(at: index) }
            default:
                let block = Int.random(in: 0..<LineageWalkTests.blockCount, using: &random)
                // Zero at times: what was written may become a hole again.
                head[block] = Int.random(in: 0...2, using: &random) * (writes.count + 1)
                writes.append(block)
            }
        }

        var states: [Held] { (carried + frozen).sorted { $0.snapshot.id < $1.snapshot.id } }
        func state(_ id: UInt64) -> Held? { states.first { $0.snapshot.id == id } }

        /// What a snapshot shows that is no more: what came after it.
        func blocks(of id: UInt64) -> [Int] { states.first { $0.snapshot.id >= id }?.blocks ?? head }

        mutating func mayEnd() throws(Ended) { if Int.random(in: 0..<25, using: &random) == 0 { throw Ended() } }

        /// To a state of the source that nothing is newer than, unless it ends before.
        mutating func run() throws(Ended) {
            while true {
                let lineage = Lineage(
                    carried: carried.map(\.snapshot), frozen: frozen.map(\.snapshot), arrived: arrived,
                    goal: fault == .forgetsWhatWasUnderWay ? nil : goal,
                    isMixed: fault != .forgetsThatItIsMixed && isMixed)
                if frozen.isEmpty || (lineage.steps.isEmpty && (goal != nil || lineage.arrived == nil)) {
                    freeze()
                    continue
                }
                guard let step = lineage.steps.first else { return }
                try take(step)
            }
        }

        mutating func take(_ step: Step) throws(Ended) {
            let goal = step.goal.snapshot!
            (arrived, self.goal, isMixed) = (step.base?.id, goal.id, step.isMixed)
            try mayEnd()
            let from = step.base.flatMap { state($0.id)?.writes } ?? 0
            var dirty = Set(writes[from..<(state(goal.id)?.writes ?? writes.count)])
            if step.base == nil {
                // What isn't allocated isn't looked at, unless the target may hold anything.
                let shown = blocks(of: goal.id)
                dirty = Set((0..<LineageWalkTests.blockCount).filter { step.isMixed || shown[$0] != 0 })
            }
            for block in dirty.sorted() {
                // What changed since a base that is no more isn't told rightly.
                let isTold = step.base.map { state($0.id) != nil } ?? true
                if isTold || Bool.random(using: &random) { target[block] = blocks(of: goal.id)[block] }
                if Int.random(in: 0..<6, using: &random) == 0 { userActs() }
                try mayEnd()
            }
            let isThere = state(goal.id) != nil && step.base.map { state($0.id) != nil } ?? true
            guard isThere || fault == .overlooksALoss else {
                isMixed = true
                return
            }
            (arrived, self.goal, isMixed) = (goal.id, nil, false)
        }
    }

    /// What went wrong in one random walk.
    private func finding(seed: UInt64, fault: Fault) -> String? {
        var world = World(random: SplitMix64(seed: seed), fault: fault)
        for _ in 0..<Int.random(in: 0...20, using: &world.random) { world.userActs() }
        for _ in 0..<200 {
            do throws(Ended) {
                try world.run()
                guard let newest = world.states.last else { return "it ended without a state" }
                guard world.arrived == newest.snapshot.id else {
                    return "ended at \(world.arrived ?? 0), not at \(newest.snapshot.id)"
                }
                return world.target == newest.blocks ? nil : "\(world.target), not \(newest.blocks)"
            } catch {
                for _ in 0..<Int.random(in: 0...4, using: &world.random) { world.userActs() }
                if Bool.random(using: &world.random) { world.freeze() }
            }
        }
        return "no end after 200 runs"
    }

    @Test(arguments: 1...1000 as ClosedRange<UInt64>)
    func `whatever comes and goes, the target ends in the newest state`(seed: UInt64) {
        #expect(finding(seed: seed, fault: .none) == nil, "seed \(seed)")
    }

    @Test(arguments: Fault.allCases.filter { $0 != .none })
    func `a walk that went wrong would be noticed`(fault: Fault) {
        #expect((1...1000).contains { finding(seed: $0, fault: fault) != nil })
    }
}
