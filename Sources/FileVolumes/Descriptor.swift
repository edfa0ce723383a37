internal import Glibc
internal import Volumes

/// An open file. Closed with the last reference: a call still in flight holds one, so its number is never given to
/// another file under it.
final class Descriptor: Sendable {
    let number: Int32
    /// How errors name it: the volume's address.
    let title: String

    /// - Parameter flags: As open(2) takes them; `O_CLOEXEC` is added.
    init(_ path: String, _ flags: Int32, permissions: mode_t = 0, title: String) throws(VolumeError) {
        let flags = flags | O_CLOEXEC
        number = try retrying("open", on: title) { unsafe open(path, flags, permissions) }
        self.title = title
    }

    deinit { _ = Glibc.close(number) }

    /// One system call on the descriptor; called again when a signal cut it short.
    @discardableResult
    func call<Number: SignedInteger>(
        _ operation: String, at offset: ByteOffset? = nil, _ body: (Int32) -> Number
    ) throws(VolumeError) -> Number {
        try retrying(operation, on: offset.map { "\(title) at byte \($0.bytes)" } ?? title) { body(number) }
    }

    func status() throws(VolumeError) -> FileStatus {
        var status = stat()
        try call("fstat") { unsafe fstat($0, &status) }
        return FileStatus(status)
    }

    /// The volume's size: the file's, or the block device's (lseek(2), which block/fops.c answers with its size).
    func size() throws(VolumeError) -> ByteCount {
        let status = try status()
        guard status.kind == .blockDevice else { return status.size }
        return ByteCount(UInt64(try call("lseek") { lseek($0, 0, SEEK_END) }))
    }

    /// Fills `buffer`; a file that ends before is damaged.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) throws(VolumeError) {
        var done = 0
        while done < buffer.count {
            let place = offset + ByteCount(UInt64(done))
            let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let got = try call("pread", at: place) {
                unsafe pread($0, rest.baseAddress, rest.count, off_t(place.bytes))
            }
            guard got > 0 else {
                throw VolumeError(
                    .damaged, "pread", on: "\(title) at byte \(place.bytes)",
                    reason: "the file ends here, \(buffer.count - done) bytes too early")
            }
            done += got
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) throws(VolumeError) {
        var done = 0
        while done < bytes.count {
            let place = offset + ByteCount(UInt64(done))
            let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
            done += try call("pwrite", at: place) {
                unsafe pwrite($0, rest.baseAddress, rest.count, off_t(place.bytes))
            }
        }
    }
}

/// Calls until no signal cuts the call short.
@discardableResult
func retrying<Number: SignedInteger>(
    _ operation: String, on object: String, _ body: () -> Number
) throws(VolumeError) -> Number {
    while true {
        let result = body()
        if result >= 0 { return result }
        let code = errno
        guard code == EINTR else { throw VolumeError(errno: code, operation, on: object) }
    }
}

/// What stat(2) says of a file.
struct FileStatus: Sendable, Equatable {
    enum Kind: Sendable { case regular, blockDevice, directory, link, other }

    let kind: Kind
    let size: ByteCount
    let device: UInt64
    let inode: UInt64
    /// Of the block device that the file is, not of the one it is on.
    let represents: UInt64
    /// Since 1970.
    let modified: Duration
    /// Since 1970; the kernel's, which nobody can set.
    let changed: Duration
    /// What the file system allocated for it.
    let allocated: ByteCount

    init(_ status: stat) {
        kind =
            switch status.st_mode & S_IFMT {
            case S_IFREG: .regular
            case S_IFBLK: .blockDevice
            case S_IFDIR: .directory
            case S_IFLNK: .link
            default: .other
            }
        size = ByteCount(UInt64(max(status.st_size, 0)))
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        represents = UInt64(status.st_rdev)
        modified = .seconds(status.st_mtim.tv_sec) + .nanoseconds(status.st_mtim.tv_nsec)
        changed = .seconds(status.st_ctim.tv_sec) + .nanoseconds(status.st_ctim.tv_nsec)
        // stat(2): st_blocks counts 512 bytes, whatever the file system's blocks are.
        allocated = ByteCount(UInt64(max(status.st_blocks, 0)) * 512)
    }

    /// Whether both are one file, under whatever names.
    func isSameFile(as other: FileStatus) -> Bool { device == other.device && inode == other.inode }

    /// - Returns: Nothing if there is no such file.
    static func of(_ path: String, followingLinks: Bool, title: String) throws(VolumeError) -> FileStatus? {
        var status = stat()
        do throws(VolumeError) {
            if followingLinks {
                try retrying("stat", on: title) { unsafe stat(path, &status) }
            } else {
                try retrying("lstat", on: title) { unsafe lstat(path, &status) }
            }
        } catch let error where error.kind == .missing {
            return nil
        }
        return FileStatus(status)
    }
}
