package import Volumes

/// What requests must keep to. NBD protocol, "Size constraints".
package struct BlockSizes: Sendable, Equatable {
    /// Bytes; offsets and lengths are multiples of it.
    package let minimum: UInt32
    /// Bytes; multiples of it are served best.
    package let preferred: UInt32
    /// Bytes that one request may carry, in either direction.
    package let maximumPayload: UInt32

    /// What holds if nothing else was said.
    package static let standard = BlockSizes(minimum: 1, preferred: 4096, maximumPayload: Bounds.payload)!

    /// Nothing if the specification forbids them: powers of two, in order, the minimum no larger than 64 KiB.
    package init?(minimum: UInt32, preferred: UInt32, maximumPayload: UInt32) {
        guard minimum.nonzeroBitCount == 1, minimum <= Bounds.minimumBlock, preferred.nonzeroBitCount == 1,
            preferred >= max(minimum, 512), maximumPayload >= preferred
        else { return nil }
        (self.minimum, self.preferred, self.maximumPayload) = (minimum, preferred, maximumPayload)
    }
}

/// A kind of status that blocks have. NBD protocol, "Metadata querying".
package struct MetaContext: Sendable, Hashable {
    /// "base:allocation": a namespace, a colon, a leaf name.
    package let name: String

    package init(_ name: String) { self.name = name }

    /// Flags: `BlockStatus.hole`, `BlockStatus.zero`. NBD protocol, "`base:allocation` metadata context".
    package static let allocation = MetaContext("base:allocation")
    /// Flag: `BlockStatus.dirty`. Godwit's own: what was changed since the newest state was held of a volume that is
    /// moved beneath its clients. The specification leaves names that aren't registered to namespaces `x-…`.
    package static let dirty = MetaContext("x-godwit:dirty")
    /// QEMU's bitmap of that name; flag `BlockStatus.dirty` (QEMU, docs/interop/nbd.txt).
    package static func qemuDirtyBitmap(_ name: String) -> MetaContext { MetaContext("qemu:dirty-bitmap:\(name)") }

    /// The part before the colon, and the colon.
    var namespace: Substring { name[...(name.firstIndex(of: ":") ?? name.startIndex)] }
}

/// A context that both ends agreed on, under the number that replies carry.
package struct ChosenContext: Sendable, Hashable {
    package let id: UInt32
    package let context: MetaContext

    package init(id: UInt32, context: MetaContext) { (self.id, self.context) = (id, context) }
}

/// A run of blocks that have one status.
package struct BlockStatus: Sendable, Hashable {
    /// `NBD_STATE_HOLE`, of `base:allocation`.
    package static let hole: UInt64 = 1 << 0
    /// `NBD_STATE_ZERO`, of `base:allocation`.
    package static let zero: UInt64 = 1 << 1
    /// Of `x-godwit:dirty` and `qemu:dirty-bitmap:…`.
    package static let dirty: UInt64 = 1 << 0

    package var length: ByteCount
    package var flags: UInt64

    package init(length: ByteCount, flags: UInt64) { (self.length, self.flags) = (length, flags) }
}

/// An export as a server offers it.
package struct ExportInfo: Sendable, Equatable {
    /// As `NBD_OPT_LIST` tells it.
    package var name: String
    /// For people; empty if there is none.
    package var description: String
    package var size: ByteCount
    /// What it is able to. `NBD_FLAG_HAS_FLAGS`, `NBD_FLAG_SEND_DF` and `NBD_FLAG_BLOCK_STATUS_PAYLOAD` are the
    /// session's to add.
    package var flags: TransmissionFlags
    package var blockSizes: BlockSizes
    package var contexts: [MetaContext]

    /// - Parameters:
    ///   - size: A multiple of the minimum block size: the last bytes could not be reached otherwise.
    ///   - blockSizes: A payload of at most 32 MiB.
    package init(
        name: String, description: String = "", size: ByteCount, flags: TransmissionFlags,
        blockSizes: BlockSizes = .standard, contexts: [MetaContext] = [.allocation]
    ) {
        precondition(name.isNBDString && contexts.allSatisfy { $0.name.isNBDString }, "no string of the protocol")
        precondition(size.bytes % UInt64(blockSizes.minimum) == 0, "the last bytes could not be reached")
        precondition(size.bytes <= UInt64(Int64.max), "a volume has at most 2^63 - 1 bytes")
        precondition(blockSizes.maximumPayload <= Bounds.payload, "a session takes at most 32 MiB at once")
        precondition(
            !flags.contains(.fastZero) || flags.contains(.writeZeroes), "NBD_FLAG_SEND_FAST_ZERO needs WRITE_ZEROES")
        self.name = name
        self.description = description
        self.size = size
        self.flags = flags
        self.blockSizes = blockSizes
        self.contexts = contexts
    }
}

/// How replies look, as both ends agreed.
package enum ReplyStyle: Sendable, Equatable, CaseIterable {
    /// Neither was asked for.
    case simple
    /// `NBD_OPT_STRUCTURED_REPLY`
    case structured
    /// `NBD_OPT_EXTENDED_HEADERS`
    case extended
}

/// What the handshake ended with.
package struct Agreement: Sendable, Equatable {
    /// The export's name as the client asked for it.
    package var exportName: String
    package var size: ByteCount
    /// With all that the session added.
    package var flags: TransmissionFlags
    package var blockSizes: BlockSizes
    package var style: ReplyStyle
    package var contexts: [ChosenContext]
    /// Whether all of this was said under TLS.
    package var isUnderTLS: Bool
}
