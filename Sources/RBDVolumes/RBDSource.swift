internal import CCeph
internal import DirtyMap
internal import Foundation
internal import Synchronization
package import Volumes

/// An RBD image as a volume to read, and to move away from.
package final class RBDSource: SourceVolume {
    package let address: String
    let target: RBDAddress
    let cluster: Cluster
    let pool: Pool
    let name: String
    /// The image, where it is kept open for writing.
    let kept = Mutex<Image?>(nil)
    /// There where it is kept open for those who use it, too.
    let served = Mutex<ChangeMap?>(nil)

    private init(_ target: RBDAddress, cluster: Cluster) throws(VolumeError) {
        address = target.text
        self.target = target
        self.cluster = cluster
        pool = try Pool(cluster, name: target.pool, namespace: target.namespace)
        name = target.image
    }

    /// Connects, but doesn't look whether the image is there.
    /// - Parameter caching: As configured where the image is served while it is moved: one client does both, so that who
    ///   evicts it ends both.
    package static func connect(
        to address: RBDAddress, caching: Cluster.Caching = .off
    ) async throws(VolumeError) -> RBDSource {
        try RBDSource(address, cluster: try await Cluster.connect(for: address, caching: caching))
    }

    /// Opens the image, or a snapshot of it, for reading.
    func image(at snapshot: Snapshot? = nil) async throws(VolumeError) -> Image {
        try await Image.open(name, in: pool, title: address, for: .reading, at: snapshot)
    }

    /// Opens the image for the time of `body`.
    func withImage<Value: Sendable>(
        for access: Image.Access = .reading, at snapshot: Snapshot? = nil,
        _ body: (Image) async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        if access == .writing, let image = kept.withLock({ $0 }) { return try await body(image) }
        return try await Image.with(name, in: pool, title: address, for: access, at: snapshot, body)
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        let image = try await image(at: revision.snapshot)
        do throws(VolumeError) {
            return try await ImageReader(image, at: revision.snapshot)
        } catch {
            await image.close()
            throw error
        }
    }

    package func describe() async throws(VolumeError) -> VolumeDescription {
        try await withImage { image throws(VolumeError) in try await image.describe() }
    }

    package func obstacles() async throws(VolumeError) -> [Obstacle] {
        try await withImage { image throws(VolumeError) in
            var found: [Obstacle] = []
            let watchers = try await image.watchers()
            // Who was evicted writes nothing; an OSD may list a dead client for as long as it runs.
            let evicted = watchers.isEmpty ? [] : await cluster.evicted()
            for watcher in watchers where !evicted.contains(watcher.address) {
                found.append(
                    Obstacle(
                        .busy, "client.\(watcher.client) at \(watcher.address) has \(address) open for writing",
                        remedy: "Stop that client (a VM, a mapped device, rbd-mirror), then give the command again."))
            }
            let features = try await image.features()
            if features.contains(.migrating) {
                found.append(
                    Obstacle(
                        .unsupported, "\(address) is being migrated by 'rbd migration'",
                        remedy: "End that first: 'rbd migration commit' or 'rbd migration abort'."))
            }
            if try await image.isMirroredCopy() {
                found.append(
                    Obstacle(
                        .unsupported, "\(address) is a non-primary mirror: rbd-mirror writes it",
                        remedy: "Move the primary image, or promote this one ('rbd mirror image promote')."))
            }
            if let refusal = await image.probeWriting() {
                found.append(
                    Obstacle(
                        .forbidden, "the caps of this user don't allow snapshots of \(address): \(refusal.reason)",
                        remedy: "Give it 'osd \"profile rbd pool=\(pool.name)\"' (Docs/Operations.md)."))
            }
            return found
        }
    }

    package var client: String? { cluster.clientAddresses }

    package func evict(_ client: String) async throws(VolumeError) {
        guard client != cluster.clientAddresses else { return }
        try await cluster.evict(client)
        do throws(VolumeError) {
            try await withImage { image throws(VolumeError) in try await image.breakLocks(of: client) }
        } catch  where error.kind == .missing {
            // Removed, and its locks with it.
        }
    }

    package func freeze(as snapshotName: String) async throws(VolumeError) -> Snapshot? {
        try await withImage(for: .writing) { image throws(VolumeError) in
            func find() async throws(VolumeError) -> Snapshot? {
                try await image.snapshots().first { $0.snapshot.isNamed(snapshotName) }?.snapshot
            }
            if let snapshot = try await find() { return snapshot }
            served.withLock { $0 }?.turnOver()
            let flags = UInt32(RBD_SNAP_CREATE_SKIP_QUIESCE)
            unsafe try await image.call("rbd_snap_create2") {
                unsafe rbd_snap_create2($0, snapshotName, flags, nil, nil)
            }
            guard let snapshot = try await find() else {
                throw VolumeError(.failed, "rbd_snap_create2", on: address, reason: "made a snapshot that isn't listed")
            }
            return snapshot
        }
    }

    package func standing() async throws(VolumeError) -> Standing {
        let listed: [Snapshot]
        let size: ByteCount
        if let header = try await header() {
            size = header.size
            listed = header.snapshots.filter { $0.kind == .user }.map { state in
                Snapshot(id: state.id, name: state.name, size: state.size, isProtected: state.isProtected)
            }
        } else {
            (size, listed) = try await withImage { image throws(VolumeError) in
                let user = try await image.snapshots().filter { $0.kind == RBD_SNAP_NAMESPACE_TYPE_USER }
                return (try await image.size(), user.map(\.snapshot))
            }
        }
        return Standing(
            size: size, snapshots: listed.filter { !$0.isTransient }, transients: listed.filter(\.isTransient))
    }

    package func holds(_ snapshot: Snapshot) async throws(VolumeError) -> Bool {
        if let header = try await header() {
            return header.snapshots.contains { $0.kind == .user && $0.id == snapshot.id }
        }
        return try await withImage { image throws(VolumeError) in
            try await image.snapshots().contains {
                $0.kind == RBD_SNAP_NAMESPACE_TYPE_USER && $0.snapshot.id == snapshot.id
            }
        }
    }

    package func thaw(_ snapshotName: String) async throws(VolumeError) {
        try await withImage(for: .writing) { image throws(VolumeError) in
            for listed in try await image.snapshots() where try await image.isOrWas(listed, named: snapshotName) {
                let id = listed.snapshot.id
                unsafe try await image.call("rbd_snap_remove_by_id") { unsafe rbd_snap_remove_by_id($0, id) }
            }
        }
    }

    package func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        guard let snapshot else { return true }
        let isUnchanged: Bool
        if let header = try await header(), header.holdsAllInObjects {
            let objects = try await objectExtents(of: header)
            isUnchanged = try await hasNone(header.size, snapshot) { window throws(VolumeError) in
                try await objects.extents(in: window, since: snapshot)
            }
        } else {
            isUnchanged = try await withReader(at: .head) { reader throws(VolumeError) in
                try await self.hasNone(reader.size, snapshot) { window throws(VolumeError) in
                    try await reader.extents(in: window, since: snapshot)
                }
            }
        }
        // Objects tell nothing of a snapshot that was removed: only now is it sure that they did.
        guard try await holds(snapshot) else {
            throw VolumeError(
                .missing, "list_snaps", on: "\(address)@\(snapshot.name)", reason: "it was removed meanwhile",
                advice:
                    "Give the move up ('godwit abort'), and begin anew: nothing tells any more what was written since.")
        }
        return isUnchanged
    }

    /// Whether the head has the size of `snapshot`, and no extents. Window by window: the list of what an image holds
    /// has no bound.
    private func hasNone(
        _ size: ByteCount, _ snapshot: Snapshot, _ extents: (Extent) async throws(VolumeError) -> ExtentSet
    ) async throws(VolumeError) -> Bool {
        guard size == snapshot.size else { return false }
        for window in Extent(offset: .zero, length: size).parts(ofAtMost: .gibibytes(64)) {
            guard try await extents(window).isEmpty else { return false }
        }
        return true
    }
}

