/// One state of a volume, opened for reading.
package protocol VolumeReader: Sendable {
    /// The volume's size in this state.
    var size: ByteCount { get }
    /// How `extents` comes to know: the finest means this state allows.
    var means: ExtentMeans { get }
    /// Extents are found one such unit after another: asking for less than one costs as much as the whole.
    var extentUnit: ByteCount { get }
    /// What may hold other bytes than zeros in `range`; with `base`, what may differ from that older state.
    /// Everything outside reads as zeros, or as in `base`.
    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet
    /// Fills `buffer` from `offset` on; all of it, or an error. Within `size` only.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError)
    func close() async
}

/// By which means a volume's extents were found, finest first.
package enum ExtentMeans: String, Sendable, Codable {
    /// What the OSD allocated for each object (`mapext`, `sparse_read`).
    case objectExtents = "object extents"
    /// `rbd_diff_iterate2`.
    case diff = "rbd diff"
    /// The objects that the image's object map says exist, whole.
    case objectMap = "object map"
    /// The holes that the file system knows (`SEEK_HOLE`, `SEEK_DATA`).
    case fileHoles = "file holes"
    /// What an NBD server tells of `base:allocation` (`NBD_CMD_BLOCK_STATUS`).
    case blockStatus = "block status"
    /// What an NBD server tells of a dirty bitmap of QEMU's.
    case dirtyBitmap = "dirty bitmap"
    /// Nothing is known: all of it.
    case everything = "everything"
}

/// A volume whose states can be listed and read.
package protocol Volume: Sendable {
    /// As the operator wrote it, without secrets.
    var address: String { get }
    /// Size, snapshots and all else there is to know. Reads; changes nothing.
    func describe() async throws(VolumeError) -> VolumeDescription
    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader
    /// A way to compare without reading both sides, if there is one for these two.
    func comparison(
        of revision: Revision, with other: any Volume, at otherRevision: Revision
    ) async throws(VolumeError) -> (any Comparison)?
}

extension Volume {
    /// Opens a state for the time of `body`.
    package func withReader<Value>(
        at revision: Revision, _ body: (any VolumeReader) async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        let reader = try await open(revision)
        do throws(VolumeError) {
            let value = try await body(reader)
            await reader.close()
            return value
        } catch {
            await reader.close()
            throw error
        }
    }

    package func comparison(
        of revision: Revision, with other: any Volume, at otherRevision: Revision
    ) async throws(VolumeError) -> (any Comparison)? { nil }
}

/// Where a move starts.
package protocol SourceVolume: Volume {
    /// Where only what changed is to be moved, the state before, which the target has to be in already. It can't be
    /// opened: all that is known of it are the head's extents since then.
    var base: Snapshot? { get }
    /// Size and snapshots: what of a description may change at any moment, at a fraction of its cost.
    func standing() async throws(VolumeError) -> Standing
    /// What stands against moving it now. Reads; changes nothing.
    func obstacles() async throws(VolumeError) -> [Obstacle]
    /// States that are frozen from here on get numbers above this: that of a state which is recorded, and which a volume
    /// that numbers its states itself may know nothing of any more.
    func number(after number: UInt64) async throws(VolumeError)
    /// A state that stays as it is while the volume goes on; recorded under `name` before it is asked for.
    /// The same name gives the same state again. Nothing from a volume that can't hold one: its head is read then.
    func freeze(as name: String) async throws(VolumeError) -> Snapshot?
    /// Whether the volume still holds that very snapshot.
    func holds(_ snapshot: Snapshot) async throws(VolumeError) -> Bool
    /// Forgets the state that `freeze` made, if it is there.
    func thaw(_ name: String) async throws(VolumeError)
    /// How whoever serves the volume knows this process; nothing where there is no such name.
    var client: String? { get }
    /// Makes sure that a process which is dead, of which `client` told, holds nothing of the volume any more.
    func evict(_ client: String) async throws(VolumeError)
    /// Whether nothing was written since `snapshot` was frozen; without one, since this value first saw the volume.
    func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool
}

extension SourceVolume {
    package var base: Snapshot? { nil }
    package var client: String? { nil }
    package func evict(_ client: String) async throws(VolumeError) {}
    package func number(after number: UInt64) async throws(VolumeError) {}
    package func holds(_ snapshot: Snapshot) async throws(VolumeError) -> Bool { true }
}

