import Synchronization
import Volumes

/// A disk in memory that does what a test wants: waits, fails, tells what it did.
final class HeldDisk: Disk {
    private struct State {
        var held: Set<String> = []
        var waiting: [CheckedContinuation<Void, Never>] = []
        var running: [String] = []
        var log: [String] = []
        var failure: VolumeError?
        var isClosed = false
    }

    let place = MemoryVolume.Place()
    let blockSize: ByteCount
    let isWritable: Bool
    private let inner: any Disk
    private let state = Mutex(State())

    init(size: ByteCount = .mebibytes(1), blockSize: ByteCount = ByteCount(1), isWritable: Bool = true) async throws {
        place.make(size: size)
        (self.blockSize, self.isWritable) = (blockSize, isWritable)
        inner = try await MemoryVolume(at: place).attach(.head, isWritable: true)
    }

    var size: ByteCount { inner.size }
    var means: ExtentMeans { inner.means }
    var extentUnit: ByteCount { inner.extentUnit }
    let zeroesFast = true
    let readsAtOnce = true

    /// What was done so far, and what is under way: "write 0+4096", "flush".
    var log: [String] { state.withLock(\.log) }
    var running: [String] { state.withLock(\.running) }
    var isClosed: Bool { state.withLock(\.isClosed) }

    /// From now on requests of these kinds ("write", "read", "flush") wait for `release`.
    func hold(_ kinds: String...) { state.withLock { $0.held = Set(kinds) } }

    func release() {
        let waiting = state.withLock { state in
            state.held = []
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// From now on every request fails.
    func fail() {
        state.withLock { $0.failure = VolumeError(.failed, "test", on: "a disk", reason: "it was to fail") }
    }

    private func run(
        _ kind: String, _ extent: Extent?, _ body: () async throws(VolumeError) -> Void
    ) async throws(VolumeError) {
        let what = extent.map { "\(kind) \($0.offset.bytes)+\($0.length.bytes)" } ?? kind
        state.withLock { $0.running.append(what) }
        defer {
            state.withLock { state in _ = state.running.firstIndex(of: what).map { state.running.remove(at: $0) } }
        }
        await withCheckedContinuation { continuation in
            let goesOn = state.withLock { state in
                guard state.held.contains(kind) else { return true }
                state.waiting.append(continuation)
                return false
            }
            if goesOn { continuation.resume() }
        }
        if let failure = state.withLock(\.failure) { throw failure }
        try await body()
        state.withLock { $0.log.append(what) }
    }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try await inner.extents(in: range, since: base)
    }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try await run("read", Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))) {
            () throws(VolumeError) in unsafe try await inner.read(into: buffer, at: offset)
        }
    }
    func readAtOnce(
        into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset
    ) throws(VolumeError) -> Bool {
        state.withLock { $0.log.append("read at once") }
        return true
    }
    func writeAtOnce(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) throws(VolumeError) -> Bool {
        state.withLock { $0.log.append("write at once") }
        return true
    }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try await run("write", Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))) {
            () throws(VolumeError) in unsafe try await inner.write(bytes, at: offset)
        }
    }
    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        try await run("zero", extent) { () throws(VolumeError) in try await inner.zero(extent, keepsRoom: keepsRoom) }
    }
    func discard(_ extent: Extent) async throws(VolumeError) {
        try await run("discard", extent) { () throws(VolumeError) in try await inner.discard(extent) }
    }
    func flush() async throws(VolumeError) {
        try await run("flush", nil) { () throws(VolumeError) in try await inner.flush() }
    }
    func close() async { state.withLock { $0.isClosed = true } }
}

/// A watch that writes down what it is told, and which disk did what when.
final class Witness: ChangeWatch {
    private struct State {
        var told: [String] = []
        var refuses = false
    }
    private let disk: HeldDisk
    private let state = Mutex(State())

    init(_ disk: HeldDisk) { self.disk = disk }

    /// "will 0+4096 after 0 requests", "did 0+4096 after 1".
    var told: [String] { state.withLock(\.told) }
    var refuses: Bool {
        get { state.withLock(\.refuses) }
        set { state.withLock { $0.refuses = newValue } }
    }

    private func note(_ word: String, _ extent: Extent) {
        let done = disk.log.count
        state.withLock { $0.told.append("\(word) \(extent.offset.bytes)+\(extent.length.bytes) after \(done)") }
    }

    func willChange(_ extent: Extent) async throws(VolumeError) {
        note("will", extent)
        if refuses { throw VolumeError(.failed, "watch", on: "a disk", reason: "it was to fail") }
    }
    func didChange(_ extent: Extent) { note("did", extent) }
    func dirty(in range: Extent) -> ExtentSet { ExtentSet() }
}

struct TooLate: Error {}

/// Waits for something that another task does.
func waitUntil(_ limit: Duration = .seconds(20), _ holds: () async -> Bool) async throws {
    let deadline = ContinuousClock.now + limit
    while await !holds() {
        guard ContinuousClock.now < deadline else { throw TooLate() }
        try await Task.sleep(for: .milliseconds(1))
    }
}

/// Long enough for whatever doesn't wait to have gone on.
func aWhile() async throws { try await Task.sleep(for: .milliseconds(30)) }
