internal import Glibc
internal import Volumes

/// The system calls behind the control sockets (unix(7)).
enum UnixSocket {
    /// Bytes: `sun_path` has 108, and one of them ends it (sys/un.h).
    static let longestPath = 107

    /// How many may wait to be let in.
    private static let backlog: Int32 = 16

    /// A socket that listens, which only this user can connect to.
    /// - Returns: Its descriptor, which is the caller's to close.
    static func listening(at path: String) throws(VolumeError) -> Int32 {
        let descriptor = try made(for: path)
        do throws(VolumeError) {
            // Before bind(2), which makes the file with the mode of the socket, less the umask: so it is closed to
            // others from its first moment, without changing the umask of every thread.
            try check(fchmod(descriptor, 0o600), "fchmod", path)
            let address = try address(path)
            unsafe try check(withSockaddr(address) { unsafe bind(descriptor, $0, $1) }, "bind", path)
            try check(listen(descriptor, backlog), "listen", path)
            return descriptor
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// A connected socket; nothing if nobody listens there any more.
    ///
    /// Never waits: a listener that lets nobody in is told apart as `busy`.
    static func connected(to path: String) throws(VolumeError) -> Int32? {
        let address = try address(path)
        let descriptor = try made(for: path)
        guard unsafe withSockaddr(address, { unsafe connect(descriptor, $0, $1) }) < 0 else { return descriptor }
        let code = errno
        close(descriptor)
        if code == ECONNREFUSED || code == ENOENT { return nil }
        throw VolumeError(errno: code, "connect", on: path)
    }

    private static func made(for path: String) throws(VolumeError) -> Int32 {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        try check(descriptor, "socket", path)
        return descriptor
    }

    private static func check(_ result: Int32, _ operation: String, _ path: String) throws(VolumeError) {
        if result < 0 { throw VolumeError(errno: errno, operation, on: path) }
    }

    /// Whether the path can be an address, which is shorter than a path may be.
    static func refuseTooLong(_ path: String) throws(VolumeError) {
        let count = path.utf8.count
        guard count <= longestPath else {
            throw VolumeError(
                .unsupported, "bind", on: path,
                reason: "the path has \(count) bytes, and a socket's can have \(longestPath)",
                advice: "Name a shorter directory with GODWIT_RUNTIME_DIR.")
        }
    }

    private static func address(_ path: String) throws(VolumeError) -> sockaddr_un {
        try refuseTooLong(path)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // It fits with a zero after it: refused above.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        return address
    }

    private static func withSockaddr(
        _ address: sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        unsafe withUnsafePointer(to: address) { pointer in
            // bind(2): "struct sockaddr" only avoids compiler warnings; the family says what it is.
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}

/// A listening socket under its name in the runtime directory.
struct NamedSocket: Sendable {
    let path: SocketPath
    /// The caller's to close.
    let descriptor: Int32
    private let device: UInt
    private let inode: UInt

    /// How many of one PID can listen: several where PID namespaces share the directory.
    private static let mostOfOneProcess = 16

    /// Listens before it has its name: whatever has a name and refuses to be connected to is dead.
    init(in directory: RuntimeDirectory, process: Int32 = getpid()) throws(VolumeError) {
        try directory.make()
        try UnixSocket.refuseTooLong(SocketPath.unnamed(of: process, in: directory).text)
        directory.removeDeadSockets()
        let unnamed = SocketPath.unnamed(of: process, in: directory).text
        descriptor = try UnixSocket.listening(at: unnamed)
        defer { _ = unsafe Glibc.unlink(unnamed) }
        do throws(VolumeError) {
            path = try Self.named(unnamed, of: process, in: directory)
            var status = stat()
            guard unsafe lstat(path.text, &status) == 0 else { throw VolumeError(errno: errno, "lstat", on: path.text) }
            (device, inode) = (status.st_dev, status.st_ino)
        } catch {
            close(descriptor)
            throw error
        }
    }

    private static func named(
        _ unnamed: String, of process: Int32, in directory: RuntimeDirectory
    ) throws(VolumeError) -> SocketPath {
        for number in 1...mostOfOneProcess {
            let path = SocketPath.numbered(number, of: process, in: directory)
            // link(2) never replaces what is there, as rename(2) would.
            if unsafe link(unnamed, path.text) == 0 { return path }
            let code = errno
            guard code == EEXIST else { throw VolumeError(errno: code, "link", on: path.text) }
        }
        throw VolumeError(
            .busy, "link", on: directory.path, reason: "\(mostOfOneProcess) of process \(process) listen there already")
    }

    /// Takes the name away, unless it is somebody else's by now.
    func unlink() {
        var status = stat()
        guard unsafe lstat(path.text, &status) == 0, status.st_dev == device, status.st_ino == inode else { return }
        _ = unsafe Glibc.unlink(path.text)
    }
}

extension RuntimeDirectory {
    /// Removes the sockets that nobody listens on: their processes were killed.
    func removeDeadSockets() {
        guard let sockets = try? sockets() else { return }
        for socket in sockets {
            if let descriptor = try? socket.connected() { close(descriptor) }
        }
    }
}

extension SocketPath {
    /// A connected socket; nothing if nobody listens there, and then its name is gone, too.
    func connected() throws(VolumeError) -> Int32? {
        var status = stat()
        guard unsafe lstat(text, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return nil }
        if let descriptor = try UnixSocket.connected(to: text) { return descriptor }
        // One without its name may be about to listen, as long as its process lives.
        if !isBeingMade || (kill(process, 0) < 0 && errno == ESRCH) { _ = unsafe unlink(text) }
        return nil
    }
}
