internal import NIOCore
internal import Volumes

// Replies to requests, and every way in which they can be untrue. NBD protocol, "Structured reply types".
extension ClientSession {
    /// Descriptors in one step.
    private static let batch = 1024

    mutating func takeReplyMagic(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard var bytes = intake.take(ReplyHeader.magicLength, from: &input),
            let magic = bytes.readInteger(as: UInt32.self)
        else { return .wait }
        guard let length = ReplyHeader.length(after: magic, in: style) else { throw .magic(found: UInt64(magic)) }
        state = .replyHeader(magic: magic, length: length)
        return .again
    }

    mutating func begin(_ header: ReplyHeader) throws(Violation) -> Turn {
        guard let request = pending[header.cookie]?.request else { throw .unknownCookie(header.cookie) }
        switch header {
        case .simple(let error, let cookie): return try beginSimple(error, cookie, request)
        case .chunk(let flags, let type, let cookie, let offset, let length):
            guard offset == nil || offset == request.offset else {
                throw .unexpected("a reply at \(offset ?? 0) to a request at \(request.offset)")
            }
            pending[cookie]?.chunks += 1
            guard pending[cookie]?.chunks ?? 0 <= limits.chunks else {
                throw .tooMany("chunks of a reply", most: limits.chunks)
            }
            let chunk = Chunk(type: type, cookie: cookie, length: length, isDone: flags.contains(.done))
            let fixed = try fixedLength(of: chunk, request)
            state = .chunk(chunk, length: fixed)
            return .again
        }
    }

    private mutating func beginSimple(_ error: UInt32, _ cookie: UInt64, _ request: Request) throws(Violation) -> Turn {
        if error != 0 {
            guard style == .simple || request.command.type != .read else {
                throw .unexpected("a simple reply to a read, when structured ones were agreed on")
            }
            fail(cookie, RequestFailure(error: ErrorValue(wire: error), message: "", offset: nil))
            return .step(try finish(cookie))
        }
        switch request.command {
        case .read(let extent):
            guard style == .simple else {
                throw .unexpected("a simple reply to a read, when structured ones were agreed on")
            }
            try pending[cookie]?.tell(extent.offset.bytes, extent.length.bytes, pieces: limits.pieces)
            state = .data(
                cookie: cookie, offset: extent.offset.bytes, remaining: extent.length.bytes, isDone: true)
            return .again
        case .blockStatus: throw .unexpected("a simple reply to a block status")
        case .write, .flush, .trim, .cache, .writeZeroes: return .step(try finish(cookie))
        }
    }

    /// How many bytes of a chunk are waited for at once, after all that its header says was held against its bounds.
    private func fixedLength(of chunk: Chunk, _ request: Request) throws(Violation) -> Int {
        let (length, type) = (chunk.length, chunk.type)
        let range: ClosedRange<UInt64>
        let fixed: Int
        switch (type, request.command) {
        case (.none, _):
            guard chunk.isDone else { throw .malformed("an NBD_REPLY_TYPE_NONE without NBD_REPLY_FLAG_DONE") }
            (range, fixed) = (0...0, 0)
        case (.offsetData, .read(let extent)): (range, fixed) = (9...8 + extent.length.bytes, 8)
        case (.offsetHole, .read): (range, fixed) = (12...12, 12)
        case (.blockStatus, .blockStatus) where style == .structured:
            (range, fixed) = (12...4 + 8 * UInt64(request.isReqOne ? 1 : Bounds.descriptors), 4)
            guard length % 8 == 4 else { throw .malformed("a block status of \(length) bytes") }
        case (.blockStatusExt, .blockStatus) where style == .extended:
            (range, fixed) = (24...8 + 16 * UInt64(request.isReqOne ? 1 : Bounds.descriptors), 8)
            guard length % 16 == 8 else { throw .malformed("a block status of \(length) bytes") }
        case (.errorOffset, _): (range, fixed) = (14...UInt64(14 + Bounds.string), Int(clamping: length))
        case let (type, _) where type.isError:
            (range, fixed) = (6...UInt64(14 + Bounds.string), Int(clamping: length))
        default: throw .unexpected("a chunk of type \(type.rawValue) in reply to \(request.command.type)")
        }
        guard range.contains(length) else {
            if length > range.upperBound {
                throw .tooLong("a chunk of type \(type.rawValue)", announced: length, most: range.upperBound)
            }
            throw .malformed("a chunk of type \(type.rawValue) of \(length) bytes")
        }
        return fixed
    }

    /// A chunk's fixed part is there.
    mutating func take(_ chunk: Chunk, _ bytes: inout ByteBuffer) throws(Violation) -> Turn {
        state = chunk.isDone ? .finishing(cookie: chunk.cookie) : .replyMagic
        switch chunk.type {
        case .none: return .again
        case .offsetData:
            let offset = bytes.readInteger(as: UInt64.self) ?? 0
            try pending[chunk.cookie]?.tell(offset, chunk.length - 8, pieces: limits.pieces)
            state = .data(cookie: chunk.cookie, offset: offset, remaining: chunk.length - 8, isDone: chunk.isDone)
            return .again
        case .offsetHole:
            let (offset, length) = bytes.readMultipleIntegers(as: (UInt64, UInt32).self) ?? (0, 0)
            try pending[chunk.cookie]?.tell(offset, UInt64(length), pieces: limits.pieces)
            let hole = Extent(offset: ByteOffset(offset), length: ByteCount(UInt64(length)))
            return .step(.hole(cookie: chunk.cookie, hole))
        case .blockStatus, .blockStatusExt:
            state = .descriptors(try descriptors(of: chunk, &bytes))
            return .again
        default:
            fail(chunk.cookie, try failure(of: chunk, &bytes))
            return .again
        }
    }

