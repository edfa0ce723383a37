import Conformance
import Cutover
import Mirror
import Synchronization
import Volumes

/// What a live move, its volumes or its hold can do wrong without saying so.
enum LiveFault: CaseIterable, Sendable {
    case forgetsADirtyExtentOfTheLastRound
    case overlooksThatTheSourceWasWrittenTo
    case skipsTheFence
    case forgetsToLiftTheLimit
    case forgetsToThaw
    case commitsBeforeTheLastBytes
    case thawsAfterTheSwitch
    case keepsARemovedSnapshot
    case losesARename
    case forgetsToFlush
    case switchesWithoutFreezing
    case leavesATransientSnapshot
}

/// A source that does one thing wrong.
final class FaultyLiveSource: LiveSource {
    private let volume: MemoryVolume
    private let fault: LiveFault
    private let guest: LiveGuest

    init(_ volume: MemoryVolume, _ fault: LiveFault, _ guest: LiveGuest) {
        self.volume = volume
        self.fault = fault
        self.guest = guest
    }

    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        let reader = try await volume.open(revision)
        let forgets = fault == .forgetsADirtyExtentOfTheLastRound && guest.isFrozen
        return forgets ? ForgetfulReader(reader: reader) : reader
    }
    func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        let isUnchanged = try await volume.isUnchanged(since: snapshot)
        return fault == .overlooksThatTheSourceWasWrittenTo || isUnchanged
    }
    func writers() async throws(VolumeError) -> [Writer] {
        let writers = try await volume.writers()
        return fault == .skipsTheFence ? [] : writers
    }
    func lift() async throws(VolumeError) {
        if fault == .forgetsToLiftTheLimit { return }
        try await volume.lift()
    }
    func thaw(_ name: String) async throws(VolumeError) {
        if fault == .leavesATransientSnapshot, guest.spot == .target { return }
        try await volume.thaw(name)
    }

    var address: String { volume.address }
    func describe() async throws(VolumeError) -> VolumeDescription { try await volume.describe() }
    func obstacles() async throws(VolumeError) -> [Obstacle] { try await volume.obstacles() }
    func standing() async throws(VolumeError) -> Standing { try await volume.standing() }
    func freeze(as name: String) async throws(VolumeError) -> Snapshot? { try await volume.freeze(as: name) }
    func holds(_ snapshot: Snapshot) async throws(VolumeError) -> Bool { try await volume.holds(snapshot) }
    func evict(_ client: String) async throws(VolumeError) { try await volume.evict(client) }
    func claim(for target: String, isLive: Bool) async throws(VolumeError) {
        try await volume.claim(for: target, isLive: isLive)
    }
    func release(from target: String) async throws(VolumeError) { try await volume.release(from: target) }
    func limit(to rate: ByteRate) async throws(VolumeError) -> ByteRate { try await volume.limit(to: rate) }
    func retire(to target: String, _ rest: Retirement) async throws(VolumeError) {
        try await volume.retire(to: target, rest)
    }
}

private struct ForgetfulReader: VolumeReader {
    let reader: any VolumeReader
    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        ExtentSet(try await reader.extents(in: range, since: base).extents.dropLast())
    }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        unsafe try await reader.read(into: buffer, at: offset)
    }
    func close() async { await reader.close() }
}

/// A target that does one thing wrong.
final class FaultyLiveTarget: TargetWrapper {
    let inner: any TargetVolume
    private let fault: LiveFault
    private let guest: LiveGuest
    /// Snapshots that are there and must not be seen.
    private let hidden = Mutex<Set<UInt64>>([])

    init(_ volume: any TargetVolume, _ fault: LiveFault, _ guest: LiveGuest) {
        inner = volume
        self.fault = fault
        self.guest = guest
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        if fault == .commitsBeforeTheLastBytes, guest.isFrozen { return }
        unsafe try await inner.write(bytes, at: offset)
    }
    func kept() async throws(VolumeError) -> [Snapshot] {
        let kept = try await inner.kept()
        return hidden.withLock { hidden in kept.filter { !hidden.contains($0.id) } }
    }
    func alter(_ kept: Snapshot, to snapshot: Snapshot) async throws(VolumeError) {
        if fault == .losesARename, !kept.isNamed(snapshot.name) { return }
        try await inner.alter(kept, to: snapshot)
    }
    func drop(_ kept: Snapshot) async throws(VolumeError) {
        guard fault == .keepsARemovedSnapshot else { return try await inner.drop(kept) }
        hidden.withLock { _ = $0.insert(kept.id) }
    }
    func flush() async throws(VolumeError) {
        if fault == .forgetsToFlush { return }
        try await inner.flush()
    }
}

/// A hold that does one thing wrong.
final class FaultyLiveHold: WriterHold {
    private let hold: LiveHold
    private let fault: LiveFault
    private let guest: LiveGuest
    private let time: VirtualTime

    init(_ hold: LiveHold, _ fault: LiveFault, _ guest: LiveGuest, _ time: VirtualTime) {
        self.hold = hold
        self.fault = fault
        self.guest = guest
        self.time = time
    }

    var title: String { hold.title }
    var clientsAtSource: Int { fault == .switchesWithoutFreezing ? 1 : hold.clientsAtSource }
    func prepare() async throws(VolumeError) { try await hold.prepare() }
    func adopt() async throws(VolumeError) { try await hold.adopt() }
    func rehearse() async throws(VolumeError) -> Duration { try await hold.rehearse() }
    func leaveSource() async throws(VolumeError) { try await hold.leaveSource() }
    func freeze() async throws(VolumeError) {
        if fault == .switchesWithoutFreezing { return }
        try await hold.freeze()
    }
    func switchOver() async throws(VolumeError) {
        try await hold.switchOver()
        if fault == .thawsAfterTheSwitch { guest.thaw(time.now) }
    }
    func thaw() async throws(VolumeError) {
        if fault == .forgetsToThaw { return }
        try await hold.thaw()
    }
}
