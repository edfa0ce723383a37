internal import Glibc
internal import Synchronization
package import Volumes

/// A raw file that a move makes.
///
/// Until it is finished it stands at PATH.godwit-unfinished, with the move's record beside it at PATH.godwit-record; it
/// becomes finished by one rename that never replaces a file. The record is made after the unfinished file and removed
/// before it, so that a record beside PATH without an unfinished file means one thing: the rename was done. While a
/// process owns the unfinished file, that is locked, and PATH.godwit-holder is there.
///
/// A block device can't be renamed, so nothing could keep it from looking finished: it is refused as a target.
package final class FileTarget: TargetVolume {
    static let unfinishedSuffix = ".godwit-unfinished"
    static let recordSuffix = ".godwit-record"
    /// Where a record is written before it takes the place of the one before.
    static let newRecordSuffix = ".godwit-record-new"
    /// There while a process owns the unfinished file, and after it if it died: a lock alone leaves no trace.
    static let holderSuffix = ".godwit-holder"
    /// A record larger than this is none of ours.
    static let recordLimit = ByteCount.mebibytes(64)

    package let address: String
    let path: String
    /// The unfinished file, once it is this process's.
    let owned = Mutex<Descriptor?>(nil)

    package init(path: String) {
        self.path = path
        address = "file:" + path
    }

    var unfinishedPath: String { path + Self.unfinishedSuffix }
    var recordPath: String { path + Self.recordSuffix }
    var newRecordPath: String { path + Self.newRecordSuffix }
    var holderPath: String { path + Self.holderSuffix }

    var directory: String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    static func noSnapshots(_ operation: String, on address: String) -> VolumeError {
        VolumeError(
            .unsupported, operation, on: address, reason: "a file can't hold snapshots",
            advice: "--snapshots none moves the head alone.")
    }

    // MARK: What is there

    package func state() async throws(VolumeError) -> TargetState {
        try await blocking { () throws(VolumeError) in try self.presentState() }
    }

    func presentState() throws(VolumeError) -> TargetState {
        let final = try FileStatus.of(path, followingLinks: false, title: address)
        if try isBlockDevice(final) { throw Self.blockDeviceRefusal(address) }
        let unfinished = try FileStatus.of(unfinishedPath, followingLinks: false, title: address)
        let record = try readRecord()
        switch (final, unfinished, record) {
        case (nil, nil, nil): return .absent
        case (nil, _, let record?): return .unfinished(record: record)
        // Without a record: what has no bytes and no holder either may be somebody's by that name.
        case (nil, let unfinished?, nil) where unfinished.allocated > .zero:
            let isOurs = try FileStatus.of(holderPath, followingLinks: false, title: address) != nil
            return isOurs ? .unfinished(record: "") : .foreign
        case (nil, _?, nil): return .unfinished(record: "")
        case (_?, nil, let record?): return .committed(record: record)
        // The link of a commit was made, and the other name not removed yet.
        case (let final?, let unfinished?, let record?) where final.isSameFile(as: unfinished):
            return .committed(record: record)
        case (_?, _, _): return .foreign
        }
    }

    func isBlockDevice(_ final: FileStatus?) throws(VolumeError) -> Bool {
        guard let final, final.kind == .blockDevice || final.kind == .link else { return false }
        return try FileStatus.of(path, followingLinks: true, title: address)?.kind == .blockDevice
    }

    static func blockDeviceRefusal(_ address: String) -> VolumeError {
        VolumeError(
            .unsupported, "lstat", on: address,
            reason: "it is a block device, which can't be kept from looking finished before it is",
            advice: "Name a file to be made.")
    }

    /// - Returns: Nothing if there is none.
    func readRecord() throws(VolumeError) -> String? {
        let file: Descriptor
        do throws(VolumeError) {
            file = try Descriptor(recordPath, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, title: address)
        } catch let error where error.kind == .missing {
            return nil
        }
        let size = try file.status().size
        guard size <= Self.recordLimit else {
            throw VolumeError(
                .damaged, "fstat", on: recordPath, reason: "\(size.bytes) bytes are too many for a move's record",
                advice: "Look at what it is; Godwit writes no such file.")
        }
        var bytes = [UInt8](repeating: 0, count: Int(size.bytes))
        let outcome = unsafe bytes.withUnsafeMutableBytes { buffer -> Result<Void, VolumeError> in
            do throws(VolumeError) {
                return .success(unsafe try file.read(into: buffer, at: .zero))
            } catch {
                return .failure(error)
            }
        }
        try outcome.get()
        return String(decoding: bytes, as: UTF8.self)
    }

    package func describe() async throws(VolumeError) -> VolumeDescription {
        try await blocking { () throws(VolumeError) in
            let path = try self.presentPath()
            let file = try Descriptor(path, O_RDONLY, title: self.address)
            return VolumeDescription(identity: try FileSource.identity(of: file, at: path), size: try file.size())
        }
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        guard revision == .head else { throw Self.noSnapshots("open", on: address) }
        return try await blocking { () throws(VolumeError) in
            try FileReader(try Descriptor(try self.presentPath(), O_RDONLY, title: self.address))
        }
    }

    func presentPath() throws(VolumeError) -> String {
        if case .unfinished = try presentState() { unfinishedPath } else { path }
    }

    package func obstacles(to source: VolumeDescription, room: ByteCount) async throws(VolumeError) -> [Obstacle] {
        try await blocking { () throws(VolumeError) in
            do throws(VolumeError) {
                return try self.presentObstacles(to: source, room: room)
            } catch let error where error.kind == .unsupported {
                return [Obstacle(.unsupported, error.reason, remedy: error.advice ?? "Choose another path.")]
            }
        }
    }

    func presentObstacles(to source: VolumeDescription, room: ByteCount) throws(VolumeError) -> [Obstacle] {
        var found: [Obstacle] = []
        if try presentState() == .foreign {
            found.append(
                Obstacle(
                    .exists, "\(address) exists, and wasn't begun by Godwit",
                    remedy: "Choose another name, or remove it yourself: Godwit never overwrites."))
        }
        if !source.snapshots.isEmpty {
            found.append(
                Obstacle(
                    .unsupported, "the source has \(source.snapshots.count) snapshots, and a file can't hold snapshots",
                    remedy: "--snapshots none moves the head alone."))
        }
        guard try FileStatus.of(directory, followingLinks: true, title: address)?.kind == .directory else {
            found.append(
                Obstacle(.missing, "there is no directory \(directory)", remedy: "Make it, or choose another path."))
            return found
        }
        do throws(VolumeError) {
            try retrying("faccessat", on: directory) {
                unsafe faccessat(AT_FDCWD, directory, W_OK | X_OK, Int32(AT_EACCESS))
            }
        } catch {
            found.append(
                Obstacle(
                    error.kind, "no file can be made in \(directory): \(error.reason)",
                    remedy: "Choose another directory, or give the command as a user who may write there."))
        }
        var system = statvfs()
        try retrying("statvfs", on: directory) { unsafe statvfs(directory, &system) }
        // What an earlier run has written is no longer to be written.
        let held = try FileStatus.of(unfinishedPath, followingLinks: false, title: address)?.allocated ?? .zero
        let available = ByteCount(UInt64(system.f_bavail) * UInt64(system.f_frsize)) + held
        if available < room {
            found.append(
                Obstacle(
                    .full,
                    "the file system of \(directory) has room for \(available.bytes) bytes; "
                        + "\(room.bytes) are to be written",
                    remedy: "Make room, or choose another directory."))
        }
        return found
    }

    package func losses(from source: VolumeDescription) -> [String] {
        source.metadata.isEmpty ? [] : ["the metadata (\(source.metadata.count) keys): a file holds none"]
    }

    // MARK: Making it

    package func make(as source: VolumeDescription, record: String) async throws(VolumeError) {
        guard source.snapshots.isEmpty else { throw Self.noSnapshots("make", on: address) }
        try await blocking { () throws(VolumeError) in
            guard try self.presentState() == .absent else {
                throw VolumeError(
                    .exists, "open", on: self.address, reason: "something stands there already",
                    advice: "Choose another name, or remove it yourself: Godwit never overwrites.")
            }
            // As qemu-img makes images: the umask says who may read them.
            let file = try Descriptor(
                self.unfinishedPath, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, permissions: 0o644, title: self.address)
            do throws(VolumeError) {
                try file.call("ftruncate") { ftruncate($0, off_t(source.size.bytes)) }
                try file.call("fsync") { fsync($0) }
                try self.write(record: record)
            } catch {
                _ = try? self.remove(self.newRecordPath)
                _ = try? self.remove(self.unfinishedPath)
                throw error
            }
        }
    }

    @discardableResult
    package func own() async throws(VolumeError) -> Bool {
        guard owned.withLock({ $0 == nil }) else { return false }
        let (file, hasFenced) = try await blocking { () throws(VolumeError) in
            (try self.lockedFile(), try self.markHolder())
        }
        owned.withLock { $0 = file }
        return hasFenced
    }

    /// The unfinished file, locked for this process alone.
    func lockedFile() throws(VolumeError) -> Descriptor {
        let file = try Descriptor(unfinishedPath, O_RDWR | O_NOFOLLOW, title: address)
        guard try file.lock() else {
            throw VolumeError(
                .busy, "fcntl(F_OFD_SETLK)", on: address, reason: "\(file.lockHolders()) is moving into it",
                advice: "Wait for it to end, or end it; then give the command again.")
        }
        // Whoever held it may have finished or removed it between the opening and the lock.
        let present = try FileStatus.of(unfinishedPath, followingLinks: false, title: address)
        guard let present, present.isSameFile(as: try file.status()), present.kind == .regular else {
            throw VolumeError(
                .busy, "own", on: address, reason: "another move finished or removed it just now",
                advice: "Look at what is there; then give the command again.")
        }
        return file
    }

    /// - Returns: Whether the last owner died: the kernel took the lock from it, but its name stayed.
    func markHolder() throws(VolumeError) -> Bool {
        let hasDied = try FileStatus.of(holderPath, followingLinks: false, title: address) != nil
        do throws(VolumeError) {
            let holder = try Descriptor(
                holderPath, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, permissions: 0o644, title: holderPath)
            try Self.write("process \(getpid())\n", to: holder)
            try syncDirectory()
        } catch {
            if !hasDied { _ = try? remove(holderPath) }
            throw error
        }
        return hasDied
    }

    func file() throws(VolumeError) -> Descriptor {
        guard let file = owned.withLock({ $0 }) else {
            throw VolumeError(.failed, "own", on: address, reason: "the target isn't this process's yet")
        }
        return file
    }

    package func close() async {
        guard let file = owned.withLock({ $0.take() }) else { return }
        // The descriptor may live a moment longer than the last call that used it; the lock must not.
        try? await blocking { () throws(VolumeError) in
            try self.remove(self.holderPath)
            try file.unlock()
        }
    }

    package func save(record: String) async throws(VolumeError) {
        try await blocking { () throws(VolumeError) in
            switch try self.presentState() {
            case .unfinished, .committed: try self.write(record: record)
            case .absent: throw VolumeError(errno: ENOENT, "open", on: self.address)
            case .foreign:
                throw VolumeError(
                    .exists, "open", on: self.address, reason: "it exists, and wasn't begun by Godwit",
                    advice: "Move it out of the way, then give the command again.")
            }
        }
    }

    /// The record is the old one or the new one, whenever the power fails; the new one when this returns.
    func write(record: String) throws(VolumeError) {
        // Only the target's owner writes records: what stands here was left by one that died.
        let file = try Descriptor(
            newRecordPath, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, permissions: 0o644, title: recordPath)
        try Self.write(record, to: file)
        try file.call("fsync") { fsync($0) }
        try retrying("rename", on: recordPath) { unsafe rename(newRecordPath, recordPath) }
        try syncDirectory()
    }

    static func write(_ text: String, to file: Descriptor) throws(VolumeError) {
        var text = text
        let outcome = text.withUTF8 { bytes -> Result<Void, VolumeError> in
            do throws(VolumeError) {
                return .success(unsafe try file.write(UnsafeRawBufferPointer(bytes), at: .zero))
            } catch {
                return .failure(error)
            }
        }
        try outcome.get()
    }

    /// Makes the names in the directory durable.
    func syncDirectory() throws(VolumeError) {
        let file = try Descriptor(directory, O_RDONLY | O_DIRECTORY, title: directory)
        try file.call("fsync") { fsync($0) }
    }

    package func kept() async throws(VolumeError) -> [Snapshot] { [] }

    package func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot {
        throw Self.noSnapshots("keep", on: address)
    }

    package func resize(to size: ByteCount) async throws(VolumeError) {
        let file = try file()
        try await blocking { () throws(VolumeError) -> Void in
            try file.call("ftruncate") { ftruncate($0, off_t(size.bytes)) }
        }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let file = try file()
        // Needed: pointers are not Sendable. Safe: the caller keeps the buffer and leaves it alone until this returns.
        nonisolated(unsafe) let bytes = unsafe bytes
        let extent = unsafe Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        try await blocking { () throws(VolumeError) in
            try self.checkEnd(of: extent, "pwrite", in: file)
            unsafe try file.write(bytes, at: offset)
        }
    }

    /// A write past the end would make the file longer.
    func checkEnd(of extent: Extent, _ operation: String, in file: Descriptor) throws(VolumeError) {
        let size = try file.status().size
        guard extent.end.bytes <= size.bytes else {
            throw VolumeError(
                .failed, operation, on: "\(address) at byte \(extent.offset.bytes)",
                reason: "\(extent.length.bytes) bytes reach past the end at \(size.bytes)")
        }
    }

    package func zero(_ extent: Extent) async throws(VolumeError) {
        guard !extent.isEmpty else { return }
        let file = try file()
        try await blocking { () throws(VolumeError) in
            try self.checkEnd(of: extent, "fallocate", in: file)
            try file.zero(extent, end: ByteOffset(try file.size().bytes))
        }
    }

    package func flush() async throws(VolumeError) {
        let file = try file()
        // fdatasync(2) writes the file's new size too.
        try await blocking { () throws(VolumeError) -> Void in try file.call("fdatasync") { fdatasync($0) } }
    }

    package func route(from source: any Volume) async throws(VolumeError) -> (any Route)? { nil }
}
