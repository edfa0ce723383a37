/// A state of a volume as those who use it have it: read and written anywhere, by several at a time.
///
/// Requests that are under way together take effect in any order. What was written is durable once a `flush` returned
/// that began after the write had returned, whoever wrote it.
package protocol Disk: VolumeReader {
    /// Whether anything but reading is allowed; the rest throws `forbidden` otherwise.
    var isWritable: Bool { get }
    /// Requests begin and end at a multiple of it, and so does the size. A power of two, 1 to 64 KiB.
    var blockSize: ByteCount { get }
    /// Whether `zero` takes less time than writing as many zeros, wherever it is let make a hole.
    var zeroesFast: Bool { get }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError)
    /// Makes `extent` read as zeros.
    /// - Parameter keepsRoom: Nothing may be given back: what is written there later finds its room.
    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError)
    /// The bytes of `extent` don't matter any more: they may become a hole, or stay.
    func discard(_ extent: Extent) async throws(VolumeError)
    func flush() async throws(VolumeError)
}

/// A volume that can be used as a disk.
package protocol DiskVolume: Volume {
    /// Opens the head for writing, or any state for reading. Nobody but the caller is kept from writing to it.
    func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk
}