extension Image {
    /// Whether a snapshot has that name, or had it: librbd puts a snapshot into the trash before it removes it, and
    /// whoever was ended in between has left it there.
    fileprivate func isOrWas(_ listed: ListedSnapshot, named name: String) async throws(VolumeError) -> Bool {
        switch listed.kind {
        case RBD_SNAP_NAMESPACE_TYPE_USER: return listed.snapshot.isNamed(name)
        case RBD_SNAP_NAMESPACE_TYPE_TRASH:
            let id = listed.snapshot.id
            return try await blocking { () throws(VolumeError) in
                unsafe try text("rbd_snap_get_trash_namespace", limit: 4096) { buffer, size in
                    unsafe rbd_snap_get_trash_namespace(self.handle, id, buffer, size)
                }
            } == name
        default: return false
        }
    }

    func describe() async throws(VolumeError) -> VolumeDescription {
        let listed = try await snapshots()
        var notCarried: [String] = []
        let foreign: [(rbd_snap_namespace_type_t, String)] = [
            (RBD_SNAP_NAMESPACE_TYPE_GROUP, "group"), (RBD_SNAP_NAMESPACE_TYPE_TRASH, "trash"),
            (RBD_SNAP_NAMESPACE_TYPE_MIRROR, "mirror"),
        ]
        for (kind, word) in foreign {
            let count = listed.count { $0.kind == kind }
            if count > 0 { notCarried.append("\(count) \(word) snapshot\(count == 1 ? "" : "s")") }
        }
        if let group = try await groupName() { notCarried.append("membership of the group \(group)") }
        if try await isMirrored() { notCarried.append("the mirroring state") }
        if try await hasClones() { notCarried.append("clones made from snapshots of this image stay its own") }
        if let limit = try await snapshotLimit() { notCarried.append("the snapshot limit of \(limit)") }
        notCarried.append("timestamps of creation, access and snapshots")
        var metadata = try await metadata()
        // What a live move has put there isn't the user's.
        if let mark = metadata[Marking.throttle].flatMap({ ThrottleMark(encoded: Array($0.utf8)) }),
            metadata[ThrottleMark.key].map({ Array($0.utf8) }) == mark.set
        {
            metadata[bytes: Array(ThrottleMark.key.utf8)] = mark.previous
        }
        var description = VolumeDescription(
            identity: "rbd:\(pool.cluster.fsid)/\(pool.id)/\(pool.namespace)/\(try await imageID())",
            size: try await size(),
            snapshots: listed.filter { $0.kind == RBD_SNAP_NAMESPACE_TYPE_USER && !$0.snapshot.isTransient }
                .map(\.snapshot),
            layout: try await layout(),
            metadata: metadata.without(prefix: Marking.prefix),
            mostBytes: try await mostBytes(in: listed.map(\.snapshot)),
            notCarried: notCarried)
        description.movedTo = metadata[Marking.moved]
        if try await hasParentInAnyState() {
            description.changed.append("the clone is flattened: the target has no parent")
        }
        if try await isOldFormat() { description.changed.append("an image of format 1 becomes one of format 2") }
        return description
    }

