internal import CCeph
internal import Volumes

/// An image of format 2 as its header object (`rbd_header.ID`) tells of it: all that is needed to find its objects,
/// in one small operation, and another for its snapshots, where librbd takes a dozen to open it.
struct ImageHeader: Sendable, Equatable {
    let id: String
    /// Of the head; bytes.
    let size: ByteCount
    let objectSize: ByteCount
    let objectPrefix: String
    let features: Features
    /// `RBD_FLAG_…` (rbd/features.h) of the head.
    let flags: UInt64
    /// Nothing if the data objects are in the image's own pool.
    let dataPool: Int64?
    let stripeUnit: ByteCount
    let stripeCount: UInt64
    /// Also where the head shows nothing of it any more.
    let parent: Parent?
    /// Oldest first.
    let snapshots: [HeaderSnapshot]

    struct Parent: Sendable, Equatable {
        let pool: Int64
        let namespace: String
        let image: String
        let snapshot: UInt64
        /// How much of it the head shows; bytes.
        var overlap: ByteCount
    }

    /// Whether the object map of a state may be believed.
    func hasValidObjectMap(_ flags: UInt64) -> Bool {
        features.contains(.objectMap) && flags & UInt64(RBD_FLAG_OBJECT_MAP_INVALID) == 0
    }
}

/// A snapshot as the header lists it.
struct HeaderSnapshot: Sendable, Equatable {
    enum Kind: Sendable, Equatable {
        case user, group, mirror
        /// On its way out, or kept for a clone; with the name that it had.
        case trash(name: String)
        case unknown
    }
    let id: UInt64
    let name: String
    let kind: Kind
    let size: ByteCount
    let flags: UInt64
    /// How much of a parent shows; bytes.
    let overlap: ByteCount
    var isProtected = false
}

extension ImageHeader {
    /// Beyond it numbers of objects could overflow.
    fileprivate static let largest = ByteCount(1 << 62)
    /// As many snapshots are asked about in one operation.
    private static let snapshotsAtOnce = 32
    /// A snapshot that goes between two questions makes the first anew.
    private static let mostAttempts = 16

    /// - Returns: Nothing if there is no such header.
    static func load(id: String, in pool: Pool) async throws(VolumeError) -> ImageHeader? {
        for _ in 0..<mostAttempts {
            guard let head = try await Head.load(id: id, in: pool) else { return nil }
            var snapshots: [HeaderSnapshot] = []
            for start in stride(from: 0, to: head.snapshots.count, by: snapshotsAtOnce) {
                let batch = Array(head.snapshots[start..<min(start + snapshotsAtOnce, head.snapshots.count)])
                snapshots += try await HeaderSnapshot.load(batch, ofImage: id, in: pool)
            }
            guard snapshots.count == head.snapshots.count else { continue }
            return ImageHeader(id: id, head, snapshots: snapshots.sorted { $0.id < $1.id })
        }
        throw VolumeError(.busy, "exec", on: "rbd_header.\(id)", reason: "its snapshots go faster than they are listed")
    }

    private init(id: String, _ head: Head, snapshots: [HeaderSnapshot]) {
        self.id = id
        self.snapshots = snapshots
        size = head.size
        objectSize = head.objectSize
        objectPrefix = head.objectPrefix
        features = head.features
        flags = head.flags
        dataPool = head.dataPool
        stripeUnit = head.stripeUnit
        stripeCount = head.stripeCount
        parent = head.parent
    }
}

/// What the header says of the image itself.
private struct Head {
    var size = ByteCount.zero
    var objectSize = ByteCount.zero
    var objectPrefix = ""
    var features: Features = []
    var flags: UInt64 = 0
    var snapshots: [UInt64] = []
    var dataPool: Int64?
    var stripeUnit = ByteCount.zero
    var stripeCount: UInt64 = 1
    var parent: ImageHeader.Parent?

