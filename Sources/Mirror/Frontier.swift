package import Volumes

/// Which pieces are under way, and so up to where everything is done.
package struct Frontier: Sendable {
    private var underWay: Set<ByteOffset> = []
    /// Up to where pieces were given out.
    private var reached: ByteOffset

    package init(from start: ByteOffset) { reached = start }

    /// Pieces are given out in order.
    package mutating func begin(_ piece: Extent) {
        underWay.insert(piece.offset)
        reached = max(reached, piece.end)
    }

    package mutating func end(_ piece: Extent) { underWay.remove(piece.offset) }

    /// Everything before is done.
    package var settled: ByteOffset { underWay.min() ?? reached }
}
