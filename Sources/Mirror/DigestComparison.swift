internal import Checksums
internal import Volumes

/// Reads one side, and has the other hashed where it is: of what agrees only the hashes are sent.
struct DigestComparison: Comparison {
    /// What is read on both sides where hashes differ, to tell which bytes do. Of 64 KiB a hash is 1/8192.
    private static let chunk = ByteCount.kibibytes(64)

    let near: any VolumeReader
    let far: any DigestingReader
    /// Whether `far` is the first of the two.
    let isFarOurs: Bool
    /// What `near` is asked for its extents since.
    let base: Snapshot?
    let pieceSize = ByteCount.mebibytes(4)
    var space: ByteCount { near.size }
    var sizes: (ours: ByteCount, theirs: ByteCount) { isFarOurs ? (far.size, near.size) : (near.size, far.size) }

    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError) {
        try await forEachExtent(of: base == nil ? [near, far] : [near], since: base, found)
    }

    func firstDifference(in piece: Extent) async throws(VolumeError) -> Extent? {
        async let theirs = result { () throws(VolumeError) in try await far.digests(of: piece, chunk: Self.chunk) }
        let ours = await result { () throws(VolumeError) in try await near.digestsByReading(piece, chunk: Self.chunk) }
        for (index, digests) in zip(try ours.get(), try await theirs.get()).enumerated() where digests.0 != digests.1 {
            let start = piece.offset + ByteCount(UInt64(index) * Self.chunk.bytes)
            let chunk = Extent(offset: start, length: Self.chunk).intersection(piece)
            // Nothing, where it was written to meanwhile and is alike by now.
            if let extent = try await firstDifferenceByReading(near, far, in: chunk) { return extent }
        }
        return nil
    }

    private func result<Value: Sendable>(
        _ body: () async throws(VolumeError) -> Value
    ) async -> Result<Value, VolumeError> {
        do throws(VolumeError) {
            return .success(try await body())
        } catch {
            return .failure(error)
        }
    }

    func close() async {
        await near.close()
        await far.close()
    }
}
