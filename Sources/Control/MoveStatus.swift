package import Foundation

/// How a live move stands: what `godwit status` shows, and what goes over the control socket.
///
/// Raw numbers with their unit in the name, because this is a wire value. Names that are added later must be optional,
/// so that one version's `status` reads another version's move.
package struct MoveStatus: Codable, Sendable, Equatable {
    package enum Phase: String, Codable, Sendable, CaseIterable {
        /// The first pass over everything that is allocated.
        case copying
        /// Rounds over what was written meanwhile.
        case following
        /// Could hand over: waits for the operator, or for the clients to leave.
        case ready
        case handingOver = "handing over"
        case paused
        case ending
    }

    /// A round over what was written meanwhile, as it was judged.
    package struct Round: Codable, Sendable, Equatable {
        package var dirtiedBytes: UInt64
        package var sentBytes: UInt64
        package var seconds: Double
        package var drainBytesPerSecond: UInt64
        package var dirtyBytesPerSecond: UInt64
        /// Nothing where it can't be told yet.
        package var predictedPauseSeconds: Double?
        package var verdict: String
        package var reason: String
        /// The limit that the verdict put on the writer.
        package var limitBytesPerSecond: UInt64?

        package init(
            dirtiedBytes: UInt64, sentBytes: UInt64, seconds: Double, drainBytesPerSecond: UInt64,
            dirtyBytesPerSecond: UInt64, predictedPauseSeconds: Double? = nil, verdict: String, reason: String,
            limitBytesPerSecond: UInt64? = nil
        ) {
            self.dirtiedBytes = dirtiedBytes
            self.sentBytes = sentBytes
            self.seconds = seconds
            self.drainBytesPerSecond = drainBytesPerSecond
            self.dirtyBytesPerSecond = dirtyBytesPerSecond
            self.predictedPauseSeconds = predictedPauseSeconds
            self.verdict = verdict
            self.reason = reason
            self.limitBytesPerSecond = limitBytesPerSecond
        }
    }

    /// How many of the latest rounds are told.
    package static let mostRounds = 10

    /// Addresses, as they were given.
    package var source: String
    package var target: String
    /// The process that moves.
    package var process: Int32
    /// ISO 8601, in UTC: "2026-01-31T12:00:00Z".
    package var started: String
    package var phase: Phase
    /// What is being done now: "round 4".
    package var title: String
    package var doneBytes: UInt64
    /// Nothing while it is being counted.
    package var totalBytes: UInt64?
    /// From 1 on; 0 before the first.
    package var round: Int
    /// The latest last.
    package var rounds: [Round]
    /// If the hand-over began now.
    package var predictedPauseSeconds: Double?
    package var maxPauseSeconds: Double
    /// In force on the writer now.
    package var throttleBytesPerSecond: UInt64?
    /// In force on the move itself.
    package var bandwidthBytesPerSecond: UInt64?
    /// The latest, and why.
    package var verdict: String
    package var reason: String?
    /// Something that holds the move up, or that the operator should know.
    package var notice: String?

    /// How a move begins: the rest is filled in as it becomes known.
    package init(
        source: String, target: String, process: Int32 = ProcessInfo.processInfo.processIdentifier,
        started: Date = Date(), phase: Phase = .copying, title: String = "", maxPauseSeconds: Double
    ) {
        self.source = source
        self.target = target
        self.process = process
        self.started = started.formatted(.iso8601)
        self.phase = phase
        self.title = title
        (doneBytes, totalBytes, round, rounds) = (0, nil, 0, [])
        self.maxPauseSeconds = maxPauseSeconds
        verdict = ""
    }

    /// How long it has been running; nothing if `started` is no time.
    package func age(at now: Date = Date()) -> Double? {
        guard let began = try? Date(started, strategy: .iso8601) else { return nil }
        return max(0, now.timeIntervalSince(began))
    }

    /// As it can go on the wire: no more rounds than are told, and no number that JSON can't say.
    var told: MoveStatus {
        var told = self
        told.rounds = rounds.suffix(Self.mostRounds).map { round in
            var round = round
            round.predictedPauseSeconds = round.predictedPauseSeconds?.finite
            round.seconds = round.seconds.finite ?? 0
            return round
        }
        told.predictedPauseSeconds = predictedPauseSeconds?.finite
        told.maxPauseSeconds = maxPauseSeconds.finite ?? 0
        return told
    }
}

extension Double {
    fileprivate var finite: Double? { isFinite ? self : nil }
}
