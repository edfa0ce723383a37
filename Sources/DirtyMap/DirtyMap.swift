package import Volumes

/// Which chunks of a volume may still differ from the target: one bit for each.
///
/// Any thread may call anything at any time; nothing locks or waits. A chunk is dirty from the `mark` that touched it
/// until one `take` returns it or a `clear` covers it. To lose no write, call `mark` after the write reached the
/// source and before it is acknowledged, and `take` before reading the source: whatever happened before a `mark` is
/// seen by whoever takes the chunk after it.
///
/// Memory: one bit for each chunk and 1/63 of that for summaries, which is 2.04 MiB for each TiB at 64 KiB. It is
/// reserved at once, used page by page as chunks become dirty, and given back when the map goes away.
package final class DirtyMap: Sendable {
    package let size: ByteCount
    package let granularity: Granularity

    /// One for each chunk, the last of which may reach past the end of the volume.
    let chunks: SummarizedBits
    let chunkCount: Int

    /// A map in which every chunk is clean.
    package init(size: ByteCount, granularity: Granularity) {
        self.size = size
        self.granularity = granularity
        chunkCount = size.pieces(of: granularity.size)
        chunks = SummarizedBits(count: chunkCount)
    }

    /// The most the map uses: what it uses once every chunk has been dirty.
    package var memory: ByteCount { ByteCount(UInt64(chunks.wordCount) * 8) }

    /// Makes every chunk that the extent touches dirty; also the way to give back a run that was taken and not copied.
    ///
    /// Beside a `take` of the same chunk, the chunk is either in the run that `take` returns or dirty afterwards.
    ///
    /// - Precondition: The extent lies within the volume.
    package func mark(_ extent: Extent) {
        precondition(extent.end.bytes <= size.bytes, "an extent reaches past the end of the volume")
        guard !extent.isEmpty else { return }
        let last = chunk(at: ByteOffset(extent.end.bytes - 1))
        chunks.set(chunk(at: extent.offset)..<last + 1)
    }

    /// Makes every chunk of the extent clean, without copying it.
    ///
    /// - Precondition: The extent starts with a chunk and ends with one or with the volume; what is left of a chunk
    ///   in part would be forgotten otherwise.
    package func clear(_ extent: Extent) {
        precondition(extent.end.bytes <= size.bytes, "an extent reaches past the end of the volume")
        chunks.clear(firstChunk(from: extent.offset)..<firstChunk(from: extent.end))
    }

    /// How much of the volume is dirty. Exact if nobody else uses the map meanwhile, an estimate otherwise.
    package var dirtyBytes: ByteCount {
        let lastChunk = AtomicBits.place(of: chunkCount - 1)
        let beyondEnd = UInt64(chunkCount) * granularity.size.bytes - size.bytes
        var total: UInt64 = 0
        chunks.forEachWord { index, bits in
            total += UInt64(bits.nonzeroBitCount) * granularity.size.bytes
            if index == lastChunk.word, bits >> UInt64(lastChunk.bit) & 1 == 1 { total -= beyondEnd }
        }
        return ByteCount(total)
    }

    /// Whether no chunk is dirty: the last word before a disk is switched.
    ///
    /// Reads every bit and relies on nothing else: 0.1 ms for each TiB at 64 KiB.
    package var isClean: Bool { chunks.isEmpty }

    /// The chunk that holds the byte at `offset`.
    private func chunk(at offset: ByteOffset) -> Int {
        // A shift, as the granularity is a power of two and this runs for every write of the guest.
        Int(offset.bytes >> UInt64(granularity.size.bytes.trailingZeroBitCount))
    }

    /// The chunk that starts at `offset`; one past the last if that is the end of the volume or after it.
    func firstChunk(from offset: ByteOffset) -> Int {
        guard offset.bytes < size.bytes else { return chunkCount }
        precondition(offset.bytes % granularity.size.bytes == 0, "an offset lies inside a chunk")
        return chunk(at: offset)
    }

    /// The bytes of some chunks, without what would lie past the end of the volume.
    func extent(of chunks: Range<Int>) -> Extent {
        let start = UInt64(chunks.lowerBound) * granularity.size.bytes
        let end = min(UInt64(chunks.upperBound) * granularity.size.bytes, size.bytes)
        return Extent(from: ByteOffset(start), to: ByteOffset(end))
    }
}
