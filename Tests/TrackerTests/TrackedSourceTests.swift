import Conformance
import FileVolumes
import Foundation
import Testing
import Volumes

@testable import Tracker

/// A tracked volume as a move sees it.
struct TrackedSourceTests {
    private let scratch: Scratch
    private let file: String

    init() throws {
        scratch = try Scratch()
        file = scratch.file("disk.raw")
        try Data(repeating: 7, count: 1 << 20).write(to: URL(filePath: file))
    }

    private func open() async throws -> TrackedSource {
        try await Tracker.open(
            FileSource(path: file), marksIn: scratch.path, granularity: Granularity(Granularity.smallest)!)
    }

    private func write(_ byte: UInt8, at offset: Int, _ source: TrackedSource) throws {
        source.marks.begin((offset..<offset + 1).extent)
        try scribble(byte, at: offset)
        source.marks.didChange((offset..<offset + 1).extent)
    }

    private func scribble(_ byte: UInt8, at offset: Int) throws {
        let handle = try FileHandle(forUpdating: URL(filePath: file))
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: [byte])
        try handle.close()
    }

    @Test func `a file's states are its head and what was changed since`() async throws {
        let source = try await open()
        let identity = try await source.describe().identity
        let first = try #require(try await source.freeze(as: "a"))
        let all = (0..<1 << 20).extent
        #expect(try await source.isUnchanged(since: first))
        try write(1, at: 5000, source)
        #expect(try await !source.isUnchanged(since: first))
        let second = try #require(try await source.freeze(as: "b"))
        try write(2, at: 9000, source)
        #expect(try await source.describe().identity == identity)
        #expect(try await source.standing().transients == [first, second])
        let reader = try await source.open(.snapshot(second))
        #expect(try await reader.extents(in: all, since: first) == ExtentSet(1..<2))
        #expect(try await reader.extents(in: all, since: nil) == ExtentSet([all]))
        var bytes = [UInt8](repeating: 0, count: 1)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1, alignment: 1)
        defer { unsafe buffer.deallocate() }
        unsafe try await reader.read(into: buffer, at: ByteOffset(9000))
        bytes[0] = unsafe buffer[0]
        #expect(bytes == [2])
        #expect(source.changes(since: second, in: all) == ExtentSet(2..<3))
        try await source.thaw("a")
        let holds = (try await source.holds(first), try await source.holds(second))
        #expect(holds == (false, true))
        await #expect { try await reader.extents(in: all, since: first) } throws: {
            ($0 as? VolumeError)?.kind == .missing
        }
        await #expect { try await source.open(.snapshot(first)) } throws: { ($0 as? VolumeError)?.kind == .missing }
        try await source.release(from: "t")
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["disk.raw"])
    }

    @Test func `marks of a file are gone by until somebody else changes it`() async throws {
        let state = try await begun()
        try await goOn(from: state)
        // Times go on with the timer, every 1 to 10 ms.
        usleep(20_000)
        try scribble(3, at: 0)
        // Who sets the time of the last write back isn't taken for one who wrote nothing.
        try FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSince1970: 1)], ofItemAtPath: file)
        let source = try await whileBusy { try await open() }
        #expect(source.marks.finding == .anew("the volume was changed since by somebody else"))
        #expect(source.marks.held == [])
    }

    private func begun() async throws -> Snapshot? {
        let source = try await open()
        #expect(source.marks.finding == .anew(nil))
        let state = try await source.freeze(as: "a")
        try write(1, at: 5000, source)
        await #expect { try await open() } throws: { ($0 as? VolumeError)?.kind == .busy }
        return state
    }

    private func goOn(from state: Snapshot?) async throws {
        let source = try await whileBusy { try await open() }
        try #require(source.marks.finding == .trusted, "on a file system whose times aren't the kernel's own?")
        let same = try await source.freeze(as: "a")
        #expect(same == state)
        #expect(source.marks.dirty(in: (0..<1 << 20).extent) == ExtentSet(1..<2))
    }

    @Test func `a file that was moved gets another name, or stays`() async throws {
        let source = try await open()
        try await source.retire(to: "there", .keep)
        #expect(FileManager.default.fileExists(atPath: file))
        await #expect { try await source.retire(to: "there", .trash) } throws: {
            ($0 as? VolumeError)?.kind == .unsupported
        }
        try Data().write(to: URL(filePath: file + ".godwit-moved"))
        await #expect { try await source.retire(to: "there", .rename) } throws: {
            ($0 as? VolumeError)?.kind == .exists
        }
        try FileManager.default.removeItem(atPath: file + ".godwit-moved")
        try await source.retire(to: "there", .rename)
        #expect(!FileManager.default.fileExists(atPath: file))
        #expect(FileManager.default.contents(atPath: file + ".godwit-moved")?.count == 1 << 20)
    }
}
