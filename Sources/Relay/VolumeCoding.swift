internal import NIOCore
internal import Volumes

// What a volume is told of, field by field (Docs/Protocol.md, "Values").
extension ByteBuffer {
    mutating func readSnapshot() -> Snapshot? {
        guard let id = readInteger(as: UInt64.self), let size = readCount(), let isProtected = readFlag(),
            let name = readText()
        else { return nil }
        return Snapshot(id: id, name: name, size: size, isProtected: isProtected)
    }

    mutating func writeSnapshot(_ snapshot: Snapshot) {
        writeInteger(snapshot.id)
        writeCount(snapshot.size)
        writeFlag(snapshot.isProtected)
        writeText(snapshot.name)
    }

    mutating func readRevision() -> Revision? {
        guard let snapshot = readOptional({ $0.readSnapshot() }) else { return nil }
        return snapshot.map { .snapshot($0) } ?? .head
    }

    mutating func writeRevision(_ revision: Revision) { writeOptional(revision.snapshot) { $0.writeSnapshot($1) } }

    mutating func readLayout() -> Layout? {
        guard let objectSize = readCount(), let stripeUnit = readCount(),
            let stripeCount = readInteger(as: UInt64.self),
            let dataPool = readOptional({ $0.readText() }), let features = readList({ $0.readText() }),
            // What is divided by, and what an image may have (rbd_types.h).
            objectSize.bytes.nonzeroBitCount == 1, objectSize <= .mebibytes(64), stripeUnit > .zero,
            stripeUnit <= objectSize, stripeCount > 0, stripeCount <= UInt64(UInt32.max)
        else { return nil }
        return Layout(
            objectSize: objectSize, stripeUnit: stripeUnit, stripeCount: stripeCount, dataPool: dataPool,
            features: Set(features))
    }

    mutating func writeLayout(_ layout: Layout) {
        writeCount(layout.objectSize)
        writeCount(layout.stripeUnit)
        writeInteger(layout.stripeCount)
        writeOptional(layout.dataPool) { $0.writeText($1) }
        writeList(layout.features.sorted()) { $0.writeText($1) }
    }

    mutating func readMetadata() -> Metadata? {
        let pairs = readList { bytes -> ([UInt8], [UInt8])? in
            guard let key = bytes.readCountedBytes(), let value = bytes.readCountedBytes() else { return nil }
            return (key, value)
        }
        guard let pairs else { return nil }
        var metadata = Metadata()
        for (key, value) in pairs { metadata[bytes: key] = value }
        return metadata
    }

    mutating func writeMetadata(_ metadata: Metadata) {
        let pairs = metadata.pairs.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        writeList(pairs) { bytes, pair in
            bytes.writeCountedBytes(pair.key)
            bytes.writeCountedBytes(pair.value)
        }
    }

    mutating func readDescription() -> VolumeDescription? {
        guard let identity = readText(), let size = readCount(), let mostBytes = readCount(),
            let snapshots = readList({ $0.readSnapshot() }), let layout = readOptional({ $0.readLayout() }),
            let metadata = readMetadata(), let movedTo = readOptional({ $0.readText() }),
            let notCarried = readList({ $0.readText() }), let changed = readList({ $0.readText() })
        else { return nil }
        var description = VolumeDescription(
            identity: identity, size: size, snapshots: snapshots, layout: layout, metadata: metadata,
            mostBytes: mostBytes, notCarried: notCarried, changed: changed)
        description.movedTo = movedTo
        return description
    }

    mutating func writeDescription(_ description: VolumeDescription) {
        writeText(description.identity)
        writeCount(description.size)
        writeCount(description.mostBytes)
        writeList(description.snapshots) { $0.writeSnapshot($1) }
        writeOptional(description.layout) { $0.writeLayout($1) }
        writeMetadata(description.metadata)
        writeOptional(description.movedTo) { $0.writeText($1) }
        writeList(description.notCarried) { $0.writeText($1) }
        writeList(description.changed) { $0.writeText($1) }
    }

