import Conformance
import RBDVolumes
import Testing
import Volumes

struct ObjectHistoryTests {
    // MARK: Against an OSD's books

    private struct Run {
        var object: NaiveObject
        private var random: SplitMix64
        private var lastSnapshot: UInt64 = 0

        init(seed: UInt64, fault: NaiveObject.Fault) {
            random = SplitMix64(seed: seed)
            object = NaiveObject(fault: fault)
        }

        mutating func step() {
            switch Int.random(in: 0..<12, using: &random) {
            case 0..<5:
                let start = Int.random(in: 0..<24, using: &random)
                object.write(random.bytes(Int.random(in: 1...12, using: &random)), at: start)
            case 5: object.truncate(to: Int.random(in: 0..<40, using: &random))
            case 6: object.delete()
            case 7, 8:
                // Other images of the pool take numbers as well.
                lastSnapshot += UInt64.random(in: 1...3, using: &random)
                object.takeSnapshot(lastSnapshot)
            case 9: if let any = object.snapshots.randomElement(using: &random) { object.removeSnapshot(any) }
            default: object.trim(with: &random)
            }
        }

        /// What is wrong with the changes between any two states.
        func faults() -> [String] {
            let states = object.snapshots.map { $0 as UInt64? } + [nil]
            return states.indices.flatMap { index in
                ([nil] + states[..<index]).compactMap { base in fault(since: base, to: states[index]) }
            }
        }

        private func fault(since base: UInt64?, to goal: UInt64?) -> String? {
            let change = object.history?.change(since: base, to: goal) ?? .none
            let older = base.flatMap { object.bytes(at: $0) }
            let newer = object.bytes(at: goal)
            let way = "\(base.map { "\($0)" } ?? "nothing") to \(goal.map { "\($0)" } ?? "head")"
            switch (change, older, newer) {
            case (.none, let older, let newer):
                return older == newer ? nil : "\(way): a change is missed"
            case (.removed, _?, nil):
                return nil
            case (.written(let dirty, let size, let didExist), let older, let newer?):
                guard Int(size.bytes) == newer.count else { return "\(way): the size is \(size.bytes)" }
                guard didExist == (older != nil) else { return "\(way): whether it existed" }
                guard let older, let base else {
                    return positions(dirty) == Set(newer.indices) ? nil : "\(way): not all of a new object is dirty"
                }
                let missed = (0..<max(older.count, newer.count)).first { index in
                    (index < older.count ? older[index] : 0) != (index < newer.count ? newer[index] : 0)
                        && !positions(dirty).contains(index)
                }
                if let missed { return "\(way): byte \(missed) is missed" }
                return positions(dirty) == object.touched(since: base, to: goal) ? nil : "\(way): more than was touched"
            default:
                return "\(way): \(change)"
            }
        }
    }

    /// The first fault in a random history, and after how many steps.
    private func firstFault(seed: UInt64, fault: NaiveObject.Fault = .none) -> String? {
        var run = Run(seed: seed, fault: fault)
        for step in 1...51 {
            run.step()
            if step % 3 == 0, let fault = run.faults().first { return "\(fault), after \(step) steps, seed \(seed)" }
        }
        return nil
    }

    @Test(arguments: 1...60 as ClosedRange<UInt64>)
    func `no history hides a changed byte, and none shows more than was touched`(seed: UInt64) {
        if let fault = firstFault(seed: seed) { Issue.record("\(fault)") }
    }

    @Test(arguments: NaiveObject.Fault.allCases.filter { $0 != .none })
    func `an OSD that kept its books wrong would be noticed`(fault: NaiveObject.Fault) {
        #expect((1...30).contains { firstFault(seed: $0, fault: fault) != nil })
    }

    // MARK: By hand

    private func version(_ id: UInt64, _ size: UInt64, _ snapshots: [UInt64] = [], shared: [Extent] = [])
        -> ObjectHistory.Version
    {
        ObjectHistory.Version(id: id, size: ByteCount(size), snapshots: snapshots, shared: ExtentSet(shared))
    }

