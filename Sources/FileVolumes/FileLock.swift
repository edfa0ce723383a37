internal import Glibc
internal import Volumes

/// Advisory locks that belong to an open file, not to a process (fcntl(2), "Open file description locks"): those that
/// QEMU takes on its images, and Godwit on its targets.
///
/// QEMU locks single bytes for reading, each of which stands for a permission that it holds (block/file-posix.c,
/// `RAW_LOCK_PERM_BASE`): whoever finds such a byte locked knows what the image is open for.
extension Descriptor {
    /// `RAW_LOCK_PERM_BASE` plus the bits of `BLK_PERM_WRITE` and `BLK_PERM_RESIZE` (block-common.h).
    private static let qemuWriterBytes: [off_t] = [100 + 1, 100 + 3]

    /// Whether somebody else holds a lock for writing on the file, or has it open for writing in QEMU.
    func isLockedByWriter() throws(VolumeError) -> Bool {
        if try isLocked(against: F_RDLCK, from: 0, length: 0) { return true }
        for byte in Self.qemuWriterBytes where try isLocked(against: F_WRLCK, from: byte, length: 1) { return true }
        return false
    }

    private func isLocked(against wish: Int32, from start: off_t, length: off_t) throws(VolumeError) -> Bool {
        var lock = flock(l_type: Int16(wish), l_whence: Int16(SEEK_SET), l_start: start, l_len: length, l_pid: 0)
        do throws(VolumeError) {
            try call("fcntl(F_OFD_GETLK)") { unsafe fcntl($0, F_OFD_GETLK, &lock) }
        } catch let error where error.kind == .unsupported || error.kind == .failed {
            // A file system without locks (EINVAL, ENOLCK): then nobody holds one.
            return false
        }
        return lock.l_type != Int16(F_UNLCK)
    }

    /// Locks the whole file for this descriptor alone, until it is closed.
    /// - Returns: Whether nobody else holds it.
    func lock() throws(VolumeError) -> Bool {
        // Zero as the length means: however long the file becomes.
        var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
        do throws(VolumeError) {
            try call("fcntl(F_OFD_SETLK)") { unsafe fcntl($0, F_OFD_SETLK, &lock) }
            return true
        } catch let error where error.kind == .busy || error.kind == .forbidden {
            // fcntl(2): EAGAIN or EACCES.
            return false
        }
    }

    func unlock() throws(VolumeError) {
        var lock = flock(l_type: Int16(F_UNLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
        try call("fcntl(F_OFD_SETLK)") { unsafe fcntl($0, F_OFD_SETLK, &lock) }
    }

    /// Who holds a lock on the file: "process 4127 (qemu-system-x86)", as far as this user may look.
    ///
    /// The kernel doesn't name the holder of such a lock; proc(5) shows it with the open file (/proc/PID/fdinfo).
    func lockHolders() -> String {
        guard let mine = try? status() else { return "another process" }
        var holders: [String] = []
        for process in entries(of: "/proc") where UInt32(process) != nil {
            let holds = entries(of: "/proc/\(process)/fd").contains { number in
                var status = stat()
                guard unsafe stat("/proc/\(process)/fd/\(number)", &status) == 0 else { return false }
                guard FileStatus(status).isSameFile(as: mine) else { return false }
                return contents(of: "/proc/\(process)/fdinfo/\(number)").contains("\nlock:")
            }
            guard holds else { continue }
            holders.append(
                "process \(process) (\(contents(of: "/proc/\(process)/comm").split(separator: "\n").first ?? "?"))")
        }
        return holders.isEmpty ? "a process that this user may not see" : holders.joined(separator: ", ")
    }
}

private func entries(of directory: String) -> [String] {
    guard let stream = unsafe opendir(directory) else { return [] }
    defer { unsafe closedir(stream) }
    var names: [String] = []
    while let entry = unsafe readdir(stream) {
        let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
            unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

/// A file of /proc or /sys, the first 64 KiB of it; empty if it can't be read.
func contents(of path: String) -> String {
    guard let file = try? Descriptor(path, O_RDONLY, title: path) else { return "" }
    var bytes = [UInt8](repeating: 0, count: 65536)
    let got = unsafe bytes.withUnsafeMutableBytes { buffer in
        unsafe Glibc.read(file.number, buffer.baseAddress, buffer.count)
    }
    return String(decoding: bytes.prefix(max(got, 0)), as: UTF8.self)
}
