package import NIOCore
package import Volumes

/// The answer to one `NBD_CMD_READ`, chunk by chunk, in any order. Every byte is told once; the chunk that completes
/// them ends the reply.
package struct ReadReply: Sendable {
    private let encoder: ReplyEncoder
    private let request: Request
    private let whole: Extent
    private var told = Coverage()

    package init(to request: Request, _ encoder: ReplyEncoder) {
        guard case .read(let extent) = request.command else { preconditionFailure("no read") }
        (self.encoder, self.request, self.whole) = (encoder, request, extent)
    }

    /// Whether there may be several chunks, and holes among them. If not, all bytes are told by one `data`.
    package var mayFragment: Bool { encoder.style != .simple && !request.isUnfragmented }

    package var isComplete: Bool { told.isAll(of: whole) }

    /// What goes before the bytes of `extent`, which follow it on the stream at once and whole.
    ///
    /// - Parameter extent: Its bytes have been read, so that nothing can fail any more. A part of the request that was
    ///   not told before; all of it, unless `mayFragment`.
    package mutating func data(_ extent: Extent) -> ByteBuffer {
        tell(extent)
        var bytes = ByteBuffer()
        guard encoder.style != .simple else {
            ReplyHeader.simple(error: 0, cookie: request.cookie).write(to: &bytes)
            return bytes
        }
        header(.offsetData, length: 8 + Int(extent.length.bytes)).write(to: &bytes)
        bytes.writeInteger(extent.offset.bytes)
        return bytes
    }

    /// A part of the request that reads as zeros, without its bytes. Only where `mayFragment`.
    package mutating func hole(_ extent: Extent) -> ByteBuffer {
        precondition(mayFragment, "zeros are sent as data here")
        tell(extent)
        var bytes = ByteBuffer()
        header(.offsetHole, length: 12).write(to: &bytes)
        bytes.writeMultipleIntegers(extent.offset.bytes, UInt32(extent.length.bytes))
        return bytes
    }

    /// Ends a reply that isn't complete.
    /// - Parameters: As of `ReplyEncoder.failed`.
    package func failed(_ error: ErrorValue, _ message: String = "", at place: ByteOffset? = nil) -> ByteBuffer {
        precondition(!isComplete, "the reply has ended")
        return encoder.failed(request, error, message, at: place)
    }

    private mutating func tell(_ extent: Extent) {
        precondition(!extent.isEmpty && extent.intersection(whole) == extent, "not a part of the request")
        precondition(mayFragment || extent == whole, "one chunk tells all")
        let isNew = told.insert(extent)
        precondition(isNew, "told twice")
    }

    private func header(_ type: ChunkType, length: Int) -> ReplyHeader {
        encoder.header(isComplete ? [.done] : [], type, request.cookie, request.offset, length: length)
    }
}
