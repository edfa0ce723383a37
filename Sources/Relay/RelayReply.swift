internal import NIOCore
package import Volumes

/// What came of a request.
package enum RelayReply: Sendable, Equatable {
    case done
    case failed(VolumeError)
    case state(TargetState)
    case description(VolumeDescription)
    case obstacles([Obstacle])
    /// Whether an earlier owner was fenced.
    case owned(Bool)
    case snapshots([Snapshot])
    case snapshot(Snapshot)
    case opened(OpenedReader)
    case extents(ExtentSet)
    case bytes(Payload)
    case digests([UInt64])

    /// Bytes before those of a read: length, encoding, checksum.
    static let payloadHeader = 12

    /// A state that is open at the far side.
    package struct OpenedReader: Sendable, Equatable {
        package var number: UInt32
        package var size: ByteCount
        package var means: ExtentMeans
        package var extentUnit: ByteCount

        package init(number: UInt32, size: ByteCount, means: ExtentMeans, extentUnit: ByteCount) {
            (self.number, self.size, self.means, self.extentUnit) = (number, size, means, extentUnit)
        }
    }

    /// Zero, or what kind of failure it was.
    var status: UInt16 { if case .failed(let error) = self { error.kind.status } else { 0 } }

    /// The first piece is short.
    var body: [ByteBuffer] {
        var bytes = ByteBuffer()
        switch self {
        case .done: return []
        case .failed(let error): bytes.writeFailure(error)
        case .state(let state): bytes.writeState(state)
        case .description(let description): bytes.writeDescription(description)
        case .obstacles(let list): bytes.writeList(list) { $0.writeObstacle($1) }
        case .owned(let hasFenced): bytes.writeFlag(hasFenced)
        case .snapshots(let list): bytes.writeList(list) { $0.writeSnapshot($1) }
        case .snapshot(let snapshot): bytes.writeSnapshot(snapshot)
        case .opened(let reader):
            bytes.writeInteger(reader.number)
            bytes.writeCount(reader.size)
            bytes.writeCount(reader.extentUnit)
            bytes.writeText(reader.means.rawValue)
        case .extents(let set): bytes.writeList(set.extents) { $0.writeExtent($1) }
        case .bytes(let payload):
            bytes.writeMultipleIntegers(UInt32(payload.length), payload.encoding.rawValue, payload.checksum)
            return [bytes, payload.stored]
        case .digests(let list): bytes.writeList(list) { $0.writeInteger($1) }
        }
        return [bytes]
    }

    /// Nothing if the body isn't exactly such a reply.
    init?(to kind: RelayKind, from body: inout ByteBuffer) {
        guard let reply = Self.read(kind, &body), body.readableBytes == 0 else { return nil }
        self = reply
    }

    private static func read(_ kind: RelayKind, _ body: inout ByteBuffer) -> RelayReply? {
        switch kind {
        case .make, .save, .resize, .alter, .drop, .change, .flush, .furnish, .commit, .uncommit, .forget, .discard,
            .letGo, .close:
            .done
        case .state: body.readState().map { .state($0) }
        case .describe: body.readDescription().map { .description($0) }
        case .obstacles: body.readList { $0.readObstacle() }.map { .obstacles($0) }
        case .own: body.readFlag().map { .owned($0) }
        case .kept: body.readList { $0.readSnapshot() }.map { .snapshots($0) }
        case .keep: body.readSnapshot().map { .snapshot($0) }
        case .open: readOpened(&body)
        case .extents: readExtents(&body)
        case .read: readBytes(&body)
        case .digest: body.readList { $0.readInteger(as: UInt64.self) }.map { .digests($0) }
        }
    }

    private static func readOpened(_ body: inout ByteBuffer) -> RelayReply? {
        guard let number = body.readInteger(as: UInt32.self), let size = body.readCount(), let unit = body.readCount(),
            unit > .zero, let means = body.readText().flatMap(ExtentMeans.init(rawValue:))
        else { return nil }
        return .opened(OpenedReader(number: number, size: size, means: means, extentUnit: unit))
    }

    /// Sorted, as `ExtentSet` has them: others aren't extents that somebody found.
    private static func readExtents(_ body: inout ByteBuffer) -> RelayReply? {
        guard let list = body.readList({ $0.readExtent() }) else { return nil }
        var set = ExtentSet()
        for extent in list {
            guard !extent.isEmpty, set.isEmpty || extent.offset > set.end else { return nil }
            set.append(extent)
        }
        return .extents(set)
    }

    private static func readBytes(_ body: inout ByteBuffer) -> RelayReply? {
        guard let (length, code, checksum) = body.readMultipleIntegers(as: (UInt32, UInt32, UInt32).self),
            let encoding = Payload.Encoding(rawValue: code), let stored = body.readSlice(length: body.readableBytes)
        else { return nil }
        let payload = Payload(encoding: encoding, length: Int(length), checksum: checksum, stored: stored)
        return payload.hasShape ? .bytes(payload) : nil
    }
}
