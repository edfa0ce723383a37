package import NIOCore
internal import Volumes

// What a client may ask. NBD protocol, "Request message", "Request types".
extension ClientSession {
    /// Asks for something, by the same rules as it is looked at.
    ///
    /// - Parameters:
    ///   - command: Of a write its bytes are to be sent right after what is returned. Of a block status all contexts of
    ///     the agreement, or some of them if it has `blockStatusPayload`.
    ///   - flags: `fua`, `df`, `reqOne`; the others follow from the command.
    /// - Returns: What is to be sent, and the number under which the reply comes.
    /// - Throws: If the server doesn't offer that, or it is out of the export's bounds; nothing is in flight then.
    package mutating func request(_ command: Request.Command, _ flags: CommandFlags = []) throws(Refusal)
        -> (cookie: UInt64, bytes: ByteBuffer)
    {
        guard let rules, !isLeaving, !isClosed else { preconditionFailure("requests come between entry and end") }
        guard !isServerLeaving else { throw Refusal(.shutdown, "the server is about to stop") }
        guard pending.count < limits.pending else {
            throw Refusal(.noMemory, "\(limits.pending) requests are in flight")
        }
        let cookie = lastCookie + 1
        var header = RequestHeader(
            flags: flags.intersection([.fua, .df, .reqOne]), type: command.type.rawValue, cookie: cookie,
            offset: command.extent?.offset.bytes ?? 0, length: command.extent?.length.bytes ?? 0)
        var payload: (length: UInt64, ids: [UInt32])?
        switch command {
        case .write: if style == .extended { header.flags.insert(.payloadLen) }
        case .writeZeroes(_, let noHole, let fast):
            if noHole { header.flags.insert(.noHole) }
            if fast { header.flags.insert(.fastZero) }
        case .blockStatus(let extent, let contexts) where contexts != rules.agreement.contexts:
            guard rules.agreement.flags.contains(.blockStatusPayload) else {
                throw Refusal(.invalid, "this server tells the status of all contexts at once")
            }
            payload = (extent.length.bytes, contexts.map(\.id))
            header.flags.insert(.payloadLen)
            header.length = UInt64(8 + 4 * contexts.count)
        case .read, .flush, .trim, .cache, .blockStatus: break
        }
        let request = try rules.request(header, payload: payload)
        guard style == .extended || header.length <= UInt64(UInt32.max) else {
            throw Refusal(.overflow, "a length of 32 bits is all that this server takes")
        }
        lastCookie = cookie
        pending[cookie] = Pending(request)
        var bytes = ByteBuffer()
        header.write(to: &bytes, in: style)
        if let payload {
            bytes.writeInteger(payload.length)
            for id in payload.ids { bytes.writeInteger(id) }
        }
        return (cookie, bytes)
    }
}

extension Request.Command {
    var type: CommandType {
        switch self {
        case .read: .read
        case .write: .write
        case .flush: .flush
        case .trim: .trim
        case .cache: .cache
        case .writeZeroes: .writeZeroes
        case .blockStatus: .blockStatus
        }
    }
}