    mutating func takeData(
        _ cookie: UInt64, _ offset: UInt64, _ remaining: UInt64, _ isDone: Bool, _ input: inout ByteBuffer
    ) -> Turn {
        let count = min(remaining, UInt64(input.readableBytes))
        guard count > 0, let piece = input.readSlice(length: Int(count)) else { return .wait }
        if remaining > count {
            state = .data(cookie: cookie, offset: offset + count, remaining: remaining - count, isDone: isDone)
        } else {
            state = isDone ? .finishing(cookie: cookie) : .replyMagic
        }
        return .step(.data(cookie: cookie, offset: ByteOffset(offset), piece))
    }

    private mutating func descriptors(of chunk: Chunk, _ bytes: inout ByteBuffer) throws(Violation) -> Descriptors {
        let id = bytes.readInteger(as: UInt32.self) ?? 0
        guard case .blockStatus(_, let contexts)? = pending[chunk.cookie]?.request.command,
            let context = contexts.first(where: { $0.id == id }),
            pending[chunk.cookie]?.answered.insert(id).inserted == true
        else { throw .unexpected("a status of context \(id), which was not asked for, or again") }
        let isExtended = chunk.type == .blockStatusExt
        let count = Int(isExtended ? (chunk.length - 8) / 16 : (chunk.length - 4) / 8)
        if isExtended, let told = bytes.readInteger(as: UInt32.self), told != count {
            throw .malformed("a block status of \(count) descriptors that says \(told)")
        }
        return Descriptors(cookie: chunk.cookie, context: context, isDone: chunk.isDone, remaining: count)
    }

    mutating func take(_ descriptors: Descriptors, _ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard let rules, let request = pending[descriptors.cookie]?.request, let extent = request.extent else {
            preconditionFailure("descriptors belong to a request")
        }
        let width = style == .extended ? 16 : 8
        let whole = intake.count > 0 ? 1 : max(1, min(descriptors.remaining, Self.batch, input.readableBytes / width))
        guard var bytes = intake.take(whole * width, from: &input) else { return .wait }
        var after = descriptors
        var statuses: [BlockStatus] = []
        for _ in 0..<whole {
            let length = style == .extended ? bytes.readInteger() : bytes.readInteger(as: UInt32.self).map(UInt64.init)
            let flags = style == .extended ? bytes.readInteger() : bytes.readInteger(as: UInt32.self).map(UInt64.init)
            guard let length, let flags, length > 0 else { throw .wrongBytes("the status of no bytes") }
            // NBD protocol, NBD_REPLY_TYPE_BLOCK_STATUS: only the last descriptor may go beyond the request.
            guard after.covered < extent.length.bytes, !request.isReqOne || length <= extent.length.bytes else {
                throw .wrongBytes("the status of more bytes than were asked about")
            }
            let left = rules.agreement.size.bytes - extent.offset.bytes - after.covered
            let told = min(length, left)
            after.covered += told
            statuses.append(BlockStatus(length: ByteCount(told), flags: flags))
        }
        after.remaining -= whole
        state =
            after.remaining > 0
            ? .descriptors(after) : after.isDone ? .finishing(cookie: after.cookie) : .replyMagic
        return .step(.status(cookie: after.cookie, after.context, statuses))
    }

    /// NBD protocol, `NBD_REPLY_TYPE_ERROR`, `NBD_REPLY_TYPE_ERROR_OFFSET`; of other errors what all have in common.
    private func failure(of chunk: Chunk, _ bytes: inout ByteBuffer) throws(Violation) -> RequestFailure {
        let fixed: UInt64 = chunk.type == .errorOffset ? 14 : 6
        guard let (error, count) = bytes.readMultipleIntegers(as: (UInt32, UInt16).self), error != 0,
            count <= Bounds.string, UInt64(count) <= chunk.length - fixed,
            let text = bytes.readBytes(length: Int(count))
        else { throw .malformed("an error chunk without an error, or with a message that doesn't fit") }
        var offset: ByteOffset?
        if chunk.type == .errorOffset {
            guard let place = bytes.readInteger(as: UInt64.self), let extent = pending[chunk.cookie]?.request.extent,
                place >= extent.offset.bytes, place < extent.end.bytes
            else { throw .wrongBytes("an error outside of its request") }
            offset = ByteOffset(place)
        }
        return RequestFailure(
            error: ErrorValue(wire: error), message: String(decoding: text, as: UTF8.self), offset: offset)
    }

    private mutating func fail(_ cookie: UInt64, _ failure: RequestFailure) {
        if failure.error == .shutdown { isServerLeaving = true }
        if pending[cookie]?.failure == nil { pending[cookie]?.failure = failure }
    }

    mutating func finish(_ cookie: UInt64) throws(Violation) -> Step {
        guard let request = pending.removeValue(forKey: cookie) else { preconditionFailure("it was in flight") }
        try request.checkComplete()
        state = .replyMagic
        return .finished(cookie: cookie, request.failure)
    }
}
