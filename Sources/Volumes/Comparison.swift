/// Finds where two states differ, piece by piece, several at a time.
package protocol Comparison: Sendable {
    /// How large the two are. What follows holds only where they are alike.
    var sizes: (ours: ByteCount, theirs: ByteCount) { get }
    /// Pieces neither cross a multiple of this nor are longer.
    var pieceSize: ByteCount { get }
    /// Where the pieces lie: from zero up to here.
    var space: ByteCount { get }
    /// Hands on, in order, what may hold other bytes than zeros on either side.
    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError)
    /// The first bytes of the volume in `piece` that differ, up to the next that agree; nothing if none do.
    func firstDifference(in piece: Extent) async throws(VolumeError) -> Extent?
    func close() async
}
