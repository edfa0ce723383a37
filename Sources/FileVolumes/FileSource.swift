internal import Glibc
internal import Synchronization
package import Volumes

/// A raw file or a block device to move away from: a head without snapshots, which must not be written meanwhile.
package final class FileSource: SourceVolume {
    package let address: String
    let path: String
    /// How the volume was when this value first saw it.
    private let first = Mutex<Trace?>(nil)

    package init(path: String) {
        self.path = path
        address = "file:" + path
    }

    package func standing() async throws(VolumeError) -> Standing {
        Standing(size: try await describe().size, snapshots: [], transients: [])
    }

    /// What every write to a file leaves behind.
    private struct Trace: Equatable {
        let inode: UInt64
        let device: UInt64
        let size: ByteCount
        /// On kernels before 6.13 it moves on with the timer, every 1 to 10 ms: two writes within share one time.
        let modified: Duration
        /// A block device's own count of what was written to it; its time says little, as it may be written under
        /// several names, and by a file system.
        let written: [Substring]
    }

    /// Blocks. Looks at the volume, and remembers the first look.
    private func look() throws(VolumeError) -> FileStatus {
        guard let status = try FileStatus.of(path, followingLinks: true, title: address) else {
            throw VolumeError(errno: ENOENT, "stat", on: address)
        }
        let trace = try trace(status)
        first.withLock { if $0 == nil { $0 = trace } }
        return status
    }

    private func trace(_ status: FileStatus) throws(VolumeError) -> Trace {
        guard status.kind == .blockDevice else {
            return Trace(
                inode: status.inode, device: status.device, size: status.size, modified: status.modified, written: [])
        }
        // Documentation/block/stat.rst: the fifth and seventh number count writes and what they wrote, the twelfth and
        // fourteenth discards.
        let numbers = contents(of: Self.system(status) + "/stat").split(whereSeparator: \.isWhitespace)
        let written = [4, 6, 11, 13].compactMap { $0 < numbers.count ? numbers[$0] : nil }
        // A device that may not be read has no size yet: that is an obstacle, said elsewhere.
        let size = try? Descriptor(path, O_RDONLY, title: address).size()
        return Trace(
            inode: 0, device: status.represents, size: size ?? .zero, modified: status.modified, written: written)
    }

    /// Where the kernel tells of a block device.
    static func system(_ status: FileStatus) -> String {
        // dev_t as glibc packs it (bits/sysmacros.h).
        let device = status.represents
        let major = (device >> 8) & 0xFFF | (device >> 32) & 0xFFFF_F000
        let minor = device & 0xFF | (device >> 12) & 0xFFFF_FF00
        return "/sys/dev/block/\(major):\(minor)"
    }

    /// Blocks.
    func opened(_ flags: Int32 = O_RDONLY) throws(VolumeError) -> Descriptor {
        let status = try look()
        guard status.kind == .regular || status.kind == .blockDevice else {
            throw VolumeError(
                .unsupported, "open", on: address, reason: "it is neither a regular file nor a block device")
        }
        return try Descriptor(path, flags, title: address)
    }

    package func describe() async throws(VolumeError) -> VolumeDescription {
        try await blocking { () throws(VolumeError) in
            let file = try self.opened()
            let trace = try self.trace(try self.look())
            // A file can't be frozen: changed, it is another source, and what was moved of the former is no start.
            let state = ([trace.size.bytes.description, "\(trace.modified)"] + trace.written.map(String.init))
            return VolumeDescription(
                identity: try Self.identity(of: file, at: self.path) + ":" + state.joined(separator: ":"),
                size: try file.size())
        }
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        guard revision == .head else { throw FileTarget.noSnapshots("open", on: address) }
        return try await blocking { () throws(VolumeError) in try FileReader(try self.opened()) }
    }

    package func obstacles() async throws(VolumeError) -> [Obstacle] {
        try await blocking { () throws(VolumeError) in
            let status = try self.look()
            guard status.kind == .regular || status.kind == .blockDevice else {
                let kind = status.kind == .directory ? "a directory" : "neither a regular file nor a block device"
                return [
                    Obstacle(
                        .unsupported, "\(self.address) is \(kind)", remedy: "Name a raw image file or a block device.")
                ]
            }
            let file: Descriptor
            do throws(VolumeError) {
                file = try Descriptor(self.path, O_RDONLY, title: self.address)
            } catch let error where error.kind == .forbidden {
                return [
                    Obstacle(
                        .forbidden, "\(self.address) can't be read by this user: \(error.reason)",
                        remedy: "Give the command as a user who may read it.")
                ]
            }
            guard try file.isLockedByWriter() else { return [] }
            return [
                Obstacle(
                    .busy, "\(self.address) is locked for writing by \(file.lockHolders())",
                    remedy: "Stop the writer first: what it writes during the move would be lost.")
            ]
        }
    }

    package func freeze(as name: String) async throws(VolumeError) -> Snapshot? { nil }

    package func thaw(_ name: String) async throws(VolumeError) {}

    package func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        try await blocking { () throws(VolumeError) in
            let now = try self.trace(try self.look())
            return self.first.withLock { $0 == now }
        }
    }

    // MARK: Identity

    /// Names this very file among all: by its path, its number and the time it was made, as the number of a removed
    /// file is soon given to another. Where the file system doesn't know that time, the device's number stands in,
    /// although the kernel may number devices anew at each start.
    ///
    /// A block device is named by its own serial number or UUID, where it has one.
    static func identity(of file: Descriptor, at path: String) throws(VolumeError) -> String {
        var real = path
        if let resolved = unsafe realpath(path, nil) {
            real = unsafe String(cString: resolved)
            unsafe free(resolved)
        }
        let status = try file.status()
        if status.kind == .blockDevice {
            let place = system(status)
            for name in ["dm/uuid", "wwid", "device/wwid", "device/serial"] {
                let text = contents(of: place + "/" + name)
                if let line = text.split(whereSeparator: \.isNewline).first { return "file:\(real):\(line)" }
            }
            return "file:\(real):\(status.represents)"
        }
        var more = statx()
        let asked = unsafe statx(file.number, "", AT_EMPTY_PATH, UInt32(STATX_BTIME), &more)
        let made = more.stx_btime
        return asked == 0 && more.stx_mask & UInt32(STATX_BTIME) != 0
            ? "file:\(real):\(status.inode):\(made.tv_sec).\(made.tv_nsec)"
            : "file:\(real):\(status.inode):\(status.device)"
    }
}
