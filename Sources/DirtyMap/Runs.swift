package import Volumes

/// A run is a stretch of dirty chunks as an extent. It starts with a chunk, and ends with one or with the volume.
extension DirtyMap {
    /// Makes the first run at or after `offset` clean and returns it. Nobody else is given the same chunks until they
    /// are marked again.
    ///
    /// - Parameters:
    ///   - offset: The start of a chunk, or the end of the volume or later; the end of a run is always one of these.
    ///   - limit: The run is no longer than this; at least one chunk.
    ///   - boundary: The run crosses no multiple of this, so that it stays within one object; a multiple of the
    ///     granularity.
    /// - Returns: Nothing if no chunk at or after `offset` was dirty. A chunk that is dirty before the call and taken by
    ///   nobody else is not passed over, whatever other threads take and mark meanwhile.
    package func take(from offset: ByteOffset, limit: ByteCount, boundary: ByteCount? = nil) -> Extent? {
        let start = firstChunk(from: offset)
        while let first = chunks.firstSet(from: start) {
            let taken = chunks.takeOnes(in: reach(from: first, limit: limit, boundary: boundary))
            if taken > 0 { return extent(of: first..<first + taken) }
            // Another thread took it in between; so this goes around only while others get on.
        }
        return nil
    }

    /// Makes the first run clean that lies in `extent`, from `offset` on, and returns it; nothing if there is none.
    /// - Parameter extent: Ends with a chunk, or with the volume.
    package func take(from offset: ByteOffset, within extent: Extent) -> Extent? {
        guard let run = nextRun(from: offset, limit: extent.length), run.offset < extent.end else { return nil }
        return take(from: run.offset, limit: min(run.end, extent.end) - run.offset)
    }

    /// What `take` would return, leaving it dirty.
    package func nextRun(from offset: ByteOffset, limit: ByteCount, boundary: ByteCount? = nil) -> Extent? {
        let start = firstChunk(from: offset)
        while let first = chunks.firstSet(from: start) {
            let found = chunks.countOnes(in: reach(from: first, limit: limit, boundary: boundary))
            if found > 0 { return extent(of: first..<first + found) }
        }
        return nil
    }

    /// Every run in order, each as long as it can be. A chunk marked or taken meanwhile may be among them or not.
    package func runs() -> some Sequence<Extent> {
        sequence(state: ByteOffset.zero) { offset in
            let run = self.nextRun(from: offset, limit: ByteCount(.max))
            if let run { offset = run.end }
            return run
        }
    }

    /// The chunks that a run starting with the chunk `first` may have.
    private func reach(from first: Int, limit: ByteCount, boundary: ByteCount?) -> Range<Int> {
        let chunk = granularity.size.bytes
        precondition(limit.bytes >= chunk, "the limit is below one chunk")
        var end = min(chunkCount, first + Int(limit.bytes / chunk))
        if let boundary {
            precondition(
                boundary > .zero && boundary.bytes % chunk == 0, "the boundary is no multiple of the granularity")
            let stride = Int(boundary.bytes / chunk)
            end = min(end, (first / stride + 1) * stride)
        }
        return first..<end
    }
}
