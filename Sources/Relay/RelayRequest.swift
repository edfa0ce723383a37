internal import NIOCore
package import Volumes

/// What the near side asks for: the calls of `TargetVolume` and of its readers.
package enum RelayRequest: Sendable, Equatable {
    case state
    case describe
    case obstacles(VolumeDescription, room: ByteCount)
    case make(VolumeDescription, record: String)
    case own
    case save(record: String)
    case kept
    case resize(ByteCount)
    case keep(Snapshot)
    case alter(Snapshot, to: Snapshot)
    case drop(Snapshot)
    /// Carried out in any order; one to `RelayBounds.changes`, of which none touches another.
    case change([Change])
    case flush
    case furnish(VolumeDescription)
    case commit(VolumeDescription)
    case uncommit
    case forget
    case discard
    /// `TargetVolume.close`: the session goes on.
    case letGo
    case open(Revision)
    case extents(reader: UInt32, Extent, since: Snapshot?)
    case read(reader: UInt32, Extent)
    /// One xxhash64 for each chunk of the extent, the last perhaps in part.
    case digest(reader: UInt32, Extent, chunk: ByteCount)
    case close(reader: UInt32)

    package var kind: RelayKind {
        switch self {
        case .state: .state
        case .describe: .describe
        case .obstacles: .obstacles
        case .make: .make
        case .own: .own
        case .save: .save
        case .kept: .kept
        case .resize: .resize
        case .keep: .keep
        case .alter: .alter
        case .drop: .drop
        case .change: .change
        case .flush: .flush
        case .furnish: .furnish
        case .commit: .commit
        case .uncommit: .uncommit
        case .forget: .forget
        case .discard: .discard
        case .letGo: .letGo
        case .open: .open
        case .extents: .extents
        case .read: .read
        case .digest: .digest
        case .close: .close
        }
    }

    // MARK: On the wire

    /// The first piece is short.
    var body: [ByteBuffer] {
        var bytes = ByteBuffer()
        switch self {
        case .state, .describe, .own, .kept, .flush, .uncommit, .forget, .discard, .letGo: return []
        case .change(let changes): return Changes.write(changes)
        case .obstacles(let source, let room):
            bytes.writeCount(room)
            bytes.writeDescription(source)
        case .make(let source, let record):
            bytes.writeText(record)
            bytes.writeDescription(source)
        case .save(let record): bytes.writeText(record)
        case .resize(let size): bytes.writeCount(size)
        case .keep(let snapshot), .drop(let snapshot): bytes.writeSnapshot(snapshot)
        case .alter(let kept, let wanted):
            bytes.writeSnapshot(kept)
            bytes.writeSnapshot(wanted)
        case .furnish(let source), .commit(let source): bytes.writeDescription(source)
        case .open(let revision): bytes.writeRevision(revision)
        case .extents(let reader, let extent, let base):
            bytes.writeInteger(reader)
            bytes.writeExtent(extent)
            bytes.writeOptional(base) { $0.writeSnapshot($1) }
        case .read(let reader, let extent):
            bytes.writeInteger(reader)
            bytes.writeExtent(extent)
        case .digest(let reader, let extent, let chunk):
            bytes.writeInteger(reader)
            bytes.writeExtent(extent)
            bytes.writeCount(chunk)
        case .close(let reader): bytes.writeInteger(reader)
        }
        return [bytes]
    }

    /// Nothing if the body isn't exactly such a request, within its bounds.
    init?(_ kind: RelayKind, from body: inout ByteBuffer) {
        guard let request = Self.read(kind, &body), body.readableBytes == 0 else { return nil }
        self = request
    }

    private static func read(_ kind: RelayKind, _ body: inout ByteBuffer) -> RelayRequest? {
        switch kind {
        case .state: .state
        case .describe: .describe
        case .own: .own
        case .kept: .kept
        case .flush: .flush
        case .uncommit: .uncommit
        case .forget: .forget
        case .discard: .discard
        case .letGo: .letGo
        case .obstacles:
            if let room = body.readCount(), let source = body.readDescription() {
                .obstacles(source, room: room)
            } else {
                nil
            }
        case .make:
            if let record = body.readText(), let source = body.readDescription() {
                .make(source, record: record)
            } else {
                nil
            }
        case .save: body.readText().map { .save(record: $0) }
        case .resize: body.readCount().map { .resize($0) }
        case .keep: body.readSnapshot().map { .keep($0) }
        case .drop: body.readSnapshot().map { .drop($0) }
        case .alter:
            if let kept = body.readSnapshot(), let wanted = body.readSnapshot() {
                .alter(kept, to: wanted)
            } else {
                nil
            }
        case .change: Changes.read(&body).map { .change($0) }
        case .furnish: body.readDescription().map { .furnish($0) }
        case .commit: body.readDescription().map { .commit($0) }
        case .open: body.readRevision().map { .open($0) }
        case .extents: readExtents(&body)
        case .read: readRead(&body)
        case .digest: readDigest(&body)
        case .close: body.readInteger(as: UInt32.self).map { .close(reader: $0) }
        }
    }

    private static func readExtents(_ body: inout ByteBuffer) -> RelayRequest? {
        guard let reader = body.readInteger(as: UInt32.self), let extent = body.readExtent(),
            extent.length <= RelayBounds.window, let base = body.readOptional({ $0.readSnapshot() })
        else { return nil }
        return .extents(reader: reader, extent, since: base)
    }

    private static func readRead(_ body: inout ByteBuffer) -> RelayRequest? {
        guard let reader = body.readInteger(as: UInt32.self), let extent = body.readExtent(), !extent.isEmpty,
            extent.length.bytes <= UInt64(RelayBounds.payload)
        else { return nil }
        return .read(reader: reader, extent)
    }

    private static func readDigest(_ body: inout ByteBuffer) -> RelayRequest? {
        guard let reader = body.readInteger(as: UInt32.self), let extent = body.readExtent(), !extent.isEmpty,
            extent.length <= RelayBounds.digested, let chunk = body.readCount(), chunk >= RelayBounds.digestChunk,
            chunk <= RelayBounds.digested
        else { return nil }
        return .digest(reader: reader, extent, chunk: chunk)
    }
}
