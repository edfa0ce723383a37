internal import NIOCore

// Requests: in order, refused, or the end. NBD protocol, "Transmission".
extension ServerSession {
    mutating func takeRequest(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard let rules else { preconditionFailure("no requests before the handshake's end") }
        let style = rules.agreement.style
        guard var bytes = intake.take(RequestHeader.length(in: style), from: &input) else { return .wait }
        let header = try RequestHeader(from: &bytes, in: style)
        if header.type == CommandType.disconnect.rawValue { return .step(.close(end(.agreed))) }
        let payload = header.payloadLength(in: style)
        guard payload <= Bounds.payload else {
            throw .tooLong("a payload", announced: payload, most: UInt64(Bounds.payload))
        }
        do throws(Refusal) {
            guard !isShuttingDown else { throw Refusal(.shutdown, "the server is about to stop") }
            if header.type == CommandType.blockStatus.rawValue, header.flags.contains(.payloadLen) {
                try checkContexts(header, rules)
                state = .contexts(header)
                return .again
            }
            let request = try rules.request(header)
            if payload > 0 { state = .payload(remaining: Int(payload)) }
            return .step(.request(request))
        } catch {
            state = .skippingPayload(header, remaining: Int(payload), error)
            return .again
        }
    }

    /// Whether a list of contexts may come, of that length: extension EXTENDED_HEADERS, `NBD_CMD_BLOCK_STATUS`.
    private func checkContexts(_ header: RequestHeader, _ rules: RequestRules) throws(Refusal) {
        guard rules.agreement.flags.contains(.blockStatusPayload) else {
            throw Refusal(.invalid, "a payload of NBD_CMD_BLOCK_STATUS was not offered")
        }
        let most = UInt64(8 + 4 * rules.agreement.contexts.count)
        guard header.length >= 12, header.length <= most, header.length % 4 == 0 else {
            throw Refusal(.invalid, "a list of contexts has 12 to \(most) bytes")
        }
    }

    mutating func takeContexts(_ header: RequestHeader, _ input: inout ByteBuffer) -> Turn {
        guard let rules, var bytes = intake.take(Int(header.length), from: &input),
            let length = bytes.readInteger(as: UInt64.self)
        else { return .wait }
        var ids: [UInt32] = []
        while let id = bytes.readInteger(as: UInt32.self) { ids.append(id) }
        state = .request
        do throws(Refusal) {
            return .step(.request(try rules.request(header, payload: (length, ids))))
        } catch {
            return .step(refuse(header, error))
        }
    }

    mutating func takePayload(_ remaining: Int, _ input: inout ByteBuffer) -> Turn {
        guard let piece = input.readSlice(length: min(remaining, input.readableBytes)), piece.readableBytes > 0 else {
            return .wait
        }
        let rest = remaining - piece.readableBytes
        state = rest == 0 ? .request : .payload(remaining: rest)
        return .step(.payload(piece, remaining: rest))
    }

    /// The request's payload, if any, was read over: the place in the stream is known, and the error can be told.
    mutating func refuse(_ header: RequestHeader, _ refusal: Refusal) -> Step {
        guard let rules else { preconditionFailure("no requests before the handshake's end") }
        state = .request
        return .send(
            ReplyEncoder(rules.agreement).failed(
                cookie: header.cookie, offset: header.offset, refusal.error, refusal.message))
    }
}
