import Conformance
import DirtyMap
import Synchronization
import Testing
import Volumes

/// Several threads on one map. What they do differs from run to run; what must come out does not. A loop that waits for
/// others yields, as there may be fewer threads than tasks.
struct ConcurrencyTests {
    private static let chunk = Granularity.smallest.bytes

    private func bytes(of chunks: Range<Int>) -> Extent {
        Extent(
            from: ByteOffset(UInt64(chunks.lowerBound) * Self.chunk),
            to: ByteOffset(UInt64(chunks.upperBound) * Self.chunk))
    }

    private func chunks(of extent: Extent) -> Range<Int> {
        Int(extent.offset.bytes / Self.chunk)..<Int(extent.end.bytes / Self.chunk)
    }

    private func map(chunks: Int) -> DirtyMap {
        DirtyMap(size: bytes(of: 0..<chunks).length, granularity: Granularity(Granularity.smallest)!)
    }

    /// How many tasks still mark chunks.
    private final class Markers: Sendable {
        private let active: Atomic<Int>
        init(_ count: Int) { active = Atomic(count) }
        func finish() { active.subtract(1, ordering: .releasing) }
        var areActive: Bool { active.load(ordering: .acquiring) > 0 }
    }

    /// A chunk's contents, written by who marks it and read by who takes it.
    // @unchecked: `written` is a plain variable. It is set once, before the only mark of the chunk, and read after its
    // only take; that these are ordered is what the test proves when it runs with the thread sanitizer.
    private final class Content: @unchecked Sendable {
        var written = 0
        let takes = Atomic<Int>(0)
    }

    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func `a chunk marked once is taken once, with what was written before`(seed: UInt64) async {
        let count = 20_000
        let map = map(chunks: count)
        let contents = (0..<count).map { _ in Content() }
        let markers = Markers(2)
        await withTaskGroup { group in
            for half in 0..<2 {
                group.addTask {
                    var random = SplitMix64(seed: seed &* 31 &+ UInt64(half))
                    // Both share every word: one has the even chunks and the other the odd ones.
                    for chunk in stride(from: half, to: count, by: 2).shuffled(using: &random) {
                        contents[chunk].written = chunk + 1
                        map.mark(self.bytes(of: chunk..<chunk + 1))
                    }
                    markers.finish()
                }
                group.addTask {
                    var mayBeMore = true
                    while mayBeMore {
                        mayBeMore = markers.areActive
                        while let run = map.take(from: .zero, limit: .kibibytes(64)) {
                            for chunk in self.chunks(of: run) {
                                contents[chunk].takes.add(1, ordering: .relaxed)
                                #expect(contents[chunk].written == chunk + 1, "seed \(seed)")
                            }
                            mayBeMore = true
                        }
                        await Task.yield()
                    }
                }
            }
        }
        #expect(map.isClean)
        #expect(contents.allSatisfy { $0.takes.load(ordering: .relaxed) == 1 }, "seed \(seed)")
    }

    /// What the guest wrote to a chunk last, and the latest of it that a taker has seen.
    private final class Version: Sendable {
        let written = Atomic<Int>(0)
        let copied = Atomic<Int>(0)

        func copy() {
            let now = written.load(ordering: .relaxed)
            var seen = copied.load(ordering: .relaxed)
            while seen < now {
                seen = copied.weakCompareExchange(expected: seen, desired: now, ordering: .relaxed).original
            }
        }
    }

    enum Fault: Sendable { case none, forgetsEveryTenth }

    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func `no write is lost when chunks are marked and taken over and over`(seed: UInt64) async {
        #expect(await lostWrites(seed: seed, fault: .none) == 0)
    }

    @Test func `the search for lost writes notices marks left out`() async {
        #expect(await lostWrites(seed: 1, fault: .forgetsEveryTenth) > 0)
    }

    /// How many chunks differ from their copy once all that was dirty has been copied, over a hundred short histories:
    /// a mark that is lost only shows if no later one makes up for it.
    private func lostWrites(seed: UInt64, fault: Fault) async -> Int {
        var lost = 0
        for history in 0..<100 as Range<UInt64> { lost += await lostWrites(history: seed &* 1000 &+ history, fault) }
        return lost
    }

    private func lostWrites(history: UInt64, _ fault: Fault) async -> Int {
        // Few chunks to a word and few words, far enough apart for every level to empty and fill again.
        let places = (0..<12).map { $0 % 3 + $0 / 3 * 5000 }
        let map = map(chunks: 20_000)
        let versions = places.map { _ in Version() }
        @Sendable func copyNext() -> Bool {
            guard let run = map.take(from: .zero, limit: .kibibytes(8)) else { return false }
            for (place, version) in zip(places, versions) where chunks(of: run).contains(place) { version.copy() }
            return true
        }
        await withTaskGroup { group in
            // Each both writes and copies, so that the two mix however the tasks are scheduled.
            for task in 0..<2 as Range<UInt64> {
                group.addTask {
                    var random = SplitMix64(seed: history &* 2 &+ task)
                    for step in 1...500 {
                        let index = Int.random(in: 0..<places.count, using: &random)
                        versions[index].written.add(1, ordering: .relaxed)
                        if fault == .none || step % 10 != 0 {
                            map.mark(self.bytes(of: places[index]..<places[index] + 1))
                        }
                        while Bool.random(using: &random), copyNext() {}
                    }
                }
            }
        }
        while copyNext() {}
        return versions.count { $0.copied.load(ordering: .relaxed) != $0.written.load(ordering: .relaxed) }
    }

    @Test func `a marked chunk is found at once while others search`() async {
        // In a word, a group and a top word of its own, which all empty and fill with it.
        let place = 300_000
        let map = map(chunks: 600_000)
        let dirty = bytes(of: place..<place + 1)
        let markers = Markers(1)
        let missed = await withTaskGroup(of: Int.self) { group in
            group.addTask {
                var missed = 0
                for round in 0..<200_000 {
                    // Leaves the other now more, now less time to find the map clean.
                    for _ in 0..<round % 64 { _ = markers.areActive }
                    map.mark(dirty)
                    if map.nextRun(from: .zero, limit: .kibibytes(4)) != dirty { missed += 1 }
                    if map.take(from: .zero, limit: .kibibytes(4)) != dirty { missed += 1 }
                }
                markers.finish()
                return missed
            }
            group.addTask {
                // Each search that finds nothing clears the summaries.
                while markers.areActive {
                    for _ in 0..<1000 { _ = map.nextRun(from: .zero, limit: .kibibytes(4)) }
                    await Task.yield()
                }
                return 0
            }
            return await group.reduce(0, +)
        }
        #expect(missed == 0)
    }
}
