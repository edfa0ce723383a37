import Conformance
import DirtyMap
import Testing
import Volumes

/// The map against the set of its dirty chunks, all through a random history.
struct DifferentialTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        let size: ByteCount
        let granularity: Granularity
        var testDescription: String { "\(size.bytes) bytes by \(granularity.size.bytes)" }

        init(chunks: UInt64, and rest: Int64 = 0, of granularity: ByteCount) {
            size = ByteCount(UInt64(Int64(chunks * granularity.bytes) + rest))
            self.granularity = Granularity(granularity)!
        }

        static let all = [
            Shape(chunks: 0, of: Granularity.smallest),
            Shape(chunks: 0, and: 1, of: Granularity.smallest),
            Shape(chunks: 1, of: Granularity.smallest),
            Shape(chunks: 64, and: -1, of: Granularity.smallest),
            Shape(chunks: 64, of: Granularity.smallest),
            Shape(chunks: 64, and: 1, of: Granularity.smallest),
            Shape(chunks: 130, and: 512, of: .kibibytes(64)),
            Shape(chunks: 200, of: Granularity.largest),
            Shape(chunks: 70, and: 7, of: Granularity.largest),
            large,
        ]
        /// More than one word of summaries.
        static let large = Shape(chunks: 5000, of: Granularity.smallest)
    }

    enum Fault: Sendable { case none, forgetsAMark, takesTwice }

    @Test(arguments: Shape.all, 1...4 as ClosedRange<UInt64>)
    func `the map does what a set of chunks does`(shape: Shape, seed: UInt64) {
        #expect(firstDifference(shape, seed: seed, steps: 400, fault: .none) == nil)
    }

    @Test(arguments: [Fault.forgetsAMark, .takesTwice])
    func `the comparison notices a planted fault`(fault: Fault) {
        #expect(firstDifference(.large, seed: 1, steps: 400, fault: fault) != nil)
    }

    /// Runs one history on both; the first step after which they differ, or nothing.
    private func firstDifference(_ shape: Shape, seed: UInt64, steps: Int, fault: Fault) -> String? {
        var random = SplitMix64(seed: seed)
        let map = DirtyMap(size: shape.size, granularity: shape.granularity)
        var model = NaiveMap(size: shape.size, granularity: shape.granularity)
        let chunk = shape.granularity.size.bytes

        for step in 0..<steps {
            let extent = randomExtent(in: model, with: &random)
            let action: String
            var agree = true
            switch UInt64.random(in: 0..<10, using: &random) {
            case 0..<5:
                action = "mark \(extent)"
                if fault != .forgetsAMark || step < steps / 2 { map.mark(extent) }
                model.mark(extent)
            case 5:
                let end = extent.end.bytes == model.size ? extent.end : extent.end.rounded(downTo: ByteCount(chunk))
                let aligned = Extent(from: extent.offset.rounded(downTo: ByteCount(chunk)), to: end)
                action = "clear \(aligned)"
                map.clear(aligned)
                model.clear(aligned)
            default:
                let from = extent.offset.rounded(upTo: ByteCount(chunk))
                let limit = ByteCount(UInt64.random(in: chunk..<100 * chunk, using: &random))
                let strides: [UInt64?] = [nil, 1, 3, 64, 100]
                let boundary = strides.randomElement(using: &random)!.map { ByteCount($0 * chunk) }
                action = "take from \(from), limit \(limit), boundary \(String(describing: boundary))"
                let expected = model.nextRun(from: from, limit: limit, boundary: boundary)
                agree = map.nextRun(from: from, limit: limit, boundary: boundary) == expected
                let taken = map.take(from: from, limit: limit, boundary: boundary)
                agree = agree && taken == expected
                if let taken {
                    model.clear(taken)
                    if fault == .takesTwice, step > steps / 2 { map.mark(taken) }
                }
            }
            guard agree else { return "seed \(seed), step \(step): \(action)" }
            // Comparing everything takes longest, by far; where a step went wrong shows in the end as well.
            guard step % 8 == 7 else { continue }
            agree =
                map.runs().elementsEqual(model.runs()) && map.dirtyBytes == model.dirtyBytes
                && map.isClean == model.dirty.isEmpty
            guard agree else { return "seed \(seed), by step \(step): \(action)" }
        }
        return nil
    }

    /// Any extent of the volume, most often a short one or one that starts or ends at the edge of a word.
    private func randomExtent(in model: NaiveMap, with random: inout SplitMix64) -> Extent {
        guard model.size > 0 else { return Extent(offset: .zero, length: .zero) }
        func place(_ random: inout SplitMix64) -> UInt64 {
            guard Bool.random(using: &random) else { return UInt64.random(in: 0...model.size, using: &random) }
            let word = UInt64.random(in: 0...model.chunkCount / 64, using: &random)
            let byte = Int64(word * 64 * model.chunk) + [-1, 0, 1].randomElement(using: &random)!
            return UInt64(min(max(byte, 0), Int64(model.size)))
        }
        let start = place(&random)
        let end =
            Bool.random(using: &random)
            ? place(&random) : start + UInt64.random(in: 0...5 * model.chunk, using: &random)
        return Extent(
            from: ByteOffset(min(start, end, model.size)), to: ByteOffset(min(max(start, end), model.size)))
    }
}
