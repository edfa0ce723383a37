internal import Foundation

/// What a later run has to know, on whichever host: kept with the target until the move is over.
struct Record: Codable, Sendable, Equatable {
    enum Phase: String, Codable {
        case copying
        /// All bytes are there: what is left is to make the target the finished one, and to tidy up; of a live move,
        /// also to send the writer on to it.
        case committing
        /// The writer is at the target.
        case switched
    }

    static let currentVersion = 2

    var version = Record.currentVersion
    /// `VolumeDescription.identity` of the source: the target is of no other.
    let source: String
    /// As the operator wrote it, for messages.
    let sourceAddress: String
    let snapshots: MoveOptions.Snapshots
    /// `TargetVolume.wished`.
    let wished: String
    /// How whoever serves the source knows the process that is at the move: it may have died with the source open.
    var sourceClient: String?
    var phase = Phase.copying
    /// The transient snapshots that may stand on the source: each is noted here before it is made.
    var transients: [String] = []
    /// The snapshot whose state the target was in, all of it, when the step under way began.
    var arrived: UInt64?
    /// Whether a step was begun and not ended.
    var isUnderWay = false
    /// The snapshot that the step under way goes to; nothing for a head that can't be frozen.
    var goal: UInt64?
    /// Its name, under which the target keeps it.
    var goalName: String?
    /// Whether the step under way goes from a target that may hold parts of states after `arrived`.
    var isMixed = false
    /// The snapshots that the target kept.
    var kept: [Kept] = []
    /// Along which way the step under way goes: how far it has come says nothing of another one.
    var route: Report.RouteKind?
    /// Whether clients may write while it runs.
    var isLive = false
    /// By what the writer may be held still (`WriterHold.title`): noted before it is.
    var frozenBy: String?
    /// How far the step under way has come: everything before is on the target, and durable.
    var settledBytes: UInt64 = 0

    init(source: String, sourceAddress: String, snapshots: MoveOptions.Snapshots, wished: String = "") {
        self.source = source
        self.sourceAddress = sourceAddress
        self.snapshots = snapshots
        self.wished = wished
    }

    func text() -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // A value of numbers and strings always encodes.
        return String(decoding: try! encoder.encode(self), as: UTF8.self)
    }

    enum Unreadable: Error { case malformed, newer(Int) }

    init(text: String) throws(Unreadable) {
        struct Versioned: Decodable { let version: Int }
        let decoder = JSONDecoder()
        guard let versioned = try? decoder.decode(Versioned.self, from: Data(text.utf8)) else { throw .malformed }
        guard versioned.version == Self.currentVersion else { throw .newer(versioned.version) }
        guard let record = try? decoder.decode(Record.self, from: Data(text.utf8)) else { throw .malformed }
        self = record
    }
}
