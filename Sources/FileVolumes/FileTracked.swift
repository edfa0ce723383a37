internal import Glibc
internal import Synchronization
package import Volumes

// A file or block device that is moved beneath the clients of an export.
extension FileSource: TrackableVolume {
    static let movedSuffix = ".godwit-moved"

    package func lastingIdentity() async throws(VolumeError) -> String {
        try await blocking { () throws(VolumeError) in try Self.identity(of: try self.opened(), at: self.path) }
    }

    /// By the time of the file's last change of any kind, which unlike that of its last write nobody can set.
    ///
    /// A block device may be written under several names, and by a file system; a file of a network, by the clock of
    /// another host.
    package func lastChange() async throws(VolumeError) -> Duration? {
        try await blocking { () throws(VolumeError) in
            let file = try self.opened()
            let status = try file.status()
            guard status.kind == .regular, Self.goesByOurClock(file) else { return nil }
            return status.changed
        }
    }

    /// File systems whose times are this kernel's own.
    private static let localFileSystems: Set<Substring> = ["bcachefs", "btrfs", "ext4", "f2fs", "tmpfs", "xfs", "zfs"]

    /// proc(5): /proc/PID/fdinfo tells the mount that a file was opened on, and /proc/PID/mountinfo of what type it is.
    private static func goesByOurClock(_ file: Descriptor) -> Bool {
        let lines = wholeText(of: "/proc/self/fdinfo/\(file.number)").split(separator: "\n")
        guard let line = lines.first(where: { $0.hasPrefix("mnt_id:") }), let mount = line.split(separator: "\t").last
        else { return false }
        for line in wholeText(of: "/proc/self/mountinfo").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.first == mount, let dash = words.firstIndex(of: "-"), dash + 1 < words.count else { continue }
            return localFileSystems.contains(words[dash + 1])
        }
        return false
    }

    /// A file can be kept as it is, of which nothing then says that it was moved, or get another name; a block device
    /// can only be kept.
    package var retirements: Set<Retirement> {
        let status = try? FileStatus.of(path, followingLinks: true, title: address)
        return status?.kind == .blockDevice ? [.keep] : [.keep, .rename]
    }

    package func retire(to target: String, _ rest: Retirement) async throws(VolumeError) {
        guard retirements.contains(rest) else {
            throw VolumeError(
                .unsupported, "retire", on: address, reason: "it can't be given the end '\(rest.rawValue)'",
                advice: "--source keep leaves it as it is.")
        }
        guard rest == .rename else { return }
        try await blocking { () throws(VolumeError) in
            let moved = self.path + Self.movedSuffix
            do throws(VolumeError) {
                try renameWithoutReplacing(self.path, to: moved, title: self.address)
            } catch let error where error.kind == .exists {
                throw VolumeError(
                    .exists, error.operation, on: moved, reason: "something of that name is there already",
                    advice: "Move it out of the way, then give the command again.")
            }
        }
    }
}

/// Of a file that tells no size; empty if it can't be read.
private func wholeText(of path: String) -> String {
    guard let stream = unsafe fopen(path, "re") else { return "" }
    defer { unsafe fclose(stream) }
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let got = unsafe fread(&part, 1, part.count, stream)
        guard got > 0 else { return String(decoding: bytes, as: UTF8.self) }
        bytes += part.prefix(got)
    }
}
