package import Volumes

/// What a move did, from its beginning to its end: one for each move, to be read by people and programs.
package struct Report: Codable, Sendable {
    package struct StepReport: Codable, Sendable {
        /// The snapshot's name; nothing for the head.
        package var snapshot: String?
        /// By which means its extents were found.
        package var means: ExtentMeans
        /// Bytes allocated and dirty at the source.
        package var foundBytes: UInt64
        /// Bytes that passed through this process.
        package var sentBytes: UInt64
        /// Bytes that went from OSD to OSD.
        package var copiedBytes: UInt64
        /// Bytes made holes at the target.
        package var zeroedBytes: UInt64
        package var seconds: Double
    }
    package enum Outcome: String, Codable, Sendable {
        case moved
        /// An earlier run had committed the move: this one tidied up.
        case tidied
    }
    package enum RouteKind: String, Codable, Sendable {
        case objects = "object to object"
        case stream = "read and write"
    }

    package var source: String
    package var target: String
    package var outcome = Outcome.moved
    package var sizeBytes: UInt64
    package var route: RouteKind?
    package var steps: [StepReport] = []
    /// Snapshots that an earlier run had finished.
    package var snapshotsFoundFinished = 0
    /// Whether an earlier run had begun it.
    package var resumed = false
    /// Whether every snapshot and the head were compared; nothing if that wasn't asked for.
    package var verified: Bool?
    package var seconds: Double = 0
    /// What stays behind.
    package var notCarried: [String]
    /// What is otherwise than at the source.
    package var changed: [String]

    package var foundBytes: UInt64 { steps.reduce(0) { $0 + $1.foundBytes } }
    package var sentBytes: UInt64 { steps.reduce(0) { $0 + $1.sentBytes } }
    package var copiedBytes: UInt64 { steps.reduce(0) { $0 + $1.copiedBytes } }
}
