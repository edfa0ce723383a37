import Conformance
import Testing
import Volumes

@testable import NBDProtocol
@testable import NBDVolumes

struct RequestShapeTests {
    static func extent(_ range: Range<UInt64>) -> Extent {
        Extent(from: ByteOffset(range.lowerBound), to: ByteOffset(range.upperBound))
    }

    @Test func `the most that is asked for at once is a number of whole blocks`() {
        #expect(
            RequestShape(.standard) == RequestShape(BlockSizes(minimum: 1, preferred: 512, maximumPayload: 1 << 25)!))
        let odd = RequestShape(BlockSizes(minimum: 4096, preferred: 4096, maximumPayload: 10_000)!)
        #expect(odd.most == ByteCount(8192))
    }

    @Test(
        arguments: [
            (0..<8192, 0..<8192, []), (4096..<4096, 4096..<4096, []), (1..<8192, 4096..<8192, [1..<4096]),
            (4096..<8193, 4096..<8192, [8192..<8193]), (4095..<8193, 4096..<8192, [4095..<4096, 8192..<8193]),
            (1..<2, 4096..<4096, [1..<2]), (4095..<4097, 4096..<4096, [4095..<4096, 4096..<4097]),
            (0..<4095, 0..<0, [0..<4095]), (1..<4096, 4096..<4096, [1..<4096]),
        ] as [(Range<UInt64>, Range<UInt64>, [Range<UInt64>])])
    func `an extent is cut at the blocks' edges`(
        whole: Range<UInt64>, body: Range<UInt64>, edges: [Range<UInt64>]
    ) {
        let shape = RequestShape(BlockSizes(minimum: 4096, preferred: 4096, maximumPayload: 8192)!)
        let cut = shape.cut(Self.extent(whole))
        #expect(cut.edges == edges.map(Self.extent))
        #expect(cut.body.length == Self.extent(body).length)
        if !body.isEmpty { #expect(cut.body == Self.extent(body)) }
    }

    @Test(arguments: 1...200 as ClosedRange<UInt64>)
    func `the parts of an extent are the extent`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let minimum = UInt32(1) << UInt32.random(in: 0...16, using: &random)
        let most = UInt32.random(in: max(minimum, 512)...max(minimum, 512) * 4, using: &random)
        guard let sizes = BlockSizes(minimum: minimum, preferred: max(minimum, 512), maximumPayload: most) else {
            return
        }
        let shape = RequestShape(sizes)
        let start = UInt64.random(in: 0...200_000, using: &random)
        let whole = Self.extent(start..<start + UInt64.random(in: 0...300_000, using: &random))
        let cut = shape.cut(whole)
        let parts = Array(cut.body.parts(ofAtMost: shape.most))
        for part in parts {
            #expect(part.length <= shape.most && part.length <= ByteCount(UInt64(most)))
            #expect(part.offset.bytes % UInt64(minimum) == 0 && part.length.bytes % UInt64(minimum) == 0)
        }
        for edge in cut.edges { #expect(shape.widened(edge).length == shape.block) }
        // None overlaps: together they are as long as the whole.
        #expect((parts + cut.edges).reduce(ByteCount.zero) { $0 + $1.length } == whole.length)
        #expect(ExtentSet(parts + cut.edges) == ExtentSet([whole]))
    }
}
