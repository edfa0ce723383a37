internal import Glibc
internal import Synchronization
package import Volumes

extension FileSource: DiskVolume {
    /// A file that is written is locked for as long as the disk is there: another writer that takes locks (QEMU, a move,
    /// another export) is refused, and refuses this one.
    package func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk {
        guard revision == .head else { throw FileTarget.noSnapshots("attach", on: address) }
        return try await blocking { () throws(VolumeError) in
            let file = try self.opened(isWritable ? O_RDWR : O_RDONLY)
            if isWritable {
                var isFree = try !file.isLockedByWriter()
                if isFree { isFree = try file.lock() }
                guard isFree else {
                    throw VolumeError(
                        .busy, "fcntl(F_OFD_SETLK)", on: self.address, reason: "in use by \(file.lockHolders())",
                        advice: "Stop it first, or open the file for reading only.")
                }
            }
            return try FileDisk(file, isWritable: isWritable)
        }
    }
}

/// A raw file or block device in use, through the page cache.
final class FileDisk: Disk {
    let isWritable: Bool
    let blockSize: ByteCount
    let zeroesFast: Bool
    let caches = true
    let isSeenAtOnce = true
    private let reader: FileReader
    private let file: Descriptor
    /// Where the file ends; nothing for a block device.
    private let end: ByteOffset?
    /// Cleared for good when the file system doesn't know `RWF_NOWAIT` for reading.
    private let knowsNoWait = Atomic(true)
    private let prompt = Promptness()
    /// Copying as much takes 0.1 ms.
    private static let mostAtOnce = 1 << 20

    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }
    var tellsHolesFast: Bool { means == .fileHoles }
    var readsAtOnce: Bool { knowsNoWait.load(ordering: .relaxed) }

    /// Blocks.
    init(_ file: Descriptor, isWritable: Bool) throws(VolumeError) {
        self.file = file
        self.isWritable = isWritable
        reader = try FileReader(file)
        let status = try file.status()
        if status.kind == .blockDevice {
            end = nil
            // fallocate(2) takes whole blocks only.
            blockSize = try file.logicalBlockSize()
            zeroesFast = isWritable && Self.zeroesFast(device: status)
        } else {
            end = ByteOffset(reader.size.bytes)
            blockSize = ByteCount(1)
            zeroesFast = isWritable && Self.makesHoles(file, size: reader.size)
        }
    }

    /// Documentation/ABI/stable/sysfs-block: how many bytes the device zeroes with one command, 0 if it knows none.
    private static func zeroesFast(device: FileStatus) -> Bool {
        let place = FileSource.system(device)
        // A partition has no queue of its own.
        let texts = ["/queue/", "/../queue/"].map { contents(of: place + $0 + "write_zeroes_max_bytes") }
        return texts.contains { text in
            text.split(whereSeparator: \.isWhitespace).first.flatMap { UInt64($0) } ?? 0 > 0
        }
    }

    /// Asked with a hole behind the file's end, where there is nothing to be lost.
    private static func makesHoles(_ file: Descriptor, size: ByteCount) -> Bool {
        let behind = ByteOffset(size.bytes).rounded(upTo: zeroBlock)
        return (try? file.punch(Extent(offset: behind, length: zeroBlock), end: nil)) != nil
    }

    // MARK: Reading

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try await reader.extents(in: range, since: base)
    }

    /// What is in the page cache (preadv2(2), `RWF_NOWAIT`).
    func readAtOnce(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) throws(VolumeError) -> Bool {
        guard readsAtOnce else { return false }
        var vector = unsafe iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
        let got = unsafe preadv2(file.number, &vector, 1, off_t(offset.bytes), Int32(RWF_NOWAIT))
        if got < 0, errno == EOPNOTSUPP { knowsNoWait.store(false, ordering: .relaxed) }
        // Anything else that went wrong is told by `read`.
        return got == buffer.count
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        unsafe try await reader.read(into: buffer, at: offset)
    }

    func cache(_ extent: Extent) async throws(VolumeError) {
        try await blocking { [file] () throws(VolumeError) in
            // Advice: what comes of it is told by nobody, and nobody waits for it.
            _ = posix_fadvise(
                file.number, off_t(extent.offset.bytes), off_t(extent.length.bytes), POSIX_FADV_WILLNEED)
        }
    }

    // MARK: Changing

    /// Into the page cache, which takes no longer than a copy, as long as the writes before took no longer. Linux has no
    /// `RWF_NOWAIT` for that: ext4 and others refuse it (preadv2(2), `EOPNOTSUPP`).
    func writeAtOnce(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) throws(VolumeError) -> Bool {
        let range = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        guard bytes.count <= Self.mostAtOnce, prompt.isDue else { return false }
        try checkChange(range, "pwrite", on: file.title)
        let begin = ContinuousClock.now
        unsafe try file.write(bytes, at: offset)
        prompt.note(ContinuousClock.now - begin)
        return true
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try checkChange(Extent(offset: offset, length: ByteCount(UInt64(bytes.count))), "pwrite", on: file.title)
        // Needed: pointers are not Sendable. Safe: the caller keeps the buffer and leaves it alone until this returns.
        nonisolated(unsafe) let bytes = unsafe bytes
        try await blocking { [file] () throws(VolumeError) in unsafe try file.write(bytes, at: offset) }
    }

    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        try checkChange(extent, "fallocate", on: file.title)
        guard !extent.isEmpty else { return }
        try await blocking { [file, end] () throws(VolumeError) in
            if keepsRoom { try file.zeroKeepingRoom(extent) } else { try file.zero(extent, end: end) }
        }
    }

    func discard(_ extent: Extent) async throws(VolumeError) {
        try checkChange(extent, "fallocate", on: file.title)
        guard !extent.isEmpty else { return }
        try await blocking { [file, end] () throws(VolumeError) in
            do throws(VolumeError) {
                try file.punch(extent, end: end)
            } catch let error where error.kind == .unsupported {
                // Then the bytes stay, as they may.
            }
        }
    }

    func flush() async throws(VolumeError) {
        guard isWritable else { return }
        try await blocking { [file] () throws(VolumeError) -> Void in try file.call("fdatasync") { fdatasync($0) } }
    }

    /// The file is closed, and its lock gone, with the last call that is under way.
    func close() async {}
}

extension Descriptor {
    /// Of a block device: 512 bytes or 4 KiB (ioctl `BLKSSZGET`, linux/fs.h).
    fileprivate func logicalBlockSize() throws(VolumeError) -> ByteCount {
        var size: Int32 = 0
        try call("ioctl(BLKSSZGET)") { unsafe ioctl($0, 0x1268, &size) }
        return ByteCount(UInt64(max(size, 1)))
    }
}
