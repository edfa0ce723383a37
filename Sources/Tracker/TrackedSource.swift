internal import Synchronization
package import Volumes

/// A volume without snapshots, moved while its clients write through a gate that marks what they change.
///
/// A state of it is a number, and the knowledge of what was changed since: whoever reads it reads the head as it is. What
/// he finds changed was marked before, so it is moved once more with the next state; the last one is read while the gate is
/// shut, and is what the volume is then.
package final class TrackedSource: ServableSource, MarkedVolume {
    /// To be told of each change, from before the first until the export is switched.
    package let marks: Marks
    private let volume: any TrackableVolume
    private let identity: String

    /// When it had last been changed as the marks were opened.
    private let changed: Duration?
    private let disk = Mutex<(any Disk)?>(nil)

    /// - Parameter marks: Of this very volume, `identity`.
    init(_ volume: any TrackableVolume, identity: String, marks: Marks, changed: Duration?) {
        (self.volume, self.identity, self.marks, self.changed) = (volume, identity, marks, changed)
    }

    package var address: String { volume.address }

    // MARK: Volume

    package func describe() async throws(VolumeError) -> VolumeDescription {
        var description = try await volume.describe()
        description.identity = identity
        return description
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        let head = try await volume.open(.head)
        guard let state = revision.snapshot else { return head }
        guard try await holds(state) else {
            await head.close()
            throw missing(state, "open")
        }
        return TrackedReader(head: head, marks: marks, state: state, address: address)
    }

    package func changes(since state: Snapshot, in range: Extent) -> ExtentSet? {
        marks.changes(since: state.id, in: range)
    }

    private func missing(_ state: Snapshot, _ operation: String) -> VolumeError {
        VolumeError(.missing, operation, on: "\(address)@\(state.name)", reason: "nothing tells what was changed since")
    }

    // MARK: SourceVolume

    package func standing() async throws(VolumeError) -> Standing {
        let standing = try await volume.standing()
        return Standing(size: standing.size, snapshots: [], transients: marks.held)
    }

    package func obstacles() async throws(VolumeError) -> [Obstacle] { try await volume.obstacles() }

    package func number(after number: UInt64) async throws(VolumeError) {
        try await blocking { [marks] () throws(VolumeError) in try marks.number(after: number) }
    }

    package func freeze(as name: String) async throws(VolumeError) -> Snapshot? {
        try await blocking { [marks] () throws(VolumeError) in try marks.hold(as: name) }
    }

    package func holds(_ snapshot: Snapshot) async throws(VolumeError) -> Bool { marks.held.contains(snapshot) }

    package func thaw(_ name: String) async throws(VolumeError) {
        try await blocking { [marks] () throws(VolumeError) in try marks.drop(name) }
    }

    /// Without a state, which nobody asks for who moves it live, as the volume itself can tell.
    package func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        guard let snapshot else { return try await volume.isUnchanged(since: nil) }
        return marks.isUnchanged(since: snapshot.id) ?? false
    }

    // MARK: LiveSource

    /// The marks are locked for as long as they are open: nobody else can be at it.
    package func claim(for target: String, isLive: Bool) async throws(VolumeError) {}

    package func release(from target: String) async throws(VolumeError) {
        try await blocking { [marks] () throws(VolumeError) in try marks.remove() }
    }

    /// The gate is the only way to it.
    package func writers() async throws(VolumeError) -> [Writer] { [] }
    package func limit(to rate: ByteRate) async throws(VolumeError) -> ByteRate {
        throw VolumeError(.unsupported, "limit", on: address, reason: "its clients are held back by their export alone")
    }
    package func lift() async throws(VolumeError) {}

    package func serve() async throws(VolumeError) -> (disk: any Disk, watch: (any ChangeWatch)?) {
        guard try await volume.lastChange() == changed else {
            throw VolumeError(
                .busy, "serve", on: address, reason: "it was changed while it was being opened",
                advice: "Stop whoever writes to it, then give the command again.")
        }
        let disk = try await volume.attach(.head, isWritable: true)
        self.disk.withLock { $0 = disk }
        // Finding out what it can do may have touched it.
        if let touched = try await volume.lastChange() { marks.noteTouch(at: touched) }
        return (disk, marks)
    }

    package func endServing() async {
        await disk.withLock { $0.take() }?.close()
        // Without a state there is nothing that a later run could go on from.
        guard marks.held.isEmpty else { return }
        try? await blocking { [marks] () throws(VolumeError) in try marks.remove() }
    }

    package func retire(to target: String, _ rest: Retirement) async throws(VolumeError) {
        try await volume.retire(to: target, rest)
    }
}

/// The head, and what was changed before it was a state.
private struct TrackedReader: VolumeReader {
    let head: any VolumeReader
    let marks: Marks
    let state: Snapshot
    let address: String

    var size: ByteCount { head.size }
    var means: ExtentMeans { head.means }
    var extentUnit: ByteCount { max(head.extentUnit, marks.granularity.size) }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        guard let base else { return try await head.extents(in: range, since: nil) }
        guard let changes = marks.changes(since: base.id, upTo: state.id, in: range) else {
            throw VolumeError(
                .missing, "extents", on: "\(address)@\(base.name)", reason: "nothing tells what was changed since")
        }
        return changes.within(range)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try await unsafe head.read(into: buffer, at: offset)
    }

    func close() async { await head.close() }
}
