package import Convergence
package import Cutover
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
    /// How to move while clients go on writing; nothing for a source that nobody is to write to.
    package var live: LiveOptions?

    package init() {}
}

/// How a live move comes to its end.
package struct LiveOptions: Sendable {
    package enum Cutover: String, Sendable { case auto, manual }
    package enum Fence: String, Sendable {
        /// Every client has to have let go of the source.
        case release
        /// Whoever hasn't is evicted.
        case blocklist
    }

    package var convergence = Convergence.Settings()
    package var cutover = Cutover.auto
    package var fence = Fence.release
    package var source = Retirement.keep
    /// Who holds the writer still; nothing to wait until there is none.
    package var hold: (any WriterHold)?
    /// How long to wait for the last client to leave, where nobody holds them still.
    package var patience = Duration.seconds(24 * 3600)

    package init() {}
}
