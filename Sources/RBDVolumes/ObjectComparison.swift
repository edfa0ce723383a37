internal import CCeph
internal import Volumes

/// Compares two images object by object, by what their OSDs hash; no data is sent where hashes agree.
///
/// Serves where both images lie on their objects in the same way and no parent shines through either.
final class ObjectComparison: Comparison {
    /// Bytes to a hash: small enough to name the place, large enough that the hashes are no load.
    private static let chunk = ByteCount.kibibytes(64)
    /// What 64 KiB of zeros hash to: one side's hole is the other's written zeros.
    private static let zeroHash = xxhash64(ofZeros: chunk)

    let pieceSize: ByteCount
    let space: ByteCount
    private let sides: [Side]
    private let striping: Striping
    private let size: ByteCount

    /// One of the two images, in one state.
    struct Side: Sendable {
        let objects: DataObjects
        let map: ObjectMap?
        let count: Int
        let reader: ImageReader
    }

    init(_ left: Side, _ right: Side, layout: Layout) {
        sides = [left, right]
        striping = Striping(layout)
        pieceSize = layout.objectSize
        size = left.reader.size
        space = ByteCount(UInt64(max(left.count, right.count)) * layout.objectSize.bytes)
    }

    func close() async { for side in sides { await side.reader.close() } }

    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError) {
        func hand(_ numbers: Range<Int>) {
            found(
                Extent(
                    from: ByteOffset(UInt64(numbers.lowerBound) * pieceSize.bytes),
                    to: ByteOffset(min(UInt64(numbers.upperBound) * pieceSize.bytes, space.bytes))))
        }
        guard let left = sides[0].map, let right = sides[1].map else {
            return hand(0..<max(sides[0].count, sides[1].count))
        }
        left.existingRuns(with: right, hand)
    }

    func firstDifference(in piece: Extent) async throws(VolumeError) -> Extent? {
        let number = Int(piece.offset.bytes / pieceSize.bytes)
        // An object smaller than a chunk is hashed as one.
        let chunk = min(Self.chunk, pieceSize)
        let left = try await sides[0].objects.digest(of: number, length: pieceSize, chunk: chunk)
        let right = try await sides[1].objects.digest(of: number, length: pieceSize, chunk: chunk)
        if left == nil, right == nil { return nil }
        let zero = chunk == Self.chunk ? Self.zeroHash : xxhash64(ofZeros: chunk)
        func hash(_ digest: ObjectDigest?, _ index: Int) -> UInt64? {
            guard let digest else { return zero }
            guard let hashes = digest.hashes else { return nil }
            if index < hashes.count { return hashes[index] }
            // Past the object's end there are only zeros; a chunk that it ends in wasn't hashed.
            return ByteCount(UInt64(index) * chunk.bytes) >= digest.size ? zero : nil
        }
        let end = max(left?.size ?? .zero, right?.size ?? .zero)
        for index in 0..<min(end, pieceSize).pieces(of: chunk) {
            if let ours = hash(left, index), let theirs = hash(right, index), ours == theirs { continue }
            let start = ByteOffset(UInt64(index) * chunk.bytes)
            let extent = Extent(offset: start, length: chunk).intersection(Extent(offset: .zero, length: pieceSize))
            for part in striping.imageExtents(of: extent, in: number) {
                if let difference = try await firstDifferenceRead(in: part) { return difference }
            }
        }
        return nil
    }

    /// Reads both sides, to tell a difference from hashes that can't be compared, and to name the bytes.
    private func firstDifferenceRead(in extent: Extent) async throws(VolumeError) -> Extent? {
        let extent = extent.intersection(Extent(offset: .zero, length: size))
        guard !extent.isEmpty else { return nil }
        return try await firstDifferenceByReading(sides[0].reader, sides[1].reader, in: extent)
    }
}

/// A volume whose objects can be compared.
protocol ObjectBacked: Volume {
    /// Opens a state of it; nothing if its objects don't hold its bytes alone, or not in the usual way.
    func side(at revision: Revision) async throws(VolumeError) -> (side: ObjectComparison.Side, layout: Layout)?
}

extension ObjectBacked {
    package func comparison(
        of revision: Revision, with other: any Volume, at otherRevision: Revision
    ) async throws(VolumeError) -> (any Comparison)? {
        guard let other = other as? any ObjectBacked, let left = try await side(at: revision) else { return nil }
        guard let right = try await other.side(at: otherRevision), left.layout.placesBytesLike(right.layout) else {
            await left.side.reader.close()
            return nil
        }
        return ObjectComparison(left.side, right.side, layout: left.layout)
    }

    /// The same for an image that is open; it is closed if nothing comes of it.
    func side(
        of image: Image, at revision: Revision
    ) async throws(VolumeError) -> (side: ObjectComparison.Side, layout: Layout)? {
        do throws(VolumeError) {
            let reader = try await ImageReader(image, at: revision.snapshot)
            guard reader.holdsAllInObjects else {
                await image.close()
                return nil
            }
            let objects = DataObjects(pool: try await image.dataPool(), prefix: try await image.objectPrefix())
            let side = ObjectComparison.Side(
                objects: try objects.showing(revision.snapshot?.id ?? CCEPH_HEAD),
                map: try await image.objectMap(),
                count: try await image.objectCount(), reader: reader)
            return (side, try await image.layout())
        } catch {
            await image.close()
            throw error
        }
    }
}

extension RBDSource: ObjectBacked {
    func side(at revision: Revision) async throws(VolumeError) -> (side: ObjectComparison.Side, layout: Layout)? {
        try await side(of: try await image(at: revision.snapshot), at: revision)
    }
}

extension RBDTarget: ObjectBacked {
    func side(at revision: Revision) async throws(VolumeError) -> (side: ObjectComparison.Side, layout: Layout)? {
        try await side(of: try await image(at: revision), at: revision)
    }
}
