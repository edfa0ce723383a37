internal import Volumes

/// A part of a read's answer.
struct Span: Equatable {
    let extent: Extent
    /// Whether it is told as zeros, without its bytes.
    let isHole: Bool
}

extension Span {
    /// A hole that is smaller costs both ends more than its zeros.
    static let smallestHole = ByteCount.kibibytes(32)

    /// All of `extent` in order: `data`, holes between, but smaller holes with the data around them.
    ///
    /// - Parameter data: Inside of `extent`.
    static func spans(of extent: Extent, data: ExtentSet) -> [Span] {
        var spans: [Span] = []
        var start = extent.offset
        func add(upTo end: ByteOffset, isHole: Bool) {
            guard end > start else { return }
            if !isHole, let last = spans.last, !last.isHole {
                spans[spans.count - 1] = Span(extent: Extent(from: last.extent.offset, to: end), isHole: false)
            } else {
                spans.append(Span(extent: Extent(from: start, to: end), isHole: isHole))
            }
            start = end
        }
        for run in data.extents {
            let isLarge = run.offset > start && run.offset - start >= smallestHole
            add(upTo: run.offset, isHole: isLarge)
            add(upTo: run.end, isHole: false)
        }
        add(upTo: extent.end, isHole: extent.end > start && (extent.end - start >= smallestHole || spans.isEmpty))
        return spans
    }
}
