internal import NBDProtocol
internal import Volumes

/// How what is wanted is cut into what may be asked. NBD protocol, "Size constraints".
struct RequestShape: Equatable {
    /// Requests begin and end at its multiples.
    let block: ByteCount
    /// Bytes that one request carries at most; a multiple of the block.
    let most: ByteCount
    /// Zeros asked for by one request, which carries none of them: a few seconds' work for a slow disk, so that the
    /// server is never silent for long.
    static let mostZeros = ByteCount.mebibytes(64)
    /// Bytes whose status is asked for at once, within the 32 bits that a length may have.
    static let mostStatus = ByteCount.gibibytes(1)

    init(_ sizes: BlockSizes) {
        block = ByteCount(UInt64(sizes.minimum))
        most = ByteCount(UInt64(sizes.maximumPayload / sizes.minimum * sizes.minimum))
    }

    /// An extent that begins and ends anywhere: whole blocks, and what lies in others.
    struct Cut: Equatable {
        /// Whole blocks; may be empty.
        var body: Extent
        /// Parts of one block each, of different ones: none, one or two.
        var edges: [Extent]
    }

    func cut(_ extent: Extent) -> Cut {
        guard !extent.isEmpty else { return Cut(body: extent, edges: []) }
        let (first, last) = (extent.offset.rounded(upTo: block), extent.end.rounded(downTo: block))
        guard first <= last else { return Cut(body: Extent(from: first, to: first), edges: [extent]) }
        return Cut(
            body: Extent(from: first, to: last),
            edges: [Extent(from: extent.offset, to: first), Extent(from: last, to: extent.end)].filter { !$0.isEmpty })
    }

    /// The blocks that an extent lies in.
    func widened(_ extent: Extent) -> Extent {
        Extent(from: extent.offset.rounded(downTo: block), to: extent.end.rounded(upTo: block))
    }
}
