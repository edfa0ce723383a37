package import NIOCore
package import Volumes

/// Makes replies in the style that was agreed on. Each function's bytes are one piece of the stream; pieces of replies
/// to different requests may be interleaved.
package struct ReplyEncoder: Sendable {
    package let style: ReplyStyle
    private let maximumPayload: UInt32

    package init(_ agreement: Agreement) {
        style = agreement.style
        maximumPayload = agreement.blockSizes.maximumPayload
    }

    /// The request was carried out. Not for reads and block status, which have more to say.
    package func done(_ request: Request) -> ByteBuffer {
        switch request.command {
        case .read, .blockStatus: preconditionFailure("its reply has content")
        case .write, .flush, .trim, .cache, .writeZeroes: break
        }
        var bytes = ByteBuffer()
        // With structured replies a simple one is allowed where there is no content, and is shorter.
        if style == .extended {
            header([.done], .none, request.cookie, request.offset, length: 0).write(to: &bytes)
        } else {
            ReplyHeader.simple(error: 0, cookie: request.cookie).write(to: &bytes)
        }
        return bytes
    }

    /// The request was not carried out, or not all of it. Of a read whose reply has begun, `ReadReply.failed`.
    ///
    /// - Parameters:
    ///   - message: For people; cut to 4096 bytes.
    ///   - place: Where it failed, if that is known; dropped where the protocol can't say it.
    package func failed(_ request: Request, _ error: ErrorValue, _ message: String = "", at place: ByteOffset? = nil)
        -> ByteBuffer
    {
        var offset: ByteOffset?
        if let place, let extent = request.extent, place >= extent.offset, place < extent.end { offset = place }
        return failed(cookie: request.cookie, offset: request.offset, error, message, at: offset)
    }

    func failed(
        cookie: UInt64, offset: UInt64, _ error: ErrorValue, _ message: String, at place: ByteOffset? = nil
    ) -> ByteBuffer {
        var bytes = ByteBuffer()
        guard style != .simple else {
            ReplyHeader.simple(error: error.rawValue, cookie: cookie).write(to: &bytes)
            return bytes
        }
        let text = message.asMessage
        let length = 6 + text.utf8.count + (place == nil ? 0 : 8)
        header([.done], place == nil ? .error : .errorOffset, cookie, offset, length: length).write(to: &bytes)
        bytes.writeMultipleIntegers(error.rawValue, UInt16(text.utf8.count))
        bytes.writeString(text)
        if let place { bytes.writeInteger(place.bytes) }
        return bytes
    }

    /// The answer to `NBD_CMD_BLOCK_STATUS`, whole.
    ///
    /// - Parameter statuses: For each context of the request its runs from the request's offset on: at least one that
    ///   isn't empty. What the request or the protocol has no room for is left off.
    package func status(_ request: Request, _ statuses: [UInt32: [BlockStatus]]) -> ByteBuffer {
        guard case .blockStatus(let extent, let contexts) = request.command, style != .simple else {
            preconditionFailure("no block status was asked for")
        }
        var bytes = ByteBuffer()
        for (index, context) in contexts.enumerated() {
            let runs = fitting(statuses[context.id] ?? [], to: extent, isReqOne: request.isReqOne)
            precondition(!runs.isEmpty, "\(context.context.name): a reply makes progress")
            let flags: ReplyFlags = index == contexts.count - 1 ? [.done] : []
            if style == .extended {
                header(flags, .blockStatusExt, request.cookie, request.offset, length: 8 + 16 * runs.count)
                    .write(to: &bytes)
                bytes.writeMultipleIntegers(context.id, UInt32(runs.count))
                for run in runs { bytes.writeMultipleIntegers(run.length.bytes, run.flags) }
            } else {
                header(flags, .blockStatus, request.cookie, request.offset, length: 4 + 8 * runs.count)
                    .write(to: &bytes)
                bytes.writeInteger(context.id)
                for run in runs { bytes.writeMultipleIntegers(UInt32(run.length.bytes), UInt32(run.flags)) }
            }
        }
        return bytes
    }

    /// NBD protocol, `NBD_REPLY_TYPE_BLOCK_STATUS`: all runs but the last end inside the request; with REQ_ONE there is
    /// one, that ends there as well.
    private func fitting(_ runs: [BlockStatus], to extent: Extent, isReqOne: Bool) -> [BlockStatus] {
        let most = min(Bounds.descriptors, Int(maximumPayload) / (style == .extended ? 16 : 8))
        var fitting: [BlockStatus] = []
        var covered = ByteCount.zero
        for run in runs where run.length > .zero {
            if let last = fitting.last, last.flags == run.flags {
                fitting[fitting.count - 1].length += run.length
                covered += run.length
                continue
            }
            guard covered < extent.length, fitting.count < most, !isReqOne || fitting.isEmpty else { break }
            fitting.append(run)
            covered += run.length
        }
        // Beyond the request only as far as the field goes, and not at all with REQ_ONE.
        let fits = style == .extended || (fitting.last?.length.bytes ?? 0) <= UInt64(UInt32.max)
        if covered > extent.length, isReqOne || !fits {
            fitting[fitting.count - 1].length -= covered - extent.length
        }
        return fitting
    }

    func header(_ flags: ReplyFlags, _ type: ChunkType, _ cookie: UInt64, _ offset: UInt64, length: Int)
        -> ReplyHeader
    {
        .chunk(
            flags: flags, type: type, cookie: cookie, offset: style == .extended ? offset : nil,
            length: UInt64(length))
    }
}
