internal import Volumes

/// Which bytes of a read have been told, in chunks of any order.
struct Coverage: Equatable {
    /// Sorted; they neither overlap nor touch.
    private(set) var extents: [Extent] = []

    /// Adds an extent that isn't empty.
    /// - Returns: False, and nothing added, if it overlaps with one before.
    mutating func insert(_ extent: Extent) -> Bool {
        // The first that ends at or after the new one's start, by halving; most chunks come in order.
        var (low, high) = (extents.last.map { $0.end < extent.offset } ?? true ? extents.count : 0, extents.count)
        while low < high {
            let middle = (low + high) / 2
            if extents[middle].end >= extent.offset { high = middle } else { low = middle + 1 }
        }
        var new = extent
        var next = low
        if low < extents.count, extents[low].end == extent.offset {
            new = Extent(from: extents[low].offset, to: new.end)
            next = low + 1
        }
        if next < extents.count {
            guard extents[next].offset >= extent.end else { return false }
            if extents[next].offset == extent.end {
                new = Extent(from: new.offset, to: extents[next].end)
                next += 1
            }
        }
        extents.replaceSubrange(low..<next, with: [new])
        return true
    }

    /// Whether all of `extent` has been told. Nothing outside of it was.
    func isAll(of extent: Extent) -> Bool { extents == [extent] }
}
