import Conformance
import NIOCore
import Volumes

@testable import Relay

/// One of each request and reply, and what differs most between them, from a seed.
struct Samples {
    var random: SplitMix64

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    private mutating func name() -> String {
        ["v", "ü", "two words", "", String(repeating: "x", count: 300)].randomElement(using: &random)!
    }

    private mutating func size() -> ByteCount {
        ByteCount(random.next() >> [1, 20, 40].randomElement(using: &random)!)
    }

    mutating func snapshot() -> Snapshot {
        Snapshot(id: random.next(), name: name(), size: size(), isProtected: Bool.random(using: &random))
    }

    mutating func extent(atMost most: UInt64) -> Extent {
        Extent(
            offset: ByteOffset(random.next() >> 2), length: ByteCount(UInt64.random(in: 1...most, using: &random)))
    }

    mutating func description() -> VolumeDescription {
        var description = VolumeDescription(
            identity: name(), size: size(),
            snapshots: (0..<Int.random(in: 0...3, using: &random)).map { _ in snapshot() },
            mostBytes: size(), notCarried: [name()], changed: [])
        if Bool.random(using: &random) {
            description.layout = Layout(
                objectSize: .mebibytes(4), stripeUnit: .kibibytes(64), stripeCount: 3,
                dataPool: Bool.random(using: &random) ? "ec" : nil, features: ["layering", "striping"])
        }
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            description.metadata[bytes: random.bytes(5)] = random.bytes(9)
        }
        if Bool.random(using: &random) { description.movedTo = name() }
        return description
    }

    mutating func payload() -> Payload {
        let count = [1, 511, 4096, 70_000].randomElement(using: &random)!
        let bytes = Bool.random(using: &random) ? random.bytes(count) : [UInt8](repeating: 7, count: count)
        return unsafe bytes.withUnsafeBytes { unsafe Payload($0, acceleration: 1) }
    }

    mutating func change() -> Change {
        Bool.random(using: &random) ? .zero(extent(atMost: 1 << 40)) : .write(ByteOffset(random.next() >> 2), payload())
    }

    mutating func request(_ kind: RelayKind) -> RelayRequest {
        let reader = UInt32.random(in: 0...9, using: &random)
        switch kind {
        case .state: return .state
        case .describe: return .describe
        case .obstacles: return .obstacles(description(), room: size())
        case .make: return .make(description(), record: name())
        case .own: return .own
        case .save: return .save(record: name())
        case .kept: return .kept
        case .resize: return .resize(size())
        case .keep: return .keep(snapshot())
        case .alter: return .alter(snapshot(), to: snapshot())
        case .drop: return .drop(snapshot())
        case .change: return .change((0..<Int.random(in: 1...5, using: &random)).map { _ in change() })
        case .flush: return .flush
        case .furnish: return .furnish(description())
        case .commit: return .commit(description())
        case .uncommit: return .uncommit
        case .forget: return .forget
        case .discard: return .discard
        case .letGo: return .letGo
        case .open: return .open(Bool.random(using: &random) ? .head : .snapshot(snapshot()))
        case .extents:
            return .extents(
                reader: reader, extent(atMost: 1 << 30), since: Bool.random(using: &random) ? snapshot() : nil)
        case .read: return .read(reader: reader, extent(atMost: 4 << 20))
        case .digest: return .digest(reader: reader, extent(atMost: 16 << 20), chunk: .kibibytes(64))
        case .close: return .close(reader: reader)
        }
    }

    mutating func reply(to kind: RelayKind) -> RelayReply {
        if Int.random(in: 0..<4, using: &random) == 0 {
            let advice = Bool.random(using: &random) ? name() : nil
            return .failed(VolumeError(.busy, "own", on: name(), reason: "it is taken", advice: advice))
        }
        switch kind {
        case .make, .save, .resize, .alter, .drop, .change, .flush, .furnish, .commit, .uncommit, .forget, .discard,
            .letGo, .close:
            return .done
        case .state:
            return .state(
                [.absent, .unfinished(record: name()), .committed(record: name()), .foreign]
                    .randomElement(using: &random)!)
        case .describe: return .description(description())
        case .obstacles: return .obstacles([Obstacle(.full, name(), remedy: name())])
        case .own: return .owned(Bool.random(using: &random))
        case .kept: return .snapshots([snapshot(), snapshot()])
        case .keep: return .snapshot(snapshot())
        case .open:
            return .opened(
                RelayReply.OpenedReader(number: 3, size: size(), means: .fileHoles, extentUnit: .kibibytes(64)))
        case .extents:
            return .extents(
                ExtentSet([
                    Extent(offset: .zero, length: ByteCount(5)), Extent(offset: ByteOffset(9), length: ByteCount(1)),
                ]))
        case .read: return .bytes(payload())
        case .digest: return .digests([random.next(), random.next()])
        }
    }
}

extension [ByteBuffer] {
    var joined: ByteBuffer {
        var whole = ByteBuffer()
        for piece in self { whole.writeImmutableBuffer(piece) }
        return whole
    }
}