/// Where a move ends: first nothing, then an unfinished volume that only this move writes, then a finished one.
package protocol TargetVolume: Volume {
    /// What the operator wants otherwise than the source has it: the same throughout a move.
    var wished: String { get }
    func state() async throws(VolumeError) -> TargetState
    /// What stands against making it of `source`, with `room` bytes to be written. Changes nothing.
    func obstacles(to source: VolumeDescription, room: ByteCount) async throws(VolumeError) -> [Obstacle]
    /// What of the source this kind of target can't hold, a sentence each.
    func losses(from source: VolumeDescription) -> [String]
    /// Makes the unfinished target, marked as such by `record`.
    func make(as source: VolumeDescription, record: String) async throws(VolumeError)
    /// Makes sure that nobody else writes to the unfinished target: from here on it is this process's alone. Of a
    /// committed one, which others may have begun to use, it takes nothing.
    ///
    /// - Returns: Whether an earlier owner was found that hadn't let go of it: it is dead, and fenced now.
    @discardableResult
    func own() async throws(VolumeError) -> Bool
    /// Durable when it returns.
    func save(record: String) async throws(VolumeError)
    /// Snapshots kept so far, oldest first.
    func kept() async throws(VolumeError) -> [Snapshot]
    func resize(to size: ByteCount) async throws(VolumeError)
    /// Keeps the present state under the snapshot's name and protection; all that was written is in it.
    /// - Returns: The snapshot as the target has it.
    @discardableResult
    func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot
    /// Gives a kept snapshot the name and the protection of `snapshot`, which changed at the source.
    func alter(_ kept: Snapshot, to snapshot: Snapshot) async throws(VolumeError)
    /// Removes a kept snapshot.
    func drop(_ kept: Snapshot) async throws(VolumeError)
    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError)
    /// Writes parts of what was read in one piece: together, where that is less work.
    /// - Parameters:
    ///   - runs: Within `bytes`.
    ///   - offset: Where `bytes` begins in the volume.
    func write(
        _ runs: ExtentSet, of bytes: UnsafeRawBufferPointer, at offset: ByteOffset
    ) async throws(VolumeError)
    /// Makes `extent` read as zeros, by a hole where the volume can.
    func zero(_ extent: Extent) async throws(VolumeError)
    func flush() async throws(VolumeError)
    /// Gives the unfinished target all that it is to have beside its bytes: metadata, late features. Commit does the
    /// same, and then has the less to do.
    func furnish(as source: VolumeDescription) async throws(VolumeError)
    /// Turns the unfinished target into the finished one, in one durable step. Done twice it changes nothing.
    func commit(as source: VolumeDescription) async throws(VolumeError)
    /// Takes a commit back: the target is unfinished again. Refused if anybody has begun to use it.
    func uncommit() async throws(VolumeError)
    /// Drops the record: the move is over.
    func forget() async throws(VolumeError)
    /// Removes an unfinished target and all that belongs to it, even one that was only half made or removed.
    func discard() async throws(VolumeError)
    /// Lets go of it as it is, for the next run to take up.
    func close() async
    /// A way that is shorter than reading and writing, if there is one from that source.
    func route(from source: any Volume) async throws(VolumeError) -> (any Route)?
}

extension TargetVolume {
    package var wished: String { "" }
    package func losses(from source: VolumeDescription) -> [String] { [] }
    package func furnish(as source: VolumeDescription) async throws(VolumeError) {}
    package func write(
        _ runs: ExtentSet, of bytes: UnsafeRawBufferPointer, at offset: ByteOffset
    ) async throws(VolumeError) {
        for run in runs.extents {
            let start = Int((run.offset - offset).bytes)
            let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<start + Int(run.length.bytes)])
            try await unsafe write(part, at: run.offset)
        }
    }
    package func alter(_ kept: Snapshot, to snapshot: Snapshot) async throws(VolumeError) {
        throw VolumeError(.unsupported, "alter", on: address, reason: "it has no snapshots")
    }
    package func drop(_ kept: Snapshot) async throws(VolumeError) {
        throw VolumeError(.unsupported, "drop", on: address, reason: "it has no snapshots")
    }
    package func uncommit() async throws(VolumeError) {
        throw VolumeError(.unsupported, "uncommit", on: address, reason: "it can't be the target of a live move")
    }
}

/// What is found where a target is to be.
package enum TargetState: Sendable, Equatable {
    case absent
    /// A move that can go on, with its record.
    case unfinished(record: String)
    /// A move that was committed, but not tidied up after.
    case committed(record: String)
    /// Something that Godwit did not begin: never touched.
    case foreign
}
