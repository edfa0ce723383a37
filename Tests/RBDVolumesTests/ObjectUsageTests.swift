import Conformance
import RBDVolumes
import Testing
import Volumes

/// What the versions of an object hold, against a model in which each write takes blocks of its own.
struct ObjectUsageTests {
    private static func extent(_ block: UInt64, _ count: UInt64) -> Extent {
        Extent(offset: ByteOffset(block * 4096), length: ByteCount(count * 4096))
    }

    @Test func `without snapshots all is the head's`() {
        // Two bytes, in two blocks.
        let usage = ObjectUsage(
            head: ExtentSet([Extent(offset: ByteOffset(4095), length: ByteCount(2))]))
        #expect(usage.head == ByteCount(8192))
        #expect(usage.all == ByteCount(8192))
        #expect(usage.alone.isEmpty)
    }

    @Test func `an overwritten block is the snapshot's alone`() {
        // Eight blocks, snapshot 1, then block 2 is written again.
        let history = ObjectHistory(
            versions: [
                .init(
                    id: 1, size: ByteCount(8 * 4096), snapshots: [1],
                    shared: ExtentSet([Self.extent(0, 2), Self.extent(3, 5)])),
                .init(id: ObjectHistory.Version.head, size: ByteCount(8 * 4096), snapshots: [], shared: ExtentSet()),
            ], newestSnapshot: 1)
        let whole = ExtentSet([Self.extent(0, 8)])
        let usage = ObjectUsage(history, allocated: [whole, whole])
        #expect(usage.head == ByteCount(8 * 4096))
        #expect(usage.all == ByteCount(9 * 4096))
        #expect(usage.alone == [1: ByteCount(4096)])
    }

    @Test func `a byte that was overwritten takes a block`() {
        let history = ObjectHistory(
            versions: [
                .init(
                    id: 1, size: ByteCount(8 * 4096), snapshots: [1],
                    shared: ExtentSet([
                        Extent(offset: .zero, length: ByteCount(5000)),
                        Extent(offset: ByteOffset(5001), length: ByteCount(8 * 4096 - 5001)),
                    ])),
                .init(id: ObjectHistory.Version.head, size: ByteCount(8 * 4096), snapshots: [], shared: ExtentSet()),
            ], newestSnapshot: 1)
        let whole = ExtentSet([Self.extent(0, 8)])
        let usage = ObjectUsage(history, allocated: [whole, whole])
        #expect(usage.all == ByteCount(9 * 4096))
        #expect(usage.alone == [1: ByteCount(4096)])
    }

    @Test func `versions of removed snapshots are passed over`() {
        func version(_ id: UInt64, _ snapshots: [UInt64], shared: [Extent]) -> ObjectHistory.Version {
            .init(id: id, size: ByteCount(8 * 4096), snapshots: snapshots, shared: ExtentSet(shared))
        }
        let history = ObjectHistory(
            versions: [
                version(2, [1, 2], shared: [Self.extent(0, 4)]), version(3, [3], shared: [Self.extent(2, 6)]),
                version(4, [4], shared: [Self.extent(0, 8)]), version(ObjectHistory.Version.head, [], shared: []),
            ], newestSnapshot: 4)
        #expect(
            history.keeping([1, 4]).versions == [
                version(2, [1], shared: [Self.extent(2, 2)]), version(4, [4], shared: [Self.extent(0, 8)]),
                version(ObjectHistory.Version.head, [], shared: []),
            ])
        #expect(history.keeping([1, 2, 3, 4]) == history)
        #expect(history.keeping([]).versions.map(\.id) == [ObjectHistory.Version.head])
    }

    /// A random history of one object, by blocks: each write gives a block a new number, and a version holds the
    /// numbers that it shows.
    @Test(arguments: 0..<200 as Range<UInt64>)
    func `a random history`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var (head, versions): ([Int?], [(snapshots: [UInt64], blocks: [Int?])]) = (
            [Int?](repeating: nil, count: 16), []
        )
        var (written, snapshot) = (0, UInt64(0))
        var pending: [UInt64] = []
        for _ in 0..<40 {
            switch random.next() % 6 {
            case 0:
                snapshot += 1
                pending.append(snapshot)
            default:
                // The OSD clones the object for the snapshots since its last write.
                if !pending.isEmpty { versions.append((pending, head)) }
                pending = []
                let start = Int(random.next() % 16)
                let clears = random.next() % 4 == 0
                for block in start..<min(16, start + 1 + Int(random.next() % 4)) {
                    written += 1
                    head[block] = clears ? nil : written
                }
            }
        }
        // Some snapshots are removed, and their versions told of still.
        let removed = Set((1...max(1, snapshot)).filter { _ in random.next() % 3 == 0 })
        let states = versions + [(pending, head)]

        func extents(_ blocks: [Int?]) -> ExtentSet {
            ExtentSet(blocks.indices.filter { blocks[$0] != nil }.map { Self.extent(UInt64($0), 1) })
        }
        func size(_ blocks: [Int?]) -> ByteCount {
            ByteCount(UInt64((blocks.lastIndex { $0 != nil } ?? -1) + 1) * 4096)
        }
        let history = ObjectHistory(
            versions: states.enumerated().map { index, state in
                let next = index + 1 < states.count ? states[index + 1].blocks : nil
                let shared = next.map { next in
                    ExtentSet(next.indices.filter { next[$0] == state.blocks[$0] }.map { Self.extent(UInt64($0), 1) })
                }
                return .init(
                    id: next == nil ? ObjectHistory.Version.head : state.snapshots.max()!, size: size(state.blocks),
                    snapshots: state.snapshots, shared: shared ?? ExtentSet())
            }, newestSnapshot: snapshot
        ).keeping(Set(versions.flatMap(\.snapshots)).subtracting(removed))
        versions = versions.map { ($0.snapshots.filter { !removed.contains($0) }, $0.blocks) }
            .filter { !$0.snapshots.isEmpty }
        let usage = ObjectUsage(history, allocated: (versions.map(\.blocks) + [head]).map(extents))

        func held(without gone: UInt64?) -> Int {
            var numbers = Set(head.compactMap(\.self))
            for version in versions where version.snapshots.contains(where: { $0 != gone }) {
                numbers.formUnion(version.blocks.compactMap(\.self))
            }
            return numbers.count
        }
        #expect(usage.head == extents(head).total)
        #expect(usage.all == ByteCount(UInt64(held(without: nil)) * 4096))
        for snapshot in versions.flatMap(\.snapshots) {
            let freed = held(without: nil) - held(without: snapshot)
            #expect(usage.alone[snapshot] ?? .zero == ByteCount(UInt64(freed) * 4096))
        }
    }
}
