import Conformance
import RBDVolumes
import Testing
import Volumes

/// How bytes lie on objects, against the arithmetic that Ceph's documentation gives (dev/file-striping).
struct StripingTests {
    struct Case: CustomTestStringConvertible {
        let objectSize: UInt64
        let unit: UInt64
        let count: UInt64
        var testDescription: String { "objects of \(objectSize), units of \(unit), \(count) at once" }

        var striping: Striping {
            Striping(
                Layout(
                    objectSize: ByteCount(objectSize), stripeUnit: ByteCount(unit), stripeCount: count, dataPool: nil,
                    features: []))
        }

        /// Where a byte of the image lies, as the documentation reckons.
        func place(of byte: UInt64) -> (object: UInt64, offset: UInt64) {
            let blockNumber = byte / unit
            let stripeNumber = blockNumber / count
            let stripePosition = blockNumber % count
            let stripesInObject = objectSize / unit
            let objectSet = stripeNumber / stripesInObject
            return (
                objectSet * count + stripePosition, (stripeNumber % stripesInObject) * unit + byte % unit
            )
        }
    }

    static let cases: [Case] = [16, 32, 64].flatMap { objectSize in
        [1, 2, 4, 8, 16, 32, 64].filter { $0 <= objectSize }.flatMap { unit in
            [1, 2, 3, 5].map { Case(objectSize: objectSize, unit: unit, count: $0) }
        }
    }

    @Test(arguments: cases)
    func `extents of objects stand in the image where the documentation puts them`(layout: Case) {
        var random = SplitMix64(seed: layout.objectSize * 1000 + layout.unit * 10 + layout.count)
        let objects = Int(3 * layout.count)
        var image: [Int: [UInt64: UInt64]] = [:]
        for byte in 0..<UInt64(objects) * layout.objectSize {
            let (object, offset) = layout.place(of: byte)
            image[Int(object), default: [:]][offset] = byte
        }
        for object in 0..<objects {
            for _ in 0..<10 {
                let start = UInt64.random(in: 0..<layout.objectSize, using: &random)
                let end = UInt64.random(in: start...layout.objectSize, using: &random)
                let extent = Extent(from: ByteOffset(start), to: ByteOffset(end))
                let found = layout.striping.imageExtents(of: extent, in: object)
                    .flatMap { $0.offset.bytes..<$0.end.bytes }
                #expect(found == (start..<end).map { image[object]![$0]! })
            }
        }
    }

    @Test(arguments: cases)
    func `the objects named for a range hold all of it, and no more than its object sets`(layout: Case) {
        var random = SplitMix64(seed: layout.objectSize * 1000 + layout.unit * 10 + layout.count + 1)
        let setSize = layout.objectSize * layout.count
        #expect(layout.striping.setSize == ByteCount(setSize))
        for _ in 0..<20 {
            let start = UInt64.random(in: 0...3 * setSize, using: &random)
            let end = UInt64.random(in: start...4 * setSize, using: &random)
            let range = Extent(from: ByteOffset(start), to: ByteOffset(end))
            let found = layout.striping.objects(of: range)
            let held = Set((start..<end).map { Int(layout.place(of: $0).object) })
            #expect(held.isSubset(of: found))
            #expect(found.allSatisfy { UInt64($0) / layout.count >= start / setSize })
            #expect(found.allSatisfy { UInt64($0) / layout.count * setSize < end })
        }
    }

    @Test(arguments: cases)
    func `an image may have the objects that its bytes lie on, and no more`(layout: Case) {
        let most = 3 * layout.objectSize * layout.count
        var last: UInt64 = 0
        for size in 0...most {
            if size > 0 { last = max(last, layout.place(of: size - 1).object + 1) }
            #expect(layout.striping.objectCount(of: ByteCount(size)) == Int(last))
        }
    }

    @Test func `an empty range lies on no object`() {
        let striping = Case(objectSize: 64, unit: 16, count: 3).striping
        #expect(striping.objects(of: Extent(offset: ByteOffset(500), length: .zero)).isEmpty)
        let nothing = Extent(offset: ByteOffset(5), length: .zero)
        #expect(striping.imageExtents(of: nothing, in: 4).allSatisfy { $0.isEmpty })
    }

    @Test func `the last object of the largest image is placed without overflow`() {
        // 2^53 objects of 4 KiB at once 16, units of 512: beyond what librbd makes.
        let layout = Case(objectSize: 4096, unit: 512, count: 16)
        let object = 1 << 50
        let extent = Extent(offset: ByteOffset(512), length: ByteCount(1))
        let byte = layout.striping.imageExtents(of: extent, in: object)[0].offset.bytes
        #expect(layout.place(of: byte) == (UInt64(object), 512))
    }
}
