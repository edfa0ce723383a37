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
    /// One round of a live move.
    package struct RoundReport: Codable, Sendable {
        /// Bytes that passed through this process, or went from OSD to OSD.
        package var sentBytes: UInt64
        /// Bytes that the writer had dirtied since the round before.
        package var dirtiedBytes: UInt64
        /// The same in chunks of the dirty map.
        package var mapBytes: UInt64
        /// Snapshot, diff and bytes.
        package var seconds: Double
        /// How long the snapshot took: what the writer may have had to wait.
        package var snapshotSeconds: Double
        package var drainBytesPerSecond: UInt64
        package var dirtyBytesPerSecond: UInt64
        package var predictedPauseSeconds: Double
        package var verdict: String
        package var reason: String
        /// The limit that the writer was held to while the round was drained.
        package var limitBytesPerSecond: UInt64?
    }

    /// How long the writer stood still, and what for; seconds.
    package struct Pause: Codable, Sendable, Equatable {
        package var seconds = 0.0
        package var freeze = 0.0
        package var lastDiff = 0.0
        package var lastBytes = 0.0
        package var verify = 0.0
        package var fence = 0.0
        package var commit = 0.0
        package var `switch` = 0.0

        /// The parts that took any time, for people.
        package var parts: String {
            let parts = [
                ("freeze", freeze), ("last diff", lastDiff), ("last bytes", lastBytes), ("verify", verify),
                ("fence", fence), ("commit", commit), ("switch", `switch`),
            ]
            return parts.filter { $0.1 >= 0.0005 }.map { "\($0.0) \(Duration.seconds($0.1).text)" }
                .joined(separator: ", ")
        }
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
    /// Of a live move: what followed the writer.
    package var rounds: [RoundReport]?
    package var pause: Pause?
    /// What writers may have waited for all snapshots together; seconds.
    package var snapshotSeconds: Double?
    /// Attempts to hand over that had to be given up.
    package var attempts: Int?
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

    /// Adds what a step did.
    mutating func add(_ step: Step, means: ExtentMeans, _ moved: Moved, seconds: Double) {
        let snapshot = step.goal.snapshot.flatMap { $0.isTransient ? nil : $0.name }
        let added = StepReport(
            snapshot: snapshot, means: means, foundBytes: moved.found.bytes, sentBytes: moved.sent.bytes,
            copiedBytes: moved.copied.bytes, zeroedBytes: moved.zeroed.bytes, seconds: seconds)
        // What follows a writer is one line, however many rounds it takes.
        guard rounds != nil, snapshot == nil, let last = steps.last, last.snapshot == nil else {
            return steps.append(added)
        }
        steps[steps.count - 1] = last + added
    }

    package var foundBytes: UInt64 { steps.reduce(0) { $0 + $1.foundBytes } }
    package var sentBytes: UInt64 { steps.reduce(0) { $0 + $1.sentBytes } }
    package var copiedBytes: UInt64 { steps.reduce(0) { $0 + $1.copiedBytes } }
}

extension Report.StepReport {
    static func + (left: Self, right: Self) -> Self {
        Self(
            snapshot: left.snapshot, means: left.means, foundBytes: left.foundBytes + right.foundBytes,
            sentBytes: left.sentBytes + right.sentBytes, copiedBytes: left.copiedBytes + right.copiedBytes,
            zeroedBytes: left.zeroedBytes + right.zeroedBytes, seconds: left.seconds + right.seconds)
    }
}
