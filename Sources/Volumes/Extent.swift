/// A run of bytes: where it starts and how long it is.
package struct Extent: Hashable, Sendable {
    package var offset: ByteOffset
    package var length: ByteCount

    package init(offset: ByteOffset, length: ByteCount) {
        self.offset = offset
        self.length = length
    }

    /// The bytes from `start` up to, and without, `end`. Empty if `end` is not after `start`.
    package init(from start: ByteOffset, to end: ByteOffset) {
        self.init(offset: start, length: end > start ? end - start : .zero)
    }

    /// The first byte after the extent.
    package var end: ByteOffset { offset + length }
    package var isEmpty: Bool { length == .zero }

    /// What both share; empty if nothing.
    package func intersection(_ other: Extent) -> Extent {
        Extent(from: max(offset, other.offset), to: min(end, other.end))
    }

    /// All of it in order, in parts of at most `most` bytes, which is more than zero.
    package func parts(ofAtMost most: ByteCount) -> some Sequence<Extent> {
        sequence(state: self) { rest -> Extent? in
            guard !rest.isEmpty else { return nil }
            let part = Extent(offset: rest.offset, length: min(rest.length, most))
            rest = Extent(from: part.end, to: rest.end)
            return part
        }
    }
}

/// Bytes of a volume as sorted extents that neither overlap nor touch.
package struct ExtentSet: Equatable, Sendable {
    package private(set) var extents: [Extent] = []

    package init() {}

    /// In any order, overlapping or not.
    package init(_ extents: some Sequence<Extent>) {
        for extent in extents.sorted(by: { $0.offset < $1.offset }) { append(extent) }
    }

    package var isEmpty: Bool { extents.isEmpty }
    package var total: ByteCount { extents.reduce(.zero) { $0 + $1.length } }
    /// The first byte after the last extent; zero if there is none.
    package var end: ByteOffset { extents.last?.end ?? .zero }

    /// Adds an extent that starts no earlier than any before it, in constant time.
    package mutating func append(_ extent: Extent) {
        guard !extent.isEmpty else { return }
        guard let last = extents.last, extent.offset <= last.end else { return extents.append(extent) }
        precondition(extent.offset >= last.offset, "extents are appended in order")
        extents[extents.count - 1] = Extent(from: last.offset, to: max(last.end, extent.end))
    }

    package func union(_ other: ExtentSet) -> ExtentSet {
        if isEmpty { return other }
        if other.isEmpty { return self }
        return ExtentSet(extents + other.extents)
    }

    package func intersection(_ other: ExtentSet) -> ExtentSet {
        var common = ExtentSet()
        var (mine, theirs) = (extents[...], other.extents[...])
        while let left = mine.first, let right = theirs.first {
            common.append(left.intersection(right))
            if left.end <= right.end { mine.removeFirst() } else { theirs.removeFirst() }
        }
        return common
    }

    package func intersection(_ extent: Extent) -> ExtentSet { intersection(ExtentSet([extent])) }

    /// The same, of a long set and a short extent: without looking at what lies before and after it.
    package func within(_ extent: Extent) -> ExtentSet {
        // The first that ends after the extent's start, by halving.
        var (low, high) = (0, extents.count)
        while low < high {
            let middle = (low + high) / 2
            if extents[middle].end > extent.offset { high = middle } else { low = middle + 1 }
        }
        var common = ExtentSet()
        while low < extents.count, extents[low].offset < extent.end {
            common.append(extents[low].intersection(extent))
            low += 1
        }
        return common
    }

    package func subtracting(_ other: ExtentSet) -> ExtentSet {
        var rest = ExtentSet()
        var holes = other.extents[...]
        for extent in extents {
            var start = extent.offset
            while let hole = holes.first, hole.offset < extent.end {
                rest.append(Extent(from: start, to: min(hole.offset, extent.end)))
                start = max(start, hole.end)
                // A hole that reaches past this extent may cut the next one as well.
                if hole.end > extent.end { break }
                holes.removeFirst()
            }
            rest.append(Extent(from: start, to: extent.end))
        }
        return rest
    }
}
