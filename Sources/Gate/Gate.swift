internal import Convergence
internal import Synchronization
package import Volumes

/// A disk that can be exchanged beneath those who use it, between two of their requests.
///
/// It is shut at first, and has no disk. While it is shut, whatever changes the disk waits, and so do flushes; reads go
/// on, as long as there is a disk to read. Nobody is told "no": a request that waits is carried out on the disk that is
/// there when the gate opens.
package final class Gate: Sendable {
    /// A disk in its place, and who is at it.
    private struct Seat {
        let disk: any Disk
        let watch: (any ChangeWatch)?
        var readers = 0
    }

    private struct State {
        /// By their numbers: the newest is the one to use, those before it have readers yet.
        var seats: [Int: Seat] = [:]
        var newest = 0
        var isShut = true
        /// Changes and flushes under way, all on the newest.
        var changing = 0
        var waiting: [CheckedContinuation<Void, Never>] = []
        var whenStill: [CheckedContinuation<Void, Never>] = []
        var whenLeft: [Int: CheckedContinuation<Void, Never>] = [:]
        var pacer: Pacer?
        var shutSince: ContinuousClock.Instant?
        var longestShut = Duration.zero
        var hasOpened = false
        var isAbandoned = false
    }

    private let state = Mutex(State())
    private let clock = ContinuousClock()
    private let began = ContinuousClock.now

    package init() {}

    /// Whether it was ever open: before, there is nothing to be served.
    package var hasOpened: Bool { state.withLock { $0.hasOpened } }
    package var isShut: Bool { state.withLock { $0.isShut } }
    /// For how long changes had to wait at most, once it had been open.
    package var longestShut: Duration { state.withLock { $0.longestShut } }
    /// The disk in place.
    ///
    /// - Precondition: It has been open.
    private var disk: any Disk {
        state.withLock { state in
            guard let seat = state.seats[state.newest] else { preconditionFailure("served before it opened") }
            return seat.disk
        }
    }
    private var watch: (any ChangeWatch)? { state.withLock { $0.seats[$0.newest]?.watch } }

    // MARK: What is done with it

    /// Lets changes in no more. Those under way go on.
    package func shut() {
        state.withLock { state in
            if !state.isShut, state.hasOpened { state.shutSince = clock.now }
            state.isShut = true
        }
    }

    /// - Returns: Once it is shut and no change is under way, or as soon as it is open again.
    package func untilStill() async {
        await withCheckedContinuation { continuation in
            let isOver = state.withLock { state in
                guard state.isShut, state.changing > 0 else { return true }
                state.whenStill.append(continuation)
                return false
            }
            if isOver { continuation.resume() }
        }
    }

    /// Puts a disk in the place of the one there is. Its users come to it when the gate opens.
    ///
    /// - Precondition: The gate is shut, and nothing changes the disk there was.
    package func seat(_ disk: any Disk, watch: (any ChangeWatch)?) {
        state.withLock { state in
            precondition(state.isShut && state.changing == 0, "exchanged under a change")
            state.newest += 1
            state.seats[state.newest] = Seat(disk: disk, watch: watch)
        }
    }

    /// Lets everything in. Without complaint if it is open.
    ///
    /// - Precondition: There is a disk.
    package func open() {
        let (waiting, still) = state.withLock { state in
            precondition(state.seats[state.newest] != nil, "opened without a disk")
            state.isShut = false
            state.hasOpened = true
            if let since = state.shutSince.take() { state.longestShut = max(state.longestShut, clock.now - since) }
            defer { (state.waiting, state.whenStill) = ([], []) }
            return (state.waiting, state.whenStill)
        }
        for continuation in waiting + still { continuation.resume() }
    }

    /// Fails whatever waits: it never opens again.
    package func abandon() {
        let waiting = state.withLock { state in
            state.isAbandoned = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Waits until nobody reads the disks any more that were exchanged, and forgets them.
    package func leaveOlder() async {
        while let number = state.withLock({ state in state.seats.keys.filter { $0 < state.newest }.min() }) {
            await withCheckedContinuation { continuation in
                let isLeft = state.withLock { state in
                    guard state.seats[number]?.readers == 0 else {
                        state.whenLeft[number] = continuation
                        return false
                    }
                    return true
                }
                if isLeft { continuation.resume() }
            }
            state.withLock { $0.seats[number] = nil }
        }
    }

    /// Holds changes to that rate; nothing for as fast as they come.
    package func limit(to rate: ByteRate?) {
        state.withLock { $0.pacer = rate.map { Pacer($0) } }
    }

    // MARK: Those who use it

    /// Takes part of the rate, before anything is under way: what waits for its turn doesn't hold up the one who shuts.
    private func pace(_ bytes: ByteCount) async {
        let wait = state.withLock { $0.pacer?.wait(after: bytes, now: clock.now - began) } ?? .zero
        guard wait > .zero else { return }
        let end = clock.now + wait
        // A limit that was lifted holds nobody back.
        while state.withLock({ $0.pacer != nil }), clock.now < end {
            try? await Task.sleep(for: min(.milliseconds(10), end - clock.now))
        }
    }

    private func enter() async throws(VolumeError) -> Seat {
        while true {
            let (seat, isAbandoned) = state.withLock { state in
                guard !state.isShut, let seat = state.seats[state.newest] else {
                    return (nil as Seat?, state.isAbandoned)
                }
                state.changing += 1
                return (seat, false)
            }
            if let seat { return seat }
            guard !isAbandoned else {
                throw VolumeError(.busy, "wait", on: "the export", reason: "it ended before it could go on")
            }
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    guard state.isShut, !state.isAbandoned else { return true }
                    state.waiting.append(continuation)
                    return false
                }
                if isOver { continuation.resume() }
            }
        }
    }

    private func leave() {
        let still: [CheckedContinuation<Void, Never>] = state.withLock { state in
            state.changing -= 1
            guard state.changing == 0 else { return [] }
            defer { state.whenStill = [] }
            return state.whenStill
        }
        for continuation in still { continuation.resume() }
    }

    /// - Parameter extent: What is changed; nothing for a flush.
    private func change(
        _ extent: Extent?, costing bytes: ByteCount = .zero, _ body: (any Disk) async throws(VolumeError) -> Void
    ) async throws(VolumeError) {
        await pace(bytes)
        let seat = try await enter()
        defer { leave() }
        guard let extent, let watch = seat.watch else { return try await body(seat.disk) }
        try await watch.willChange(extent)
        defer { watch.didChange(extent) }
        try await body(seat.disk)
    }

    private func reading<Value>(
        _ body: (any Disk) async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        let (number, disk) = beginReading()
        defer { endReading(number) }
        return try await body(disk)
    }

    /// - Precondition: It has been open.
    private func beginReading() -> (number: Int, disk: any Disk) {
        state.withLock { state in
            guard let seat = state.seats[state.newest] else { preconditionFailure("served before it opened") }
            state.seats[state.newest]?.readers += 1
            return (state.newest, seat.disk)
        }
    }

    private func endReading(_ number: Int) {
        let left: CheckedContinuation<Void, Never>? = state.withLock { state in
            state.seats[number]?.readers -= 1
            return state.seats[number]?.readers == 0 ? state.whenLeft.removeValue(forKey: number) : nil
        }
        left?.resume()
    }
}

