import Conformance
import Testing
import Volumes

@testable import NBDProtocol

struct CoverageTests {
    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func `it is what a set of bytes would be`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var coverage = Coverage()
        var bytes: Set<UInt64> = []
        for _ in 0..<60 {
            let extent = Extent(
                offset: ByteOffset(.random(in: 0..<64, using: &random)),
                length: ByteCount(.random(in: 1...6, using: &random)))
            let new = Set(extent.offset.bytes..<extent.end.bytes)
            let before = coverage
            let isNew = coverage.insert(extent)
            #expect(isNew == bytes.isDisjoint(with: new))
            if isNew { bytes.formUnion(new) } else { #expect(coverage == before) }
            #expect(Set(coverage.extents.flatMap { $0.offset.bytes..<$0.end.bytes }) == bytes)
            for (left, right) in zip(coverage.extents, coverage.extents.dropFirst()) {
                #expect(left.end < right.offset)
            }
        }
        #expect(bytes.count > 30)
    }
}
