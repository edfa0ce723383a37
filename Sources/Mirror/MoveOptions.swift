package import Volumes

/// How a move is to be made.
package struct MoveOptions: Sendable {
    package enum Snapshots: String, Sendable, Codable { case all, none }

    package var granularity = Granularity.standard
    package var snapshots = Snapshots.all
    /// Nothing for as fast as it goes.
    package var bandwidth: ByteRate?
    /// How many bytes may be under way at once: what bounds the memory a move takes.
    package var inFlight = ByteCount.mebibytes(96)
    /// Compare every snapshot and the head before the target becomes the finished one.
    package var verifies = false

    package init() {}
}
