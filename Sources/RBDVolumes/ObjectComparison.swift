internal import Checksums
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

    let sizes: (ours: ByteCount, theirs: ByteCount)
    let pieceSize: ByteCount
    let space: ByteCount
    private let left: Side
    private let right: Side
    private let striping: Striping
    /// For what hashes don't tell: opening an image takes longer than most comparisons in a hand-over.
    private let readers: (left: SharedReader, right: SharedReader)

    /// One of the two images, in one state, as its header tells of it.
    struct Side: Sendable {
        let volume: any ObjectBacked
        let revision: Revision
        let header: ImageHeader
        let size: ByteCount
        let objects: DataObjects

        var objectCount: Int { header.striping.objectCount(of: size) }

        func map() async throws(VolumeError) -> ObjectMap? {
            try await volume.pool.objectMap(of: revision.snapshot?.id, header)
        }
    }

    init(_ left: Side, _ right: Side) {
        self.left = left
        self.right = right
        sizes = (left.size, right.size)
        striping = left.header.striping
        pieceSize = left.header.objectSize
        space = ByteCount(UInt64(max(left.objectCount, right.objectCount)) * pieceSize.bytes)
        readers = (SharedReader(of: left.volume, at: left.revision), SharedReader(of: right.volume, at: right.revision))
    }

    func close() async {
        await readers.left.close()
        await readers.right.close()
    }

    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError) {
        func hand(_ numbers: Range<Int>) {
            found(
                Extent(
                    from: ByteOffset(UInt64(numbers.lowerBound) * pieceSize.bytes),
                    to: ByteOffset(min(UInt64(numbers.upperBound) * pieceSize.bytes, space.bytes))))
        }
        guard let ours = try await left.map(), let theirs = try await right.map() else {
            return hand(0..<max(left.objectCount, right.objectCount))
        }
        ours.existingRuns(with: theirs, hand)
    }

    func firstDifference(in piece: Extent) async throws(VolumeError) -> Extent? {
        let number = Int(piece.offset.bytes / pieceSize.bytes)
        // An object smaller than a chunk is hashed as one.
        let chunk = min(Self.chunk, pieceSize)
        let start = ByteOffset(piece.offset.bytes % pieceSize.bytes).rounded(downTo: chunk)
        let end = ByteOffset((piece.end.bytes - 1) % pieceSize.bytes + 1).rounded(upTo: chunk)
        let part = Extent(from: start, to: end)
        let ours = try await left.objects.digest(of: number, in: part, chunk: chunk)
        let theirs = try await right.objects.digest(of: number, in: part, chunk: chunk)
        if ours == nil, theirs == nil { return nil }
        let zero = chunk == Self.chunk ? Self.zeroHash : xxhash64(ofZeros: chunk)
        func hash(_ digest: ObjectDigest?, _ index: Int, at offset: ByteOffset) -> UInt64? {
            guard let digest else { return zero }
            guard let hashes = digest.hashes else { return nil }
            if index < hashes.count { return hashes[index] }
            // Past the object's end there are only zeros; a chunk that it ends in wasn't hashed.
            return offset.bytes >= digest.size.bytes ? zero : nil
        }
        let longer = max(ours?.size ?? .zero, theirs?.size ?? .zero)
        for index in 0..<part.length.pieces(of: chunk) {
            let offset = start + ByteCount(UInt64(index) * chunk.bytes)
            guard offset.bytes < longer.bytes else { break }
            if let our = hash(ours, index, at: offset), let their = hash(theirs, index, at: offset), our == their {
                continue
            }
            for extent in striping.imageExtents(of: Extent(offset: offset, length: chunk), in: number) {
                if let difference = try await firstDifferenceRead(in: extent) { return difference }
            }
        }
        return nil
    }

    /// Reads both sides, to tell a difference from hashes that can't be compared, and to name the bytes.
    private func firstDifferenceRead(in extent: Extent) async throws(VolumeError) -> Extent? {
        let extent = extent.intersection(Extent(offset: .zero, length: sizes.ours))
        guard !extent.isEmpty else { return nil }
        return try await firstDifferenceByReading(readers.left.reader(), readers.right.reader(), in: extent)
    }
}

/// A reader that several workers need at a time, or none at all.
private actor SharedReader {
    private let volume: any Volume
    private let revision: Revision
    private var opening: Task<Result<any VolumeReader, VolumeError>, Never>?

    init(of volume: any Volume, at revision: Revision) {
        self.volume = volume
        self.revision = revision
    }

    func reader() async throws(VolumeError) -> any VolumeReader {
        let opening =
            opening
            // Owned by this actor: whoever asks meanwhile waits for the same one, and `close` does as well.
            ?? Task { [volume, revision] in
                do throws(VolumeError) {
                    return .success(try await volume.open(revision))
                } catch {
                    return .failure(error)
                }
            }
        self.opening = opening
        return try await opening.value.get()
    }

    func close() async {
        if case .success(let reader) = await opening?.value { await reader.close() }
    }
}

/// A volume whose objects can be compared.
protocol ObjectBacked: Volume {
    var pool: Pool { get }
    /// Nothing if it has none that says enough.
    func header() async throws(VolumeError) -> ImageHeader?
}

extension ObjectBacked {
    package func comparison(
        of revision: Revision, with other: any Volume, at otherRevision: Revision
    ) async throws(VolumeError) -> (any Comparison)? {
        guard let other = other as? any ObjectBacked, let left = try await side(at: revision),
            let right = try await other.side(at: otherRevision), left.header.layout.placesBytesLike(right.header.layout)
        else { return nil }
        return ObjectComparison(left, right)
    }

    /// A state of it; nothing if its objects don't hold its bytes alone, or not in the usual way.
    private func side(at revision: Revision) async throws(VolumeError) -> ObjectComparison.Side? {
        guard let header = try await header(), header.holdsAllInObjects else { return nil }
        guard let state = header.state(of: revision.snapshot?.id) else {
            throw VolumeError(
                .missing, "open", on: address, reason: "snapshot \(revision.snapshot?.name ?? "") is gone")
        }
        return ObjectComparison.Side(
            volume: self, revision: revision, header: header, size: state.size,
            objects: try pool.dataObjects(of: header).showing(revision.snapshot?.id ?? CCEPH_HEAD))
    }
}

extension RBDSource: ObjectBacked {}

extension RBDTarget: ObjectBacked {
    func header() async throws(VolumeError) -> ImageHeader? { try await pool.header(ofImage: try await currentName()) }
}
