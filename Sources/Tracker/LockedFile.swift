internal import Glibc
internal import Volumes

/// A file that is this value's alone, by a lock that belongs to the open file (fcntl(2), "Open file description locks"):
/// the kernel takes it back with the process, however that ends.
final class LockedFile: Sendable {
    let path: String
    private let number: Int32

    /// Makes it, if it isn't there. Blocks.
    /// - Throws: `busy` if another process has it, or another value in this one.
    init(at path: String) throws(VolumeError) {
        self.path = path
        while true {
            let number = try retrying("open", on: path) {
                unsafe open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
            }
            do throws(VolumeError) {
                if try Self.lock(number, path) {
                    self.number = number
                    return
                }
            } catch {
                _ = Glibc.close(number)
                throw error
            }
            // Its holder had removed it meanwhile.
            _ = Glibc.close(number)
        }
    }

    deinit { _ = Glibc.close(number) }

    /// - Returns: Whether the file is still the one of that name.
    private static func lock(_ number: Int32, _ path: String) throws(VolumeError) -> Bool {
        var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
        do throws(VolumeError) {
            try retrying("fcntl(F_OFD_SETLK)", on: path) { unsafe fcntl(number, F_OFD_SETLK, &lock) }
        } catch let error where error.kind == .busy || error.kind == .forbidden {
            // fcntl(2): EAGAIN or EACCES.
            throw VolumeError(
                .busy, "fcntl(F_OFD_SETLK)", on: path, reason: "another process moves the volume",
                advice: "'godwit status' shows it.")
        }
        var (mine, named) = (stat(), stat())
        try retrying("fstat", on: path) { unsafe fstat(number, &mine) }
        guard unsafe Glibc.lstat(path, &named) == 0 else { return false }
        return mine.st_ino == named.st_ino && mine.st_dev == named.st_dev
    }

    func size() throws(VolumeError) -> Int {
        var status = stat()
        try retrying("fstat", on: path) { unsafe fstat(number, &status) }
        return Int(status.st_size)
    }

    /// As much as there is of it.
    func read(_ count: Int, at offset: Int) throws(VolumeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = try retrying("pread", on: path) {
            unsafe bytes.withUnsafeMutableBytes { unsafe pread(number, $0.baseAddress, $0.count, off_t(offset)) }
        }
        return Array(bytes.prefix(got))
    }

    func write(_ bytes: [UInt8], at offset: Int) throws(VolumeError) {
        var done = 0
        while done < bytes.count {
            done += try retrying("pwrite", on: path) {
                unsafe bytes.withUnsafeBytes { bytes in
                    let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
                    return unsafe pwrite(number, rest.baseAddress, rest.count, off_t(offset + done))
                }
            }
        }
    }

    /// Makes it zeros, which have their room: a store into a page without any would end the process (SIGBUS).
    func clear(to size: Int) throws(VolumeError) {
        try retrying("ftruncate", on: path) { ftruncate(number, 0) }
        while true {
            let code = posix_fallocate(number, 0, off_t(size))
            guard code != 0 else { return }
            guard code == EINTR else { throw failure(code, "posix_fallocate", on: path) }
        }
    }

    func map(_ size: Int) throws(VolumeError) -> MappedWords {
        let memory = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0)
        guard let memory = unsafe memory, unsafe memory != MAP_FAILED else { throw failure(errno, "mmap", on: path) }
        return unsafe MappedWords(memory, size: size)
    }

    func remove() throws(VolumeError) {
        do throws(VolumeError) {
            try retrying("unlink", on: path) { unsafe unlink(path) }
        } catch let error where error.kind == .missing {
            // Somebody tidied up.
        }
    }
}

/// A mapped file as words of 64 bits. What is stored is the kernel's from that moment on (mmap(2), `MAP_SHARED`): it
/// stays when the process is killed, and takes no msync(2), which is for the host's own end.
// @unchecked: a pointer is not Sendable. Whoever uses it does so under a lock of his own.
// @safe: every access is checked against `count`, and nothing hands the pointer out.
@safe final class MappedWords: @unchecked Sendable {
    let count: Int
    private let words: UnsafeMutablePointer<UInt64>

    /// - Parameter memory: A mapping of `size` bytes, a multiple of 8; it is this value's from here on.
    init(_ memory: UnsafeMutableRawPointer, size: Int) {
        count = size / 8
        unsafe words = memory.bindMemory(to: UInt64.self, capacity: count)
    }

    deinit { _ = unsafe munmap(words, count * 8) }

    subscript(index: Int) -> UInt64 {
        get {
            precondition(index >= 0 && index < count, "no such word")
            return unsafe words[index]
        }
        set {
            precondition(index >= 0 && index < count, "no such word")
            unsafe words[index] = newValue
        }
    }
}
