internal import CCeph
internal import Synchronization
package import Volumes

// The snapshots of an unfinished target.
extension RBDTarget {
    package func kept() async throws(VolumeError) -> [Snapshot] {
        try await image().snapshots().map(\.snapshot)
    }

    package func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot {
        let image = try image()
        let name = snapshot.name
        if try await !kept().contains(where: { $0.isNamed(name) }) {
            let flags = UInt32(RBD_SNAP_CREATE_SKIP_QUIESCE)
            unsafe try await image.call("rbd_snap_create2") { unsafe rbd_snap_create2($0, name, flags, nil, nil) }
        }
        guard let present = try await kept().first(where: { $0.isNamed(name) }) else {
            throw VolumeError(.failed, "rbd_snap_create2", on: address, reason: "made a snapshot that isn't listed")
        }
        // librbd says nothing if it couldn't write the snapshot's object map, in a full pool: nobody could open it.
        if let maps = try await objects().maps {
            let count = Striping(try await image.layout()).objectCount(of: present.size)
            guard try await maps.load(present.id, objects: count) != nil else {
                throw VolumeError(
                    .full, "rbd_snap_create2", on: address, reason: "snapshot \(name) was made without its object map",
                    advice: "Make room in the pool, or raise its quota; then give the same command again.")
            }
        }
        try await image.protect(present, snapshot.isProtected)
        return present
    }

    package func alter(_ kept: Snapshot, to snapshot: Snapshot) async throws(VolumeError) {
        let image = try image()
        guard let present = try await self.kept().first(where: { $0.id == kept.id }) else { return }
        let (old, new) = (present.name, snapshot.name)
        if !present.isNamed(new) {
            unsafe try await image.call("rbd_snap_rename") { unsafe rbd_snap_rename($0, old, new) }
        }
        let renamed = Snapshot(id: present.id, name: new, size: present.size, isProtected: present.isProtected)
        try await image.protect(renamed, snapshot.isProtected)
    }

    package func drop(_ kept: Snapshot) async throws(VolumeError) {
        let image = try image()
        guard let present = try await self.kept().first(where: { $0.id == kept.id }) else { return }
        try await image.protect(present, false)
        unsafe try await image.call("rbd_snap_remove_by_id") { unsafe rbd_snap_remove_by_id($0, present.id) }
    }

    func removeSnapshots() async throws(VolumeError) {
        for listed in try await image().snapshots().reversed() { try await drop(listed.snapshot) }
    }
}

extension Image {
    /// Protects a snapshot, or takes its protection.
    fileprivate func protect(_ snapshot: Snapshot, _ isWanted: Bool) async throws(VolumeError) {
        let name = snapshot.name
        guard snapshot.isProtected != isWanted else { return }
        if isWanted {
            unsafe try await call("rbd_snap_protect") { unsafe rbd_snap_protect($0, name) }
        } else {
            unsafe try await call(
                "rbd_snap_unprotect", advice: "A clone hangs on it: remove or flatten that first ('rbd children')."
            ) { unsafe rbd_snap_unprotect($0, name) }
        }
    }
}
