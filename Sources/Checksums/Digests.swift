package import Volumes

/// A state whose bytes can be hashed where they are, so that they needn't be sent to be compared.
package protocol DigestingReader: VolumeReader {
    /// One xxhash64 (seed 0) for each chunk of the extent, the last perhaps in part.
    /// - Parameters:
    ///   - extent: Within the state; at most 16 MiB.
    ///   - chunk: 4 KiB to 16 MiB.
    func digests(of extent: Extent, chunk: ByteCount) async throws(VolumeError) -> [UInt64]
}

extension VolumeReader {
    /// The same of any state, by reading it.
    package func digestsByReading(_ extent: Extent, chunk: ByteCount) async throws(VolumeError) -> [UInt64] {
        // As much at once as is read best, in whole chunks.
        let step = ByteCount(max(ByteCount.mebibytes(4).bytes / chunk.bytes, 1) * chunk.bytes)
        var digests: [UInt64] = []
        var rest = extent
        while !rest.isEmpty {
            let piece = Extent(offset: rest.offset, length: min(rest.length, step))
            digests += unsafe try await withIOBuffer(of: piece.length) { buffer throws(VolumeError) in
                try await unsafe read(into: buffer, at: piece.offset)
                return unsafe chunkDigests(UnsafeRawBufferPointer(buffer), chunk: chunk)
            }
            rest = Extent(from: piece.end, to: rest.end)
        }
        return digests
    }
}

/// One xxhash64 for each chunk of `bytes`, the last perhaps in part.
package func chunkDigests(_ bytes: UnsafeRawBufferPointer, chunk: ByteCount) -> [UInt64] {
    let size = Int(chunk.bytes)
    return stride(from: 0, to: bytes.count, by: size).map { start in
        unsafe xxhash64(UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + size, bytes.count)]))
    }
}
