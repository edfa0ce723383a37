internal import Glibc
internal import Sockets
internal import Volumes

/// A listening socket under its name in the runtime directory.
struct NamedSocket: Sendable {
    let path: SocketPath
    /// The caller's to close.
    let descriptor: Int32
    private let name: SocketName

    /// How many of one PID can listen: several where PID namespaces share the directory.
    private static let mostOfOneProcess = 16

    /// Listens before it has its name: whatever has a name and refuses to be connected to is dead.
    init(in directory: RuntimeDirectory, process: Int32 = getpid()) throws(VolumeError) {
        try directory.make()
        try UnixSocket.refuseTooLong(
            SocketPath.unnamed(of: process, in: directory).text,
            advice: "Name a shorter directory with GODWIT_RUNTIME_DIR.")
        directory.removeDeadSockets()
        let unnamed = SocketPath.unnamed(of: process, in: directory).text
        descriptor = try UnixSocket.listening(at: unnamed)
        defer { _ = unsafe Glibc.unlink(unnamed) }
        do throws(VolumeError) {
            path = try Self.named(unnamed, of: process, in: directory)
            name = try SocketName(of: path.text)
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
    func unlink() { name.remove() }
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
