internal import CCeph
internal import Foundation
internal import Synchronization
package import Volumes

// Finishing a target, or giving it up.
extension RBDTarget {
    package func furnish(as source: VolumeDescription) async throws(VolumeError) {
        let image = try image()
        let present = try await image.metadata()
        for (key, value) in source.metadata.pairs where present[bytes: key] != value {
            try await image.setMetadata(key, to: value)
        }
        for key in present.without(prefix: Marking.prefix).pairs.keys where source.metadata[bytes: key] == nil {
            try await image.removeMetadata(key)
        }
        let layout = wishes.applied(to: source.layout)
        if layout.features.contains("journaling"), try await !image.features().contains(.journaling) {
            let journaling = Features.journaling.rawValue
            unsafe try await image.call("rbd_update_features") { unsafe rbd_update_features($0, journaling, 1) }
        }
    }

    package func commit(as source: VolumeDescription) async throws(VolumeError) {
        guard let image = owned.withLock({ $0 }) else {
            guard case .committed = try await state() else { throw notOwned() }
            return try await settleName()
        }
        try await furnish(as: source)
        // The rename may want the lock for itself. The image stays open, and the holder's name in it, until the move is
        // over: this process may die before that.
        try await unlock(image)
        try await settleName(hasJournal: image.features().contains(.journaling))
    }

    package func uncommit() async throws(VolumeError) {
        if let other = try await pool.watchers(ofImage: name).first(where: { $0.client != cluster.clientNumber }) {
            throw VolumeError(
                .busy, "uncommit", on: address, reason: "client.\(other.client) at \(other.address) has it open already"
            )
        }
        await close()
        try await blocking { () throws(VolumeError) in
            let code = unsafe rbd_rename(self.pool.handle, self.name, self.unfinishedName)
            try check(code, "rbd_rename", on: self.address)
        }
        try await own()
    }

    package func forget() async throws(VolumeError) {
        func forget(_ image: Image) async throws(VolumeError) {
            try await image.unmark(Marking.holder)
            try await image.unmark(Marking.record)
        }
        guard let image = owned.withLock({ $0.take() }) else {
            try await settleName()
            return try await withImage(name, for: .writing) { image throws(VolumeError) in
                // A run that was ended after the rename has left it, where the image has no lock of librbd's own.
                try await image.breakAdvisoryLocks()
                try await forget(image)
            }
        }
        do throws(VolumeError) {
            try await forget(image)
        } catch {
            await image.close()
            throw error
        }
        await image.close()
    }

    package func discard() async throws(VolumeError) {
        do throws(VolumeError) {
            try await own()
            try await removeSnapshots()
        } catch  where error.kind == .missing {
            // It was being made, or removed, when a run was ended: only librbd's removal can deal with what is left.
        }
        // Still its holder: whoever finds it half removed evicts this client, instead of waiting for its watch to end.
        await letGo()
        try await removeUnfinished()
    }

    /// Removes the image; waits for a client that went away to be given up, as it still watches the image.
    private func removeUnfinished() async throws(VolumeError) {
        let deadline = ContinuousClock.now + Self.watchLimit
        // Another run may make one of the same name as soon as this one is gone.
        let old = try await unfinishedID()
        repeat {
            do throws(VolumeError) {
                try await blocking { () throws(VolumeError) in
                    try check(unsafe rbd_remove(self.pool.handle, self.unfinishedName), "rbd_remove", on: self.address)
                }
            } catch let error where error.kind == .busy {
                guard ContinuousClock.now < deadline else { throw stillOpen() }
                notice("waiting for a client that has the unfinished target open, and may be gone, to be given up")
                try await pause()
            }
            // What a removal left that was ended goes in steps: what is in the trash, then the name in the directory.
            let present = try await unfinishedID()
            guard try await present == nil ? pool.isHalfRemoved(unfinishedName) : present == old else { return }
        } while ContinuousClock.now < deadline
        throw stillOpen()
    }

    private func stillOpen() -> VolumeError {
        VolumeError(
            .busy, "rbd_remove", on: address,
            reason: "its unfinished target is still open after \(Self.watchLimit.components.seconds) s",
            advice:
                "'rbd status \(pool.path)/\(unfinishedName)' shows where. A client that is gone and stays listed is a "
                + "mistake of an OSD's (Docs/Operations.md). Then give the command again.")
    }
}
