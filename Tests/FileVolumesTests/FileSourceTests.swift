import Conformance
import FileVolumes
import Foundation
import Testing
import Volumes

@Suite struct FileSourceTests {
    @Test func `a missing file is missing`() async throws {
        let scratch = try Scratch()
        let source = FileSource(path: scratch.file("v"))
        await #expect(
            performing: { _ = try await source.obstacles() }, throws: { ($0 as? VolumeError)?.kind == .missing })
        await #expect(
            performing: { _ = try await source.describe() }, throws: { ($0 as? VolumeError)?.kind == .missing })
        await #expect(
            performing: { _ = try await source.open(.head) }, throws: { ($0 as? VolumeError)?.kind == .missing })
    }

    @Test func `a directory and a pipe are no volumes, and nobody waits for the pipe`() async throws {
        let scratch = try Scratch()
        #expect(unsafe mkfifo(scratch.file("pipe"), 0o600) == 0)
        for path in [scratch.path, scratch.file("pipe")] {
            let source = FileSource(path: path)
            #expect(try await source.obstacles().map(\.kind) == [.unsupported])
            await #expect(
                performing: { _ = try await source.open(.head) }, throws: { ($0 as? VolumeError)?.kind == .unsupported }
            )
        }
    }

    @Test(.enabled(if: geteuid() != 0, "root may read every file"))
    func `a file that may not be read is forbidden`() async throws {
        let scratch = try Scratch()
        try scratch.make("v", [1])
        #expect(unsafe chmod(scratch.file("v"), 0) == 0)
        #expect(try await FileSource(path: scratch.file("v")).obstacles().map(\.kind) == [.forbidden])
    }

    @Test func `a lock for writing on all of the file is an obstacle that names its holder`() async throws {
        let scratch = try Scratch()
        try scratch.make("v", [1])
        let source = FileSource(path: scratch.file("v"))
        let file = unsafe open(scratch.file("v"), O_RDWR | O_CLOEXEC)
        var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
        #expect(unsafe fcntl(file, F_OFD_SETLK, &lock) == 0)
        let obstacles = try await source.obstacles()
        #expect(obstacles.map(\.kind) == [.busy])
        #expect(obstacles.first?.fact.contains("process \(getpid()) (") == true, "\(obstacles)")
        // Closing alone would not do while another test starts a process: until that becomes its program, it holds
        // what this one has open.
        lock.l_type = Int16(F_UNLCK)
        #expect(unsafe fcntl(file, F_OFD_SETLK, &lock) == 0)
        close(file)
        #expect(try await source.obstacles().isEmpty)
    }

    /// The bytes that QEMU 8.2 locks on a raw image (`RAW_LOCK_PERM_BASE`, 100): reading is 100, writing 101.
    @Test(arguments: [(100, false), (101, true), (103, true), (201, false)])
    func `QEMU's lock is an obstacle if it is a writer's`(byte: Int, isWriter: Bool) async throws {
        let scratch = try Scratch()
        try scratch.make("v", [1])
        let file = unsafe open(scratch.file("v"), O_RDWR | O_CLOEXEC)
        defer { close(file) }
        var lock = flock(l_type: Int16(F_RDLCK), l_whence: Int16(SEEK_SET), l_start: byte, l_len: 1, l_pid: 0)
        #expect(unsafe fcntl(file, F_OFD_SETLK, &lock) == 0)
        #expect(try await FileSource(path: scratch.file("v")).obstacles().map(\.kind) == (isWriter ? [.busy] : []))
    }

    @Test func `a file that shrank under its reader is damaged, not zeros`() async throws {
        let scratch = try Scratch()
        try scratch.make("v", [UInt8](repeating: 7, count: 10_000))
        let reader = try await FileSource(path: scratch.file("v")).open(.head)
        #expect(unsafe truncate(scratch.file("v"), 5000) == 0)
        await #expect(
            performing: { _ = try await reader.bytes(in: 0..<10_000) },
            throws: { ($0 as? VolumeError)?.kind == .damaged })
        await reader.close()
    }

    @Test func `another file under the same name, or another time or size, is a change`() async throws {
        let scratch = try Scratch()
        try scratch.make("v", [1, 2, 3])
        let path = scratch.file("v")
        let source = FileSource(path: path)
        let identity = try await source.describe().identity
        #expect(try await source.isUnchanged(since: nil))
        // As an editor saves: the bytes are the same, the file isn't.
        try scratch.make("w", [1, 2, 3])
        #expect(unsafe rename(scratch.file("w"), path) == 0)
        #expect(try await !source.isUnchanged(since: nil))
        #expect(try await source.describe().identity != identity)

        let resized = FileSource(path: path)
        #expect(try await resized.isUnchanged(since: nil))
        #expect(unsafe truncate(path, 2) == 0)
        #expect(try await !resized.isUnchanged(since: nil))
    }

    @Test func `a file made anew has another identity, though it gets the number of the one removed`() async throws {
        let scratch = try Scratch()
        var identities: Set<String> = []
        for _ in 0..<20 {
            try scratch.make("v", [1])
            identities.insert(try await FileSource(path: scratch.file("v")).describe().identity)
            #expect(unsafe unlink(scratch.file("v")) == 0)
        }
        #expect(identities.count == 20)
    }

    @Test func `a link's file has the file's identity`() async throws {
        let scratch = try Scratch()
        try scratch.make("v", [1])
        #expect(unsafe symlink("v", scratch.file("link")) == 0)
        let (direct, linked) = (FileSource(path: scratch.file("v")), FileSource(path: scratch.file("link")))
        #expect(try await direct.describe().identity == linked.describe().identity)
        #expect(try await direct.describe().identity.hasPrefix("file:" + scratch.file("v") + ":"))
    }

    @Test func `an empty file is a volume of no bytes`() async throws {
        let scratch = try Scratch()
        try scratch.make("v", [])
        let source = FileSource(path: scratch.file("v"))
        #expect(try await source.describe().size == .zero)
        let reader = try await source.open(.head)
        #expect(try await reader.extents(in: Extent(offset: .zero, length: .mebibytes(1)), since: nil).isEmpty)
        #expect(reader.means == .fileHoles)
        await reader.close()
    }
}
