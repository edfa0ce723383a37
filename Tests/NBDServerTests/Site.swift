import Foundation
import NBDServer
import Synchronization
import Testing
import Volumes

/// A disk in memory that does what a test wants: waits, fails, counts.
final class TestDisk: Disk {
    private struct State {
        var isHeld = false
        var waiting: [CheckedContinuation<Void, Never>] = []
        var running = 0
        var mostRunning = 0
        var log: [String] = []
        var failure: VolumeError?
    }

    let inner: any Disk
    let zeroesFast: Bool
    private let state = Mutex(State())

    init(size: ByteCount = .mebibytes(8), isWritable: Bool = true, zeroesFast: Bool = true) async throws {
        let place = MemoryVolume.Place()
        place.make(size: size)
        inner = try await MemoryVolume(at: place).attach(.head, isWritable: isWritable)
        self.zeroesFast = zeroesFast
    }

    var isWritable: Bool { inner.isWritable }
    var blockSize: ByteCount { inner.blockSize }
    var size: ByteCount { inner.size }
    var means: ExtentMeans { inner.means }
    var extentUnit: ByteCount { inner.extentUnit }
    var tellsHolesFast: Bool { inner.tellsHolesFast }
    let caches = true

    /// What was done so far: "write 0+4096", "flush".
    var log: [String] { state.withLock(\.log) }
    /// Requests that the disk is at, waiting ones among them.
    var running: Int { state.withLock(\.running) }
    var mostRunning: Int { state.withLock(\.mostRunning) }

    /// From now on every request waits for `release`.
    func hold() { state.withLock { $0.isHeld = true } }

    func release() {
        let waiting = state.withLock { state in
            state.isHeld = false
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// From now on every request fails.
    func fail(_ kind: VolumeError.Kind?) {
        state.withLock { state in
            state.failure = kind.map { VolumeError($0, "test", on: "a disk", reason: "planted") }
        }
    }

    private func run<Value>(
        _ what: String, _ body: () async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        state.withLock { state in
            state.running += 1
            state.mostRunning = max(state.mostRunning, state.running)
        }
        defer { state.withLock { $0.running -= 1 } }
        await withCheckedContinuation { continuation in
            let goesOn = state.withLock { state in
                if state.isHeld { state.waiting.append(continuation) }
                return !state.isHeld
            }
            if goesOn { continuation.resume() }
        }
        if let failure = state.withLock(\.failure) { throw failure }
        let value = try await body()
        state.withLock { $0.log.append(what) }
        return value
    }

    private func name(_ operation: String, _ extent: Extent) -> String {
        "\(operation) \(extent.offset.bytes)+\(extent.length.bytes)"
    }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try await inner.extents(in: range, since: base)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))
        try await run(name("read", extent)) { () throws(VolumeError) in
            unsafe try await inner.read(into: buffer, at: offset)
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        try await run(name("write", extent)) { () throws(VolumeError) in
            unsafe try await inner.write(bytes, at: offset)
        }
    }

    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        try await run(name(keepsRoom ? "zero with room" : "zero", extent)) { () throws(VolumeError) in
            try await inner.zero(extent, keepsRoom: keepsRoom)
        }
    }

    func discard(_ extent: Extent) async throws(VolumeError) {
        try await run(name("discard", extent)) { () throws(VolumeError) in try await inner.discard(extent) }
    }

    func cache(_ extent: Extent) async throws(VolumeError) {
        try await run(name("cache", extent)) { () throws(VolumeError) in }
    }

    func flush() async throws(VolumeError) {
        try await run("flush") { () throws(VolumeError) in try await inner.flush() }
    }

    func close() async {}
}

/// A directory that is gone with its last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: "godwit-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }
}

/// A server for the time of a test.
struct Site {
    let scratch: Scratch
    let socket: String
    let exports: [Export]
    var limits = ServerLimits()

    init(_ exports: [Export]) throws {
        scratch = try Scratch()
        socket = scratch.file("s")
        self.exports = exports
    }

    init(_ disk: any Disk) throws { try self.init([Export(name: "disk", disk: disk)]) }

    /// Runs `body`, which blocks, while the server runs.
    func serve<Value: Sendable>(_ body: @escaping @Sendable (String) throws -> Value) async throws -> Value {
        let socket = socket
        return try await server.serve(at: .unix(path: socket)) { _ in await onThread { try body(socket) } }.get()
    }

    var server: ExportServer { ExportServer(exports, limits: limits) }
}

/// Runs what blocks on a thread of its own.
func onThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
) async -> Result<Value, any Error> {
    await withCheckedContinuation { continuation in
        Thread.detachNewThread { continuation.resume(returning: Result { try body() }) }
    }
}

/// Waits for something that another thread does.
func waitUntil(_ holds: () -> Bool) throws {
    let deadline = ContinuousClock.now + .seconds(20)
    while !holds() {
        guard ContinuousClock.now < deadline else { throw RawClient.TooLate() }
        usleep(1000)
    }
}
