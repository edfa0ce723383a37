internal import Checksums
internal import Foundation
internal import Volumes

/// What stands before the bits in a file of marks: of what they are, and between which states.
struct MarksHeader: Codable, Equatable {
    /// A state that is held: what was changed since is known.
    struct Held: Codable, Equatable {
        /// Later ones are greater.
        let number: UInt64
        let name: String
        /// Which of the sets of bits tells what was changed from this state to the next that is held, or until now.
        let slot: Int
    }

    static let currentVersion = 1
    /// How many states can be held at once: the one that the target is in, the one that it goes to, and one more for as
    /// long as that takes.
    static let slots = 3

    var version = currentVersion
    /// `TrackableVolume.lastingIdentity`
    let identity: String
    let sizeBytes: UInt64
    let granularityBytes: UInt64
    /// The kernel's start (`presentBoot`): what was in its page cache alone is gone with the next one.
    let boot: String
    /// Goes up with each header that is written: of two that are whole, the greater one counts.
    var generation: UInt64 = 0
    /// Of the newest state that ever was held.
    var lastNumber: UInt64 = 0
    /// Oldest first.
    var held: [Held] = []

    init(of circumstances: Circumstances) {
        identity = circumstances.identity
        sizeBytes = circumstances.size.bytes
        granularityBytes = circumstances.granularity.size.bytes
        boot = circumstances.boot ?? ""
    }

    /// The slot that changes are marked in now.
    var presentSlot: Int? { held.last?.slot }
    var freeSlot: Int? { (0..<Self.slots).first { slot in !held.contains { $0.slot == slot } } }

    private var isSound: Bool {
        Set(held.map(\.slot)).isSubset(of: Set(0..<Self.slots)) && Set(held.map(\.slot)).count == held.count
            && zip(held, held.dropFirst()).allSatisfy { $0.number < $1.number }
            && held.allSatisfy { $0.number <= lastNumber }
    }

    // MARK: As it stands in the file

    /// What one copy has room for: a path may take 4096 bytes, and six times as many as JSON.
    static let room = 32 << 10
    private static let magic = Array("godwit marks\0\0\0\0".utf8)
    private static let prefix = magic.count + 16

    /// "godwit marks", then the length and the xxhash64 of what follows (both little-endian), then JSON.
    func bytes() throws(VolumeError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let text = try? encoder.encode(self), text.count <= Self.room - Self.prefix else {
            throw VolumeError(.unsupported, "mark", on: identity, reason: "its name is too long")
        }
        let body = [UInt8](text)
        return Self.magic + Self.littleEndian(UInt64(body.count)) + Self.littleEndian(Self.hash(body)) + body
    }

    /// Nothing if they aren't a whole header of this version.
    init?(_ bytes: [UInt8]) {
        guard bytes.count > Self.prefix, bytes.starts(with: Self.magic) else { return nil }
        let start = Self.magic.count
        let (count, hash) = (Self.number(bytes[start..<start + 8]), Self.number(bytes[start + 8..<start + 16]))
        guard count <= UInt64(bytes.count - Self.prefix) else { return nil }
        let body = Array(bytes[Self.prefix..<Self.prefix + Int(count)])
        guard Self.hash(body) == hash, let header = try? JSONDecoder().decode(Self.self, from: Data(body)),
            header.version == Self.currentVersion, header.isSound
        else { return nil }
        self = header
    }

    private static func hash(_ bytes: [UInt8]) -> UInt64 { unsafe bytes.withUnsafeBytes { unsafe xxhash64($0) } }
    private static func littleEndian(_ number: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
    }
    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}

/// What marks have to be of to be gone by.
struct Circumstances: Sendable, Equatable {
    var identity: String
    var size: ByteCount
    var granularity: Granularity
    /// Nothing where it can't be told.
    var boot: String?
    /// When the volume was last changed; nothing where it can't be told.
    var changed: Duration?

    /// How long after its last sign of life a process that was killed may have been at a change that it had begun.
    static let grace = Duration.seconds(1)

    /// Why marks that were found aren't gone by; nothing if they are.
    ///
    /// - Parameters:
    ///   - last: When the last change began or ended that went through whoever marked them.
    ///   - isInFlight: Whether changes were begun then, and not ended.
    func distrust(_ header: MarksHeader, last: Duration, isInFlight: Bool) -> String? {
        guard header.identity == identity else { return "they are another volume's" }
        guard header.sizeBytes == size.bytes else { return "the volume has another size now" }
        guard header.granularityBytes == granularity.size.bytes else { return "they are of another granularity" }
        guard let boot, header.boot == boot else { return "the host was started anew since" }
        guard let changed else { return "nothing tells whether the volume was changed since" }
        guard changed <= last + (isInFlight ? Self.grace : .zero) else {
            return "the volume was changed since by somebody else"
        }
        return nil
    }
}