    mutating func readWishes() -> LayoutWishes? {
        guard let objectSize = readOptional({ $0.readCount() }), let stripeUnit = readOptional({ $0.readCount() }),
            let stripeCount = readOptional({ $0.readInteger(as: UInt64.self) }),
            let dataPool = readOptional({ $0.readText() }),
            let features = readOptional({ $0.readList { $0.readText() } }), objectSize != .zero, stripeUnit != .zero,
            stripeCount != 0
        else { return nil }
        return LayoutWishes(
            objectSize: objectSize, stripeUnit: stripeUnit, stripeCount: stripeCount, dataPool: dataPool,
            features: features.map { Set($0) })
    }

    mutating func writeWishes(_ wishes: LayoutWishes) {
        writeOptional(wishes.objectSize) { $0.writeCount($1) }
        writeOptional(wishes.stripeUnit) { $0.writeCount($1) }
        writeOptional(wishes.stripeCount) { $0.writeInteger($1) }
        writeOptional(wishes.dataPool) { $0.writeText($1) }
        writeOptional(wishes.features) { bytes, features in
            bytes.writeList(features.sorted()) { $0.writeText($1) }
        }
    }

    mutating func readObstacle() -> Obstacle? {
        guard let code = readInteger(as: UInt16.self), let kind = VolumeError.Kind(status: code),
            let fact = readText(), let remedy = readText()
        else { return nil }
        return Obstacle(kind, fact, remedy: remedy)
    }

    mutating func writeObstacle(_ obstacle: Obstacle) {
        writeInteger(obstacle.kind.status)
        writeText(obstacle.fact.asMessage)
        writeText(obstacle.remedy.asMessage)
    }

    mutating func readState() -> TargetState? {
        guard let number = readInteger(as: UInt8.self) else { return nil }
        switch number {
        case 0: return .absent
        case 1: return readText().map { .unfinished(record: $0) }
        case 2: return readText().map { .committed(record: $0) }
        case 3: return .foreign
        default: return nil
        }
    }

    mutating func writeState(_ state: TargetState) {
        switch state {
        case .absent: writeInteger(UInt8(0))
        case .unfinished(let record):
            writeInteger(UInt8(1))
            writeText(record)
        case .committed(let record):
            writeInteger(UInt8(2))
            writeText(record)
        case .foreign: writeInteger(UInt8(3))
        }
    }

    mutating func readFailure(_ kind: VolumeError.Kind) -> VolumeError? {
        guard let operation = readText(), let object = readText(), let reason = readText(),
            let advice = readOptional({ $0.readText() }), readableBytes == 0
        else { return nil }
        return VolumeError(kind, operation, on: object, reason: reason, advice: advice)
    }

    mutating func writeFailure(_ error: VolumeError) {
        writeText(error.operation.asMessage)
        writeText(error.object.asMessage)
        writeText(error.reason.asMessage)
        writeOptional(error.advice) { $0.writeText($1.asMessage) }
    }
}

extension VolumeError.Kind {
    /// On the wire; zero is success.
    var status: UInt16 {
        switch self {
        case .missing: 1
        case .exists: 2
        case .unreachable: 3
        case .forbidden: 4
        case .full: 5
        case .busy: 6
        case .unsupported: 7
        case .damaged: 8
        case .failed: 9
        }
    }

    init?(status: UInt16) {
        let all: [Self] = [
            .missing, .exists, .unreachable, .forbidden, .full, .busy, .unsupported, .damaged, .failed,
        ]
        guard status >= 1, status <= all.count else { return nil }
        self = all[Int(status) - 1]
    }
}

extension String {
    /// The same without NUL, and cut where it gets longer than a message may be, between two characters.
    fileprivate var asMessage: String {
        var text = ""
        var length = 0
        for character in self where character != "\0" {
            length += character.utf8.count
            if length > RelayBounds.message { break }
            text.append(character)
        }
        return text
    }
}
