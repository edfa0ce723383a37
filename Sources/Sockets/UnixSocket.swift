internal import Glibc
package import Volumes

/// Unix sockets by their paths (unix(7)), as descriptors.
package enum UnixSocket {
    /// Bytes: `sun_path` has 108, and one of them ends it (sys/un.h).
    package static let longestPath = 107

    /// Bytes that a connection holds on their way, where much is sent over it (`SO_SNDBUF`, socket(7)): what the kernel
    /// gives by itself is full after three replies of 64 KiB, and each time the two ends have to wake each other. Reads of
    /// 64 KiB, 32 at a time, come out a fifth to a third faster. Where `net.core.wmem_max` allows less, it is less.
    package static let sendBuffer = 1 << 19

    /// A socket that listens, which only this user can connect to.
    /// - Parameter backlog: How many may wait to be let in.
    /// - Returns: Its descriptor, which is the caller's to close.
    /// - Throws: `exists` if something of that name is there.
    package static func listening(at path: String, backlog: Int32 = 16) throws(VolumeError) -> Int32 {
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
    package static func connected(to path: String) throws(VolumeError) -> Int32? {
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
    package static func refuseTooLong(_ path: String, advice: String = "Name a shorter one.") throws(VolumeError) {
        let count = path.utf8.count
        guard count <= longestPath else {
            throw VolumeError(
                .unsupported, "bind", on: path,
                reason: "the path has \(count) bytes, and a socket's can have \(longestPath)",
                advice: advice)
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