    static func load(id: String, in pool: Pool) async throws(VolumeError) -> Head? {
        let object = "rbd_header." + id
        let noSnapshot = CephEncoder.integer(CCEPH_HEAD)
        let calls = [
            ClassCall("get_size", noSnapshot), ClassCall("get_object_prefix"),
            ClassCall("get_features", noSnapshot + [1]), ClassCall("get_flags", noSnapshot),
            ClassCall("get_snapcontext"), ClassCall("get_data_pool"), ClassCall("get_stripe_unit_count"),
            ClassCall("parent_get"), ClassCall("parent_overlap_get", noSnapshot),
        ]
        guard let answers = try await pool.call(calls, on: object) else { return nil }
        func answer<Value>(
            _ number: Int, _ body: (inout CephDecoder) throws(CephDecoder.Malformed) -> Value
        ) throws(VolumeError) -> Value {
            try answers[number].decoded(of: object, in: pool, body)
        }
        var head = Head()
        (head.objectSize, head.size) = try answer(0) { decoder throws(CephDecoder.Malformed) in
            let order = try decoder.integer(UInt8.self)
            // What librbd makes.
            guard (12...25).contains(order) else { throw CephDecoder.Malformed() }
            return (ByteCount(1 << UInt64(order)), ByteCount(try decoder.integer(UInt64.self)))
        }
        head.objectPrefix = try answer(1) { decoder throws(CephDecoder.Malformed) in try decoder.string() }
        let (features, incompatible) = try answer(2) { decoder throws(CephDecoder.Malformed) in
            (try decoder.integer(UInt64.self), try decoder.integer(UInt64.self))
        }
        head.features = Features(bits: features)
        guard Features(names: Features(bits: incompatible).names).rawValue == incompatible else {
            throw VolumeError(
                .unsupported, "exec", on: "object \(object) of pool \(pool.path)",
                reason: "the image has a feature that this version doesn't know, and that it must know to read it")
        }
        head.flags = try answer(3) { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt64.self) }
        head.snapshots = try answer(4) { decoder throws(CephDecoder.Malformed) in
            _ = try decoder.integer(UInt64.self)
            return try decoder.list { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt64.self) }
        }
        let dataPool = try answer(5) { decoder throws(CephDecoder.Malformed) in try decoder.integer(Int64.self) }
        head.dataPool = dataPool < 0 ? nil : dataPool
        head.stripeUnit = head.objectSize
        if head.features.contains(.striping) {
            (head.stripeUnit, head.stripeCount) = try answer(6) { decoder throws(CephDecoder.Malformed) in
                (ByteCount(try decoder.integer(UInt64.self)), try decoder.integer(UInt64.self))
            }
        }
        if head.features.contains(.layering) {
            let overlap = try answer(8) { decoder throws(CephDecoder.Malformed) in try decoder.overlap() }
            head.parent = try answer(7) { decoder throws(CephDecoder.Malformed) in
                try ImageHeader.Parent(decoding: &decoder, overlap: overlap)
            }
        }
        guard head.isPossible else {
            throw VolumeError(
                .damaged, "exec", on: "object \(object) of pool \(pool.path)", reason: "a layout that can't be")
        }
        return head
    }

    /// Whether the layout can be reckoned with.
    private var isPossible: Bool {
        guard stripeCount > 0, stripeUnit > .zero, objectSize.bytes.isMultiple(of: stripeUnit.bytes) else {
            return false
        }
        let set = objectSize.bytes.multipliedReportingOverflow(by: stripeCount)
        return !set.overflow && set.partialValue < 1 << 48 && size <= ImageHeader.largest
    }
}

extension ImageHeader.Parent {
    /// cls::rbd::ParentImageSpec.
    fileprivate init?(decoding decoder: inout CephDecoder, overlap: ByteCount) throws(CephDecoder.Malformed) {
        let (pool, namespace, image, snapshot) = try decoder.structure { decoder throws(CephDecoder.Malformed) in
            (
                try decoder.integer(Int64.self), try decoder.string(), try decoder.string(),
                try decoder.integer(UInt64.self)
            )
        }
        guard pool >= 0 else { return nil }
        self.init(pool: pool, namespace: namespace, image: image, snapshot: snapshot, overlap: overlap)
    }
}

extension HeaderSnapshot {
    /// - Returns: Those that are there still.
    fileprivate static func load(
        _ ids: [UInt64], ofImage image: String, in pool: Pool
    ) async throws(VolumeError) -> [HeaderSnapshot] {
        let object = "rbd_header." + image
        let methods = ["snapshot_get", "get_flags", "parent_overlap_get", "get_protection_status"]
        let calls = ids.flatMap { id in methods.map { ClassCall($0, CephEncoder.integer(id)) } }
        guard let answers = try await pool.call(calls, on: object) else { return [] }
        var found: [HeaderSnapshot] = []
        for (index, id) in ids.enumerated() {
            let own = Array(answers[(methods.count * index)..<(methods.count * (index + 1))])
            if own.contains(where: { $0.code == -2 }) { continue }
            let (kind, name, size) = try own[0].decoded(of: object, in: pool) { decoder throws(CephDecoder.Malformed) in
                // cls::rbd::SnapshotInfo.
                try decoder.structure { decoder throws(CephDecoder.Malformed) in
                    _ = try decoder.integer(UInt64.self)
                    let kind = try decoder.structure(Kind.init(decoding:))
                    return (kind, try decoder.string(), ByteCount(try decoder.integer(UInt64.self)))
                }
            }
            let flags = try own[1].decoded(of: object, in: pool) { decoder throws(CephDecoder.Malformed) in
                try decoder.integer(UInt64.self)
            }
            guard size <= ImageHeader.largest else {
                throw VolumeError(
                    .damaged, "exec", on: "object \(object) of pool \(pool.path)", reason: "a snapshot's size can't be")
            }
            let overlap = try own[2].decoded(of: object, in: pool) { decoder throws(CephDecoder.Malformed) in
                try decoder.overlap()
            }
            // RBD_PROTECTION_STATUS_PROTECTED (cls/rbd/cls_rbd_types.h).
            let isProtected = try own[3].decoded(of: object, in: pool) { decoder throws(CephDecoder.Malformed) in
                try decoder.integer(UInt8.self) == 2
            }
            found.append(
                HeaderSnapshot(
                    id: id, name: name, kind: kind, size: size, flags: flags, overlap: overlap,
                    isProtected: isProtected))
        }
        return found
    }
}

extension HeaderSnapshot.Kind {
    /// cls::rbd::SnapshotNamespace.
    fileprivate init(decoding decoder: inout CephDecoder) throws(CephDecoder.Malformed) {
        self =
            switch try decoder.integer(UInt32.self) {
            case 0: .user
            case 1: .group
            case 2: .trash(name: try decoder.string())
            case 3: .mirror
            default: .unknown
            }
    }
}

extension CephDecoder {
    /// How much of a parent shows: nothing, or bytes.
    fileprivate mutating func overlap() throws(Malformed) -> ByteCount {
        ByteCount(try optional { decoder throws(Malformed) in try decoder.integer(UInt64.self) } ?? 0)
    }
}
