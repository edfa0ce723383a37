package import Volumes

/// How the bytes of an image are laid on its objects (doc/man/8/rbd, "Striping"; osdc/Striper).
///
/// Stripe units go round `count` objects; once those are full, round the next `count`, which are the next object set.
package struct Striping: Sendable, Equatable {
    let unit: UInt64
    let count: UInt64
    let objectSize: UInt64

    package init(_ layout: Layout) {
        unit = layout.stripeUnit.bytes
        count = layout.stripeCount
        objectSize = layout.objectSize.bytes
    }

    /// The bytes of an object set: no extent of the image that starts at a multiple of this shares an object with the
    /// bytes before it.
    package var setSize: ByteCount { ByteCount(objectSize * count) }

    package init(unit: ByteCount, count: UInt64, objectSize: ByteCount) {
        self.unit = unit.bytes
        self.count = count
        self.objectSize = objectSize.bytes
    }

    /// How many objects an image of that size may have (`Striper::get_num_objects`).
    package func objectCount(of size: ByteCount) -> Int {
        let (sets, rest) = size.bytes.quotientAndRemainder(dividingBy: setSize.bytes)
        // In the last set only the first objects have a stripe unit, as long as not all of them have one.
        return Int(sets * count + min(count, (rest + unit - 1) / unit))
    }

    /// The objects that hold any of `range`.
    package func objects(of range: Extent) -> Range<Int> {
        guard !range.isEmpty else { return 0..<0 }
        let first = range.offset.bytes / setSize.bytes * count
        let sets = (range.end.bytes + setSize.bytes - 1) / setSize.bytes
        return Int(first)..<Int(sets * count)
    }

    /// Where an extent of an object stands in the image.
    package func imageExtents(of extent: Extent, in object: Int) -> [Extent] {
        if count == 1 {
            return [
                Extent(offset: ByteOffset(UInt64(object) * objectSize + extent.offset.bytes), length: extent.length)
            ]
        }
        let (set, position) = UInt64(object).quotientAndRemainder(dividingBy: count)
        var found: [Extent] = []
        var start = extent.offset.bytes
        while start < extent.end.bytes {
            let (stripe, within) = start.quotientAndRemainder(dividingBy: unit)
            let length = min(unit - within, extent.end.bytes - start)
            let offset = ((set * (objectSize / unit) + stripe) * count + position) * unit + within
            found.append(Extent(offset: ByteOffset(offset), length: ByteCount(length)))
            start += length
        }
        return found
    }
}
