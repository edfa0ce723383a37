import Volumes

/// A dirty map as slow and as plain as can be: the set of dirty chunks.
struct NaiveMap {
    let size: UInt64
    let chunk: UInt64
    private(set) var dirty: Set<UInt64> = []

    init(size: ByteCount, granularity: Granularity) {
        self.size = size.bytes
        chunk = granularity.size.bytes
    }

    var chunkCount: UInt64 { (size + chunk - 1) / chunk }
    var dirtyBytes: ByteCount { ByteCount(dirty.reduce(0) { $0 + bytes(of: $1..<$1 + 1).length.bytes }) }

    mutating func mark(_ extent: Extent) { dirty.formUnion(chunks(of: extent)) }
    mutating func clear(_ extent: Extent) { dirty.subtract(chunks(of: extent)) }

    func nextRun(from offset: ByteOffset, limit: ByteCount, boundary: ByteCount?) -> Extent? {
        guard let first = dirty.filter({ $0 * chunk >= offset.bytes }).min() else { return nil }
        var end = first + 1
        while dirty.contains(end), (end + 1 - first) * chunk <= limit.bytes {
            if let boundary, end * chunk % boundary.bytes == 0 { break }
            end += 1
        }
        return bytes(of: first..<end)
    }

    /// Every run, found chunk by chunk.
    func runs() -> [Extent] {
        ExtentSet(dirty.map { bytes(of: $0..<$0 + 1) }).extents
    }

    private func chunks(of extent: Extent) -> Set<UInt64> {
        guard !extent.isEmpty else { return [] }
        return Set(extent.offset.bytes / chunk...(extent.end.bytes - 1) / chunk)
    }

    private func bytes(of chunks: Range<UInt64>) -> Extent {
        Extent(
            from: ByteOffset(chunks.lowerBound * chunk), to: ByteOffset(min(chunks.upperBound * chunk, size)))
    }
}