    /// Whether a parent shines through the head or a snapshot. Leaves the image showing another state: the last question.
    func hasParentInAnyState() async throws(VolumeError) -> Bool {
        guard try await features().contains(.layering) else { return false }
        if try await overlap() > .zero { return true }
        for listed in try await snapshots() where listed.kind == RBD_SNAP_NAMESPACE_TYPE_USER {
            let id = listed.snapshot.id
            unsafe try await call("rbd_snap_set_by_id") { unsafe rbd_snap_set_by_id($0, id) }
            if try await overlap() > .zero { return true }
        }
        return false
    }

    /// What all states hold at most, going by the object maps: each counts the objects written since the one before.
    private func mostBytes(in snapshots: [Snapshot]) async throws(VolumeError) -> ByteCount? {
        guard try await hasValidObjectMap(), try await overlap() == .zero else { return nil }
        let maps = ObjectMapStore(pool: pool, imageID: try await imageID())
        let (layout, head) = (try await layout(), try await size())
        var objects = 0
        for id in snapshots.map({ $0.id as UInt64? }) + [nil] {
            let size = id.flatMap { id in snapshots.first { $0.id == id }?.size } ?? head
            guard let map = try await maps.load(id, objects: Striping(layout).objectCount(of: size)) else { return nil }
            objects += map.count(in: [.exists, .pending])
        }
        return ByteCount(UInt64(objects) * (try await objectSize().bytes))
    }