extension Gate: DirtyView {
    /// What isn't at the target, as far as the source tells; nothing once the disk is the target's.
    package func dirty(in range: Extent) -> ExtentSet { watch?.dirty(in: range) ?? ExtentSet() }
}

extension Gate: Disk {
    /// What zeroing and discarding cost of a limit: as few bytes as they have to be moved.
    private static let costOfHoles = ByteCount.kibibytes(64)

    package var size: ByteCount { disk.size }
    package var means: ExtentMeans { disk.means }
    package var extentUnit: ByteCount { disk.extentUnit }
    package var isWritable: Bool { disk.isWritable }
    package var blockSize: ByteCount { disk.blockSize }
    package var zeroesFast: Bool { disk.zeroesFast }
    package var tellsHolesFast: Bool { disk.tellsHolesFast }
    package var caches: Bool { disk.caches }
    package var readsAtOnce: Bool { disk.readsAtOnce }

    package func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try await reading { disk throws(VolumeError) in try await disk.extents(in: range, since: base) }
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try await reading { disk throws(VolumeError) in unsafe try await disk.read(into: buffer, at: offset) }
    }

    package func readAtOnce(
        into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset
    ) throws(VolumeError) -> Bool {
        let (number, disk) = beginReading()
        defer { endReading(number) }
        return unsafe try disk.readAtOnce(into: buffer, at: offset)
    }

    /// Not where there is something to wait for, or somebody to tell of it before.
    package func writeAtOnce(
        _ bytes: UnsafeRawBufferPointer, at offset: ByteOffset
    ) throws(VolumeError) -> Bool {
        let disk: (any Disk)? = state.withLock { state in
            guard !state.isShut, state.pacer == nil, let seat = state.seats[state.newest], seat.watch == nil else {
                return nil
            }
            state.changing += 1
            return seat.disk
        }
        guard let disk else { return false }
        defer { leave() }
        return unsafe try disk.writeAtOnce(bytes, at: offset)
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        try await change(extent, costing: extent.length) { disk throws(VolumeError) in
            unsafe try await disk.write(bytes, at: offset)
        }
    }

    package func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        try await change(extent, costing: min(extent.length, Self.costOfHoles)) { disk throws(VolumeError) in
            try await disk.zero(extent, keepsRoom: keepsRoom)
        }
    }

    package func discard(_ extent: Extent) async throws(VolumeError) {
        try await change(extent, costing: min(extent.length, Self.costOfHoles)) { disk throws(VolumeError) in
            try await disk.discard(extent)
        }
    }

    package func cache(_ extent: Extent) async throws(VolumeError) {
        try await reading { disk throws(VolumeError) in try await disk.cache(extent) }
    }

    /// What was acknowledged before an exchange is durable in the new disk, which was flushed for that.
    package func flush() async throws(VolumeError) {
        try await change(nil) { disk throws(VolumeError) in try await disk.flush() }
    }

    /// Has what was acknowledged seen by whoever reads the volume by another way, shut or not.
    package func show() async throws(VolumeError) {
        try await reading { disk throws(VolumeError) in if !disk.isSeenAtOnce { try await disk.flush() } }
    }

    /// The disks are closed by who opened them.
    package func close() async {}
}
