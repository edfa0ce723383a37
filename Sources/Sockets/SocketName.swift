internal import Glibc
package import Volumes

/// The name that a listening Unix socket has in the file system, and this very file: another's of the same name, made
/// later, is never taken away.
package struct SocketName: Sendable {
    package let path: String
    private let device: UInt
    private let inode: UInt

    /// - Parameter path: Of a socket that this process has just bound.
    package init(of path: String) throws(VolumeError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { throw VolumeError(errno: errno, "lstat", on: path) }
        (self.path, device, inode) = (path, status.st_dev, status.st_ino)
    }

    /// Takes the name away, unless it is somebody else's by now.
    package func remove() {
        var status = stat()
        guard unsafe lstat(path, &status) == 0, status.st_dev == device, status.st_ino == inode else { return }
        _ = unsafe unlink(path)
    }

    /// Whether a socket has that name on which nobody listens: its process has died.
    ///
    /// - Throws: If that can't be told.
    package static func isDead(_ path: String) throws(VolumeError) -> Bool {
        var status = stat()
        guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return false }
        guard let descriptor = try UnixSocket.connected(to: path) else { return true }
        close(descriptor)
        return false
    }
}