    /// Whether a clone hangs on a snapshot, as the header says (`RBD_OPERATION_FEATURE_CLONE_PARENT`, rbd/features.h).
    private func hasClones() async throws(VolumeError) -> Bool {
        let operations: UInt64 = unsafe try await number("rbd_get_op_features") { unsafe rbd_get_op_features($0, $1) }
        if operations & 1 != 0 { return true }
        // Clones of format 1 aren't told there; they need a protected snapshot, and stand in the pools' own lists.
        guard try await snapshots().contains(where: { $0.snapshot.isProtected }) else { return false }
        return try await blocking { () throws(VolumeError) in
            var count = 0
            return unsafe rbd_list_children3(self.handle, nil, &count) == -34
        }
    }

    private func snapshotLimit() async throws(VolumeError) -> UInt64? {
        let limit: UInt64 = unsafe try await number("rbd_snap_get_limit") { unsafe rbd_snap_get_limit($0, $1) }
        return limit == .max ? nil : limit
    }

    private func groupName() async throws(VolumeError) -> String? {
        try await blocking { () throws(VolumeError) in
            var info = unsafe rbd_group_info_t()
            guard unsafe rbd_get_group(self.handle, &info, MemoryLayout<rbd_group_info_t>.size) == 0,
                let name = unsafe info.name, unsafe info.pool >= 0
            else { return nil }
            defer { unsafe _ = rbd_group_info_cleanup(&info, MemoryLayout<rbd_group_info_t>.size) }
            return unsafe String(cString: name)
        }
    }

    private func mirrorInfo() async throws(VolumeError) -> (state: rbd_mirror_image_state_t, isPrimary: Bool)? {
        try await blocking { () throws(VolumeError) in
            var info = unsafe rbd_mirror_image_info_t()
            guard unsafe rbd_mirror_image_get_info(self.handle, &info, MemoryLayout<rbd_mirror_image_info_t>.size) == 0
            else { return nil }
            defer { unsafe rbd_mirror_image_get_info_cleanup(&info) }
            return unsafe (info.state, info.primary)
        }
    }

    private func isMirrored() async throws(VolumeError) -> Bool {
        try await mirrorInfo()?.state == RBD_MIRROR_IMAGE_ENABLED
    }

    func isMirroredCopy() async throws(VolumeError) -> Bool {
        guard let info = try await mirrorInfo() else { return false }
        return info.state == RBD_MIRROR_IMAGE_ENABLED && !info.isPrimary
    }

    /// Asks the OSD to remove an object that can't exist, which only somebody who may write learns.
    /// - Returns: Why not.
    func probeWriting() async -> VolumeError? { await pool.probeWriting() }
}

extension Pool {
    func probeWriting() async -> VolumeError? {
        do throws(VolumeError) {
            try await blocking { () throws(VolumeError) in
                let operation = unsafe rados_create_write_op()
                defer { unsafe rados_release_write_op(operation) }
                unsafe rados_write_op_assert_exists(operation)
                unsafe rados_write_op_remove(operation)
                let code = unsafe rados_write_op_operate(operation, self.handle, "rbd_header.godwit-probe", nil, 0)
                guard code < 0, code != -2 else { return }
                throw VolumeError(ceph: code, "probe", on: "pool \(self.path)")
            }
            return nil
        } catch {
            return error.kind == .forbidden ? error : nil
        }
    }
}
