/// A state of a volume as those who use it have it: read and written anywhere, by several at a time.
///
/// Requests that are under way together take effect in any order. What was written is durable once a `flush` returned
/// that began after the write had returned, whoever wrote it. Whoever uses it keeps to its size and its blocks; what
/// would reach past the end fails, and changes nothing.
package protocol Disk: VolumeReader {
    /// Whether anything but reading is allowed; the rest throws `forbidden` otherwise.
    var isWritable: Bool { get }
    /// Requests begin and end at a multiple of it, and so does the size. A power of two, 1 to 64 KiB.
    var blockSize: ByteCount { get }
    /// Whether `zero` takes less time than writing as many zeros, wherever it is let make a hole.
    var zeroesFast: Bool { get }
    /// Whether asking for the extents of a range takes less time than reading it.
    var tellsHolesFast: Bool { get }
    /// Whether whoever reads the volume by another way sees what was written without a flush.
    var isSeenAtOnce: Bool { get }
    /// Whether `cache` makes anything faster.
    var caches: Bool { get }
    /// Whether `readAtOnce` is worth a try.
    var readsAtOnce: Bool { get }
    /// Reads on the calling thread, if that takes no waiting for a device, a lock or another host.
    /// - Returns: Whether it did; otherwise `buffer` holds anything, and `read` is the way.
    func readAtOnce(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) throws(VolumeError) -> Bool
    /// Writes on the calling thread, on the same condition.
    /// - Returns: Whether it did; otherwise a part of it may be written, and `write` is the way.
    func writeAtOnce(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) throws(VolumeError) -> Bool
    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError)
    /// Makes `extent` read as zeros.
    /// - Parameter keepsRoom: Nothing may be given back: what is written there later finds its room.
    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError)
    /// The bytes of `extent` don't matter any more: they may become a hole, or stay.
    func discard(_ extent: Extent) async throws(VolumeError)
    /// `extent` will be read soon: has it fetched. Need not be done when this returns.
    func cache(_ extent: Extent) async throws(VolumeError)
    func flush() async throws(VolumeError)
}

extension Disk {
    package var tellsHolesFast: Bool { false }
    package var isSeenAtOnce: Bool { false }
    package var caches: Bool { false }
    package var readsAtOnce: Bool { false }
    package func readAtOnce(
        into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset
    ) throws(VolumeError) -> Bool { false }
    package func writeAtOnce(
        _ bytes: UnsafeRawBufferPointer, at offset: ByteOffset
    ) throws(VolumeError) -> Bool { false }
    package func cache(_ extent: Extent) async throws(VolumeError) {}

    /// What a change of a disk fails with that is only read, or that would reach past its end.
    package func checkChange(_ extent: Extent, _ operation: String, on title: String) throws(VolumeError) {
        guard isWritable else {
            throw VolumeError(.forbidden, operation, on: title, reason: "it was opened for reading only")
        }
        guard extent.end.bytes <= size.bytes else {
            throw VolumeError(
                .failed, operation, on: "\(title) at byte \(extent.offset.bytes)",
                reason: "\(extent.length.bytes) bytes reach past the end at \(size.bytes)")
        }
    }
}

/// A volume that can be used as a disk.
package protocol DiskVolume: Volume {
    /// Opens the head for writing, or any state for reading.
    ///
    /// - Throws: `busy` where the volume can tell that somebody else has it open for writing, and would write into it
    ///   at the same time; `forbidden` for a snapshot that is to be written.
    func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk
}

extension DiskVolume {
    /// A snapshot is read only.
    package func checkRevision(_ revision: Revision, isWritable: Bool) throws(VolumeError) {
        guard isWritable, let snapshot = revision.snapshot else { return }
        throw VolumeError(
            .forbidden, "attach", on: "\(address)@\(snapshot.name)", reason: "a snapshot can't be written to")
    }
}
