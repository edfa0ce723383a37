import Conformance
import FileVolumes
import Foundation
import Glibc
import Testing
import Volumes

@Suite struct FileTargetTests {
    private static func description(_ size: ByteCount) -> VolumeDescription {
        VolumeDescription(identity: "made for a test", size: size)
    }

    private static func begun(_ path: String, _ size: ByteCount, record: String = "r") async throws -> FileTarget {
        let target = FileTarget(path: path)
        try await target.make(as: description(size), record: record)
        try await target.own()
        return target
    }

    @Test func `until it is finished it stands under other names`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), .mebibytes(1))
        #expect(try scratch.names == ["v.godwit-holder", "v.godwit-record", "v.godwit-unfinished"])
        #expect(try scratch.bytes(of: "v.godwit-record") == Array("r".utf8))
        try await target.commit(as: Self.description(.mebibytes(1)))
        #expect(try scratch.names == ["v", "v.godwit-record"])
        try await target.forget()
        #expect(try scratch.names == ["v"])
        await target.close()
    }

    @Test func `a sparse file stays sparse on the disk`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), .gibibytes(4))
        try await target.write([UInt8](repeating: 1, count: 65_536), at: 3 << 30)
        try await target.flush()
        func allocated(_ name: String) -> Int {
            var status = stat()
            return unsafe stat(scratch.file(name), &status) == 0 ? Int(status.st_blocks) * 512 : -1
        }
        #expect(allocated("v.godwit-unfinished") < 200_000)
        try await target.zero(Extent(offset: ByteOffset(3 << 30), length: ByteCount(65_536)))
        try await target.commit(as: Self.description(.gibibytes(4)))
        #expect(allocated("v") < 65_536)
        await target.close()
    }

    @Test func `a write past the end is refused, and makes nothing longer`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), ByteCount(1000))
        await #expect(
            performing: { try await target.write([1, 2], at: 999) },
            throws: { ($0 as? VolumeError)?.kind == .failed })
        await #expect(
            performing: { try await target.zero(Extent(offset: ByteOffset(999), length: ByteCount(2))) },
            throws: { ($0 as? VolumeError)?.kind == .failed })
        #expect(try await target.describe().size == ByteCount(1000))
        await target.close()
    }

    @Test func `a missing directory is an obstacle`() async throws {
        let scratch = try Scratch()
        let target = FileTarget(path: scratch.file("no/where/v"))
        #expect(try await target.obstacles(to: Self.description(ByteCount(1)), room: .zero).map(\.kind) == [.missing])
        await #expect(
            performing: { try await target.make(as: Self.description(ByteCount(1)), record: "r") },
            throws: { ($0 as? VolumeError)?.kind == .missing })
    }

    @Test(.enabled(if: geteuid() != 0, "root may write to every directory"))
    func `a directory that may not be written to is an obstacle`() async throws {
        let scratch = try Scratch()
        #expect(unsafe chmod(scratch.path, 0o500) == 0)
        let target = FileTarget(path: scratch.file("v"))
        #expect(try await target.obstacles(to: Self.description(ByteCount(1)), room: .zero).map(\.kind) == [.forbidden])
        #expect(unsafe chmod(scratch.path, 0o700) == 0)
    }

    @Test func `too little room is an obstacle`() async throws {
        let scratch = try Scratch()
        let target = FileTarget(path: scratch.file("v"))
        let obstacles = try await target.obstacles(to: Self.description(ByteCount(1)), room: ByteCount(1 << 60))
        #expect(obstacles.map(\.kind) == [.full])
    }

    @Test func `a name that is too long is said to be`() async throws {
        let scratch = try Scratch()
        // 240 bytes are a fine name for a file, but not with ".godwit-unfinished".
        let target = FileTarget(path: scratch.file(String(repeating: "v", count: 240)))
        #expect(
            try await target.obstacles(to: Self.description(ByteCount(1)), room: .zero).map(\.kind) == [.unsupported])
    }

    @Test func `a file without a record belongs to a move that died at its start`() async throws {
        let scratch = try Scratch()
        try scratch.make("v.godwit-unfinished", [])
        let target = FileTarget(path: scratch.file("v"))
        #expect(try await target.state() == .unfinished(record: ""))
        try await target.discard()
        #expect(try scratch.names.isEmpty)
    }

    @Test func `a file of that name with bytes in it, and neither record nor holder, is a stranger's`() async throws {
        let scratch = try Scratch()
        try scratch.make("v.godwit-unfinished", [1])
        #expect(try await FileTarget(path: scratch.file("v")).state() == .foreign)
    }

    @Test func `an owner that died leaves its name, and is found`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), ByteCount(4096))
        #expect(try scratch.names == ["v.godwit-holder", "v.godwit-record", "v.godwit-unfinished"])
        await target.close()
        #expect(try scratch.names == ["v.godwit-record", "v.godwit-unfinished"])
        try scratch.make("v.godwit-holder", Array("process 1\n".utf8))
        #expect(try await target.own())
        try await target.commit(as: Self.description(ByteCount(4096)))
        #expect(try scratch.names == ["v", "v.godwit-record"])
    }

    @Test func `a record without a file can be discarded`() async throws {
        let scratch = try Scratch()
        try scratch.make("v.godwit-record", Array("r".utf8))
        let target = FileTarget(path: scratch.file("v"))
        #expect(try await target.state() == .unfinished(record: "r"))
        await #expect(performing: { try await target.own() }, throws: { ($0 as? VolumeError)?.kind == .missing })
        try await target.discard()
        #expect(try scratch.names.isEmpty)
    }

    @Test func `a record that was half written when the power failed is not read`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), ByteCount(4096), record: "whole")
        try scratch.make("v.godwit-record-new", Array("half of one that is longer than the next".utf8))
        #expect(try await target.state() == .unfinished(record: "whole"))
        try await target.save(record: "next")
        #expect(try scratch.names == ["v.godwit-holder", "v.godwit-record", "v.godwit-unfinished"])
        #expect(try await target.state() == .unfinished(record: "next"))
        await target.close()
    }

    /// Where the file system can't rename without replacing, the commit is a link, and then the old name's removal.
    @Test func `a commit that died between the link and the removal is a commit`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), ByteCount(4096))
        await target.close()
        #expect(unsafe link(scratch.file("v.godwit-unfinished"), scratch.file("v")) == 0)
        let next = FileTarget(path: scratch.file("v"))
        #expect(try await next.state() == .committed(record: "r"))
        try await next.commit(as: Self.description(ByteCount(4096)))
        #expect(try scratch.names == ["v", "v.godwit-record"])
        try await next.forget()
        #expect(try scratch.names == ["v"])
    }

    @Test func `a link that leads nowhere is somebody's all the same`() async throws {
        let scratch = try Scratch()
        #expect(unsafe symlink("nowhere", scratch.file("v")) == 0)
        let target = FileTarget(path: scratch.file("v"))
        #expect(try await target.state() == .foreign)
        await #expect(
            performing: { try await target.make(as: Self.description(ByteCount(1)), record: "r") },
            throws: { ($0 as? VolumeError)?.kind == .exists })
    }

    @Test func `a finished volume is not discarded`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), ByteCount(4096))
        try await target.commit(as: Self.description(ByteCount(4096)))
        await #expect(performing: { try await target.discard() }, throws: { ($0 as? VolumeError)?.kind == .exists })
        try await target.forget()
        try await target.discard()
        #expect(try scratch.names == ["v"])
    }

    @Test func `the owner's lock keeps QEMU's readers and writers away`() async throws {
        let scratch = try Scratch()
        let target = try await Self.begun(scratch.file("v"), ByteCount(4096))
        let file = unsafe open(scratch.file("v.godwit-unfinished"), O_RDWR | O_CLOEXEC)
        defer { close(file) }
        var lock = flock(l_type: Int16(F_RDLCK), l_whence: Int16(SEEK_SET), l_start: 100, l_len: 1, l_pid: 0)
        #expect(unsafe fcntl(file, F_OFD_SETLK, &lock) == -1)
        await target.close()
        #expect(unsafe fcntl(file, F_OFD_SETLK, &lock) == 0)
    }

    @Test(.enabled(if: SmallFileSystem.isPossible, "a tmpfs can only be mounted by root"))
    func `a full file system is said to be full, and the move can go on when there is room`() async throws {
        let small = try SmallFileSystem(megabytes: 1)
        let path = small.path + "/v"
        let target = try await Self.begun(path, .mebibytes(8))
        #expect(
            try await target.obstacles(to: Self.description(.mebibytes(8)), room: .mebibytes(8)).map(\.kind) == [.full])
        await #expect(
            performing: {
                for piece in 0..<8 {
                    try await target.write([UInt8](repeating: 1, count: 1 << 20), at: piece << 20)
                }
            }, throws: { ($0 as? VolumeError)?.kind == .full })
        // A record is small, but has no room either: the one before stays.
        await #expect(
            performing: { try await target.save(record: String(repeating: "x", count: 100_000)) },
            throws: { ($0 as? VolumeError)?.kind == .full })
        #expect(try await target.state() == .unfinished(record: "r"))
        try await target.zero(Extent(offset: .zero, length: .mebibytes(8)))
        try await target.save(record: "with room")
        #expect(try await target.state() == .unfinished(record: "with room"))
        await target.close()
        try Data(repeating: 1, count: 1000).write(to: URL(filePath: small.path + "/other"))
        let filler = unsafe open(small.path + "/filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        let bytes = [UInt8](repeating: 1, count: 4096)
        while unsafe Glibc.write(filler, bytes, bytes.count) > 0 {}
        close(filler)
        await #expect(performing: { try await target.own() }, throws: { ($0 as? VolumeError)?.kind == .full })
        try await target.discard()
        #expect(try FileManager.default.contentsOfDirectory(atPath: small.path).sorted() == ["filler", "other"])
    }

    @Test(.enabled(if: BlockDevice.isPossible, "a loop device can only be made by root"))
    func `a block device is a source of its size, and no target`() async throws {
        let scratch = try Scratch()
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        bytes[777_777] = 7
        try scratch.make("disk", bytes)
        let device = try BlockDevice(backedBy: scratch.file("disk"))
        let source = FileSource(path: device.path)
        #expect(try await source.describe().size == .mebibytes(1))
        #expect(try await source.obstacles().isEmpty)
        let reader = try await source.open(.head)
        #expect(reader.means == .everything)
        let all = Extent(offset: .zero, length: .mebibytes(1))
        #expect(try await reader.extents(in: all, since: nil) == ExtentSet([all]))
        #expect(try await reader.bytes(in: 0..<1 << 20) == bytes)
        #expect(try await source.isUnchanged(since: nil))
        let file = unsafe open(device.path, O_RDWR | O_CLOEXEC)
        #expect(unsafe pwrite(file, [8], 1, 0) == 1)
        #expect(fsync(file) == 0)
        close(file)
        #expect(try await !source.isUnchanged(since: nil))
        await reader.close()

        let target = FileTarget(path: device.path)
        #expect(
            try await target.obstacles(to: Self.description(.mebibytes(1)), room: .zero).map(\.kind) == [.unsupported])
        await #expect(
            performing: { try await target.make(as: Self.description(.mebibytes(1)), record: "r") },
            throws: { ($0 as? VolumeError)?.kind == .unsupported })
    }
}

/// A tmpfs of a few MiB.
private final class SmallFileSystem {
    let scratch: Scratch
    var path: String { scratch.path }

    static let isPossible = (try? SmallFileSystem(megabytes: 1)) != nil

    init(megabytes: Int) throws {
        scratch = try Scratch()
        guard unsafe mount("tmpfs", scratch.path, "tmpfs", 0, "size=\(megabytes)m") == 0 else {
            throw POSIXError(.EPERM)
        }
    }

    deinit { unsafe umount2(scratch.path, Int32(MNT_DETACH)) }
}

/// A loop device.
private final class BlockDevice {
    let path: String

    static let isPossible: Bool = {
        guard let scratch = try? Scratch() else { return false }
        try? scratch.make("disk", [UInt8](repeating: 0, count: 4096))
        return (try? BlockDevice(backedBy: scratch.file("disk"))) != nil
    }()

    init(backedBy file: String) throws {
        path = try Self.run("losetup", "--find", "--show", file)
    }

    deinit { _ = try? Self.run("losetup", "--detach", path) }

    private static func run(_ arguments: String...) throws -> String {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw POSIXError(.EPERM) }
        return String(decoding: text, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
