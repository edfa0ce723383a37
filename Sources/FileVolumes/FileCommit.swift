internal import Glibc
internal import Synchronization
package import Volumes

// How a file target is finished, or given up.
extension FileTarget {
    package func commit(as source: VolumeDescription) async throws(VolumeError) {
        if case .committed = try await state() {
            // A run that died may have come this far, and no further.
            try await blocking { () throws(VolumeError) in
                try self.remove(self.holderPath)
                try self.remove(self.unfinishedPath)
                try self.syncDirectory()
            }
        } else {
            let file = try file()
            try await blocking { () throws(VolumeError) in
                try file.call("fsync") { fsync($0) }
                try self.takeName()
                try self.syncDirectory()
            }
        }
        await close()
    }

    package func uncommit() async throws(VolumeError) {
        try await blocking { () throws(VolumeError) in
            guard case .committed = try self.presentState() else {
                throw VolumeError(.failed, "uncommit", on: self.address, reason: "it isn't committed")
            }
            let file = try Descriptor(self.path, O_RDWR | O_NOFOLLOW, title: self.address)
            guard try !file.isLockedByWriter() else {
                throw VolumeError(
                    .busy, "uncommit", on: self.address, reason: "\(file.lockHolders()) has it open already")
            }
            // The link of a commit was made, and the other name not removed yet.
            if try FileStatus.of(self.unfinishedPath, followingLinks: false, title: self.address) != nil {
                try self.remove(self.path)
            } else {
                try renameWithoutReplacing(self.path, to: self.unfinishedPath, title: self.address)
            }
            try self.syncDirectory()
        }
        try await own()
    }

    /// Gives the unfinished file its name, unless something has that name.
    private func takeName() throws(VolumeError) {
        do throws(VolumeError) {
            try renameWithoutReplacing(unfinishedPath, to: path, title: address)
        } catch let error where error.kind == .exists {
            throw VolumeError(
                .exists, error.operation, on: address, reason: "somebody made a file of that name meanwhile",
                advice: "Move it out of the way, then give the command again: the copy is whole and stays.")
        }
    }

    /// - Returns: Whether it was there.
    @discardableResult
    func remove(_ path: String) throws(VolumeError) -> Bool {
        do throws(VolumeError) {
            try retrying("unlink", on: path) { unsafe unlink(path) }
            return true
        } catch let error where error.kind == .missing {
            return false
        }
    }

    package func forget() async throws(VolumeError) {
        try await blocking { () throws(VolumeError) in
            switch try self.presentState() {
            case .committed: break
            case .absent: return
            case .foreign where try self.readRecord() == nil: return
            case .unfinished, .foreign:
                throw VolumeError(.failed, "forget", on: self.address, reason: "the move isn't over: it is unfinished")
            }
            for path in [self.holderPath, self.newRecordPath, self.recordPath] { try self.remove(path) }
            try self.syncDirectory()
        }
    }

    package func discard() async throws(VolumeError) {
        if case .committed = try await state() {
            throw VolumeError(
                .exists, "discard", on: address, reason: "it is finished, and so no longer Godwit's to remove")
        }
        let isOwned = owned.withLock { $0 != nil }
        try await blocking { () throws(VolumeError) in
            var file: Descriptor?
            do throws(VolumeError) {
                // Locked, but without a holder's mark: where nothing has room any more, there is room to discard.
                if !isOwned { file = try self.lockedFile() }
            } catch let error where error.kind == .missing {
                // Nothing but a record, or nothing at all.
            }
            for path in [self.holderPath, self.newRecordPath, self.recordPath] { try self.remove(path) }
            try self.syncDirectory()
            try self.remove(self.unfinishedPath)
            try self.syncDirectory()
            try file?.unlock()
        }
        await close()
    }
}
