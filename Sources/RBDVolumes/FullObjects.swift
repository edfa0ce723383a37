internal import Checksums
internal import Volumes

/// Whether the next object is likely to be full of data, going by those before it: then it is worth asking its OSD,
/// so that it can be copied without passing through here.
struct FullObjects {
    /// As many in a row make the next one likely. Few, as asking in vain costs one small operation.
    private static let enough = 3
    private var inRow = 0

    var isLikely: Bool { inRow >= Self.enough }

    mutating func saw(full: Bool) { inRow = full ? min(inRow + 1, Self.enough) : 0 }
}

extension ObjectDigest {
    /// What a block of zeros hashes to.
    static let zeroHash = xxhash64(ofZeros: zeroBlock)

    /// Whether the object has data in every block up to `length`, and nothing after.
    func isFull(_ length: ByteCount, chunk: ByteCount) -> Bool {
        guard size == length, let hashes, hashes.count == length.pieces(of: chunk) else { return false }
        return !hashes.contains(Self.zeroHash)
    }
}
