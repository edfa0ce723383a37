import Conformance
import Mirror
import Testing
import Volumes

struct FrontierTests {
    private func piece(_ start: UInt64, _ end: UInt64) -> Extent {
        Extent(from: ByteOffset(start), to: ByteOffset(end))
    }

    @Test func `before anything was given out, what an earlier run did is settled`() {
        #expect(Frontier(from: ByteOffset(40)).settled == ByteOffset(40))
    }

    @Test func `the first piece under way holds the frontier, and gaps between pieces don't`() {
        var frontier = Frontier(from: .zero)
        frontier.begin(piece(10, 20))
        #expect(frontier.settled == ByteOffset(10))
        frontier.begin(piece(50, 60))
        frontier.end(piece(50, 60))
        #expect(frontier.settled == ByteOffset(10))
        frontier.end(piece(10, 20))
        #expect(frontier.settled == ByteOffset(60))
    }

    @Test(arguments: 1...50 as ClosedRange<UInt64>)
    func `the frontier is before the first byte that is not done`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let start = UInt64.random(in: 0...10, using: &random)
        var frontier = Frontier(from: ByteOffset(start))
        // Byte by byte: under way or not, up to where pieces were given out.
        var isUnderWay = [Bool](repeating: false, count: Int(start))
        var pieces: [Extent] = []
        for _ in 0..<60 {
            if Bool.random(using: &random) {
                let offset = UInt64(isUnderWay.count) + UInt64.random(in: 0...3, using: &random)
                let new = piece(offset, offset + UInt64.random(in: 1...4, using: &random))
                isUnderWay += [Bool](repeating: false, count: Int(offset) - isUnderWay.count)
                isUnderWay += [Bool](repeating: true, count: Int(new.length.bytes))
                pieces.append(new)
                frontier.begin(new)
            } else if let index = pieces.indices.randomElement(using: &random) {
                let done = pieces.remove(at: index)
                for byte in done.offset.bytes..<done.end.bytes { isUnderWay[Int(byte)] = false }
                frontier.end(done)
            }
            let settled = isUnderWay.firstIndex(of: true) ?? isUnderWay.count
            #expect(frontier.settled == ByteOffset(UInt64(settled)), "seed \(seed)")
        }
    }
}
