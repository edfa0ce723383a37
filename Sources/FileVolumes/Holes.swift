internal import Glibc
internal import Volumes

// How files get rid of bytes: fallocate(2), which block devices know too (block/fops.c, `blkdev_fallocate`).
extension Descriptor {
    /// What one call writes where the file system can't do it better.
    private static let zeroPiece = 1 << 20
    /// No file system's blocks are larger.
    private static let blockLimit = ByteCount.mebibytes(1)

    private func fallocate(_ mode: Int32, _ extent: Extent) throws(VolumeError) {
        try call("fallocate", at: extent.offset) {
            Glibc.fallocate($0, mode, off_t(extent.offset.bytes), off_t(extent.length.bytes))
        }
    }

    /// Makes a hole of `extent`, which then reads as zeros.
    ///
    /// - Parameter end: Where the file ends; nothing for a block device. A block is only let go of when all of it is
    ///   punched, the last one's part past the file's end too.
    /// - Throws: `unsupported` where there are no holes.
    func punch(_ extent: Extent, end: ByteOffset?) throws(VolumeError) {
        let last = extent.end == end ? extent.end.rounded(upTo: Self.blockLimit) : extent.end
        try fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, Extent(from: extent.offset, to: last))
    }

    /// Makes `extent` read as zeros, by a hole where there are any.
    /// - Parameter end: As of `punch`.
    func zero(_ extent: Extent, end: ByteOffset?) throws(VolumeError) {
        do throws(VolumeError) {
            try punch(extent, end: end)
        } catch let error where error.kind == .unsupported {
            try zeroKeepingRoom(extent)
        }
    }

    /// Makes `extent` read as zeros, and gives nothing back.
    func zeroKeepingRoom(_ extent: Extent) throws(VolumeError) {
        do throws(VolumeError) {
            try fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, extent)
        } catch let error where error.kind == .unsupported {
            try writeZeros(to: extent)
        }
    }

    /// For a file system that knows neither (NFS before 4.2, vfat).
    func writeZeros(to extent: Extent) throws(VolumeError) {
        let zeros = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.zeroPiece, alignment: 4096)
        defer { unsafe zeros.deallocate() }
        unsafe zeros.initializeMemory(as: UInt8.self, repeating: 0)
        var offset = extent.offset
        while offset < extent.end {
            let count = min(Self.zeroPiece, Int((extent.end - offset).bytes))
            unsafe try write(UnsafeRawBufferPointer(rebasing: zeros[..<count]), at: offset)
            offset = offset + ByteCount(UInt64(count))
        }
    }
}
