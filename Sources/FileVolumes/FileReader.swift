internal import Glibc
internal import Volumes

/// A raw file or block device, opened for reading. Its extents are the file system's: the holes it knows of.
final class FileReader: VolumeReader {
    let size: ByteCount
    let means: ExtentMeans
    /// A file system answers for one extent as fast as for many, whatever their length: no unit costs more than what
    /// lies in it. This one keeps the number of questions small.
    let extentUnit = ByteCount.kibibytes(64)
    private let file: Descriptor

    /// Blocks.
    init(_ file: Descriptor) throws(VolumeError) {
        self.file = file
        size = try file.size()
        // A block device answers lseek's question too, but always that all of it is data.
        let knowsHoles = try file.status().kind == .regular ? try Self.knowsHoles(file) : false
        means = knowsHoles ? .fileHoles : .everything
    }

    private static func knowsHoles(_ file: Descriptor) throws(VolumeError) -> Bool {
        do throws(VolumeError) {
            _ = try place(SEEK_DATA, after: .zero, in: file)
            return true
        } catch let error where error.kind == .failed || error.kind == .unsupported {
            // EINVAL, or EOPNOTSUPP: the file system doesn't know SEEK_DATA.
            return false
        }
    }

    /// The first place at or after `offset` where data starts, or where it ends.
    /// - Returns: Nothing if there is none before the file's end.
    private static func place(
        _ wanted: Int32, after offset: ByteOffset, in file: Descriptor
    ) throws(VolumeError) -> ByteOffset? {
        do throws(VolumeError) {
            let found = try file.call(wanted == SEEK_DATA ? "lseek(SEEK_DATA)" : "lseek(SEEK_HOLE)", at: offset) {
                lseek($0, off_t(offset.bytes), wanted)
            }
            return ByteOffset(UInt64(found))
        } catch let error where error.kind == .missing {
            // ENXIO: nothing but a hole up to the end, or the end was before `offset`.
            return nil
        }
    }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        guard base == nil else {
            throw VolumeError(
                .unsupported, "extents", on: file.title, reason: "a file holds no snapshot to differ from")
        }
        let range = range.intersection(Extent(offset: .zero, length: size))
        guard means == .fileHoles else { return ExtentSet([range]) }
        return try await blocking { [file] () throws(VolumeError) in
            var found = ExtentSet()
            var start = range.offset
            while start < range.end, let data = try Self.place(SEEK_DATA, after: start, in: file), data < range.end {
                let hole = try Self.place(SEEK_HOLE, after: data, in: file) ?? range.end
                found.append(Extent(from: data, to: min(hole, range.end)))
                // Data that became a hole between the two questions: it was in the answer, or had changed meanwhile.
                start = max(hole, data + ByteCount(1))
            }
            return found
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        // Needed: pointers are not Sendable. Safe: the caller keeps the buffer and leaves it alone until this returns.
        nonisolated(unsafe) let buffer = unsafe buffer
        try await blocking { [file] () throws(VolumeError) in unsafe try file.read(into: buffer, at: offset) }
    }

    /// The file is closed with its last reader's last call.
    func close() async {}
}
