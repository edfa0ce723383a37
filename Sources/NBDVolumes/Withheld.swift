internal import Volumes

/// The first bytes of a target, kept here until all else of it is there: without a partition table and a superblock
/// nobody takes what is there for a volume.
struct Withheld: Sendable {
    /// Boot sectors, partition tables, and the superblocks and labels of the common file systems and volume managers
    /// lie in it; btrfs's, at 64 KiB, are the last.
    static let most = ByteCount.mebibytes(1)
    /// What is written last of it, alone.
    private static let seal = zeroBlock

    private var bytes: [UInt8]

    /// All zeros.
    /// - Parameter size: The export's.
    init(ofExport size: ByteCount) { bytes = [UInt8](repeating: 0, count: Int(min(size, Self.most).bytes)) }

    /// Nobody knows these bytes but who holds them.
    var range: Extent { Extent(offset: .zero, length: ByteCount(UInt64(bytes.count))) }

    /// Takes what lies here of a write.
    /// - Returns: Where the rest is, which is the export's.
    mutating func write(_ data: UnsafeRawBufferPointer, at offset: ByteOffset) -> Extent {
        let whole = Extent(offset: offset, length: ByteCount(UInt64(data.count)))
        let part = whole.intersection(range)
        unsafe bytes.withUnsafeMutableBytes { held in
            let count = Int(part.length.bytes)
            guard count > 0 else { return }
            let place = unsafe UnsafeMutableRawBufferPointer(rebasing: held[Int(offset.bytes)..<Int(part.end.bytes)])
            unsafe place.copyMemory(from: UnsafeRawBufferPointer(rebasing: data[..<count]))
        }
        return Extent(from: max(offset, range.end), to: whole.end)
    }

    /// Makes zeros of what lies here of an extent.
    /// - Returns: Where the rest is.
    mutating func zero(_ extent: Extent) -> Extent {
        let part = extent.intersection(range)
        if !part.isEmpty {
            let places = Int(part.offset.bytes)..<Int(part.end.bytes)
            bytes.replaceSubrange(places, with: repeatElement(0, count: places.count))
        }
        return Extent(from: max(extent.offset, range.end), to: extent.end)
    }

    /// Fills what lies here of a read.
    /// - Returns: Where the rest is.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) -> Extent {
        let whole = Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))
        let part = whole.intersection(range)
        unsafe bytes.withUnsafeBytes { held in
            guard !part.isEmpty else { return }
            unsafe buffer.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: held[Int(offset.bytes)..<Int(part.end.bytes)]))
        }
        return Extent(from: max(offset, range.end), to: whole.end)
    }

    /// What isn't zeros, in whole blocks of 4 KiB.
    var data: ExtentSet {
        var found = ExtentSet()
        unsafe bytes.withUnsafeBytes { held in unsafe forEachDataRun(in: held, at: .zero) { found.append($0) } }
        return found
    }

    /// What is to be written in the end, in order: what comes before the last is to be durable before that.
    var releases: [[Extent]] {
        let seal = Extent(offset: .zero, length: Self.seal)
        let rest = data.subtracting(ExtentSet([seal]))
        return [rest.extents, data.intersection(seal).extents]
    }
}