    private func extent(_ start: UInt64, _ end: UInt64) -> Extent {
        Extent(from: ByteOffset(start), to: ByteOffset(end))
    }

    private let head = ObjectHistory.Version.head

    @Test func `an object written before the first snapshot and never since is in all states the same`() {
        let history = ObjectHistory(versions: [version(head, 100)], newestSnapshot: 0)
        #expect(history.change(since: 4, to: 9) == .none)
        #expect(history.change(since: 4, to: nil) == .none)
        #expect(
            history.change(since: nil, to: 4)
                == .written(dirty: ExtentSet([extent(0, 100)]), size: ByteCount(100), didExist: false))
    }

    @Test func `an object made under a snapshot is in the head alone`() {
        let history = ObjectHistory(versions: [version(head, 8)], newestSnapshot: 4)
        #expect(history.change(since: nil, to: 4) == .none)
        #expect(
            history.change(since: 4, to: nil)
                == .written(dirty: ExtentSet([extent(0, 8)]), size: ByteCount(8), didExist: false))
        // A snapshot taken after it was made shows the head.
        #expect(history.change(since: 5, to: nil) == .none)
    }

    @Test func `a head newer than the last clone shows under snapshots newer than the last write`() {
        let history = ObjectHistory(
            versions: [version(4, 10, [4], shared: [extent(0, 6)]), version(head, 10)], newestSnapshot: 4)
        let dirty = ObjectHistory.Change.written(
            dirty: ExtentSet([extent(6, 10)]), size: ByteCount(10), didExist: true)
        #expect(history.change(since: 4, to: 7) == dirty)
        #expect(history.change(since: 4, to: nil) == dirty)
        #expect(history.change(since: 7, to: nil) == .none)
    }

    @Test func `where the object did not exist there is nothing before and nothing after`() {
        // Existed at 3, was deleted, was there again at 8, and is deleted now.
        let history = ObjectHistory(versions: [version(3, 10, [3]), version(8, 20, [8])], newestSnapshot: 8)
        #expect(history.change(since: 3, to: 5) == .removed)
        #expect(history.change(since: 5, to: 6) == .none)
        #expect(
            history.change(since: 5, to: 8)
                == .written(dirty: ExtentSet([extent(0, 20)]), size: ByteCount(20), didExist: false))
        // Both have it, but nothing of it is the same.
        #expect(
            history.change(since: 3, to: 8)
                == .written(dirty: ExtentSet([extent(0, 20)]), size: ByteCount(20), didExist: true))
        #expect(history.change(since: 8, to: nil) == .removed)
        #expect(history.change(since: nil, to: nil) == .none)
    }

    @Test func `a clone whose own snapshot was removed serves the ones before it`() {
        // Cloned for 2, 4 and 6; 6 and 4 were removed since.
        let history = ObjectHistory(
            versions: [version(6, 10, [2], shared: [extent(0, 9)]), version(head, 12)], newestSnapshot: 6)
        #expect(
            history.change(since: 2, to: nil)
                == .written(dirty: ExtentSet([extent(9, 12)]), size: ByteCount(12), didExist: true))
        #expect(history.change(since: nil, to: 1) == .none)
    }

    @Test func `the changes of several versions add up`() {
        let history = ObjectHistory(
            versions: [
                version(1, 10, [1], shared: [extent(0, 2), extent(3, 10)]),
                version(2, 10, [2], shared: [extent(0, 7), extent(8, 10)]),
                version(head, 10),
            ], newestSnapshot: 2)
        #expect(
            history.change(since: 1, to: nil)
                == .written(
                    dirty: ExtentSet([extent(2, 3), extent(7, 8)]), size: ByteCount(10), didExist: true))
    }

    @Test func `a shrunken object is dirty up to its old end`() {
        let history = ObjectHistory(
            versions: [version(1, 10, [1], shared: [extent(0, 4)]), version(head, 4)], newestSnapshot: 1)
        #expect(
            history.change(since: 1, to: nil)
                == .written(dirty: ExtentSet([extent(4, 10)]), size: ByteCount(4), didExist: true))
    }
}
