internal import Volumes

/// Looks at requests as the agreement has it. NBD protocol, "Request types", "Command flags", "Error values".
struct RequestRules {
    let agreement: Agreement

    /// A request that may be carried out.
    ///
    /// - Parameter payload: Of an `NBD_CMD_BLOCK_STATUS` that came with one: the length it is about, and contexts.
    func request(_ header: RequestHeader, payload: (length: UInt64, ids: [UInt32])? = nil) throws(Refusal) -> Request {
        guard let type = CommandType(rawValue: header.type) else {
            throw Refusal(.invalid, "no command \(header.type)")
        }
        var contexts = agreement.contexts
        if let payload { contexts = try chosen(payload.ids) }
        try checkFlags(header.flags, of: type, hasContexts: payload != nil)
        try checkFeature(type)
        let command: Request.Command =
            switch type {
            case .read: .read(try extent(header, most: agreement.blockSizes.maximumPayload))
            case .write: .write(try extent(header, most: agreement.blockSizes.maximumPayload))
            case .trim: .trim(try extent(header))
            case .cache: .cache(try extent(header))
            case .writeZeroes:
                .writeZeroes(
                    try extent(header), noHole: header.flags.contains(.noHole), fast: header.flags.contains(.fastZero))
            case .blockStatus:
                .blockStatus(try extent(header, length: payload?.length), contexts: contexts)
            case .flush: try flush(header)
            case .disconnect: throw Refusal(.invalid, "NBD_CMD_DISC is nothing to carry out")
            }
        return Request(
            command: command, isFUA: header.flags.contains(.fua), isUnfragmented: header.flags.contains(.df),
            isReqOne: header.flags.contains(.reqOne), cookie: header.cookie, offset: header.offset)
    }

    private func checkFlags(_ flags: CommandFlags, of type: CommandType, hasContexts: Bool) throws(Refusal) {
        // Clients are known to send FUA with commands that write nothing; the specification allows it with all.
        var allowed: CommandFlags = agreement.flags.contains(.fua) ? [.fua] : []
        switch type {
        case .read: if agreement.flags.contains(.df) { allowed.insert(.df) }
        case .write: if agreement.style == .extended { allowed.insert(.payloadLen) }
        case .writeZeroes:
            allowed.insert(.noHole)
            if agreement.flags.contains(.fastZero) { allowed.insert(.fastZero) }
        case .blockStatus:
            allowed.insert(.reqOne)
            if hasContexts { allowed.insert(.payloadLen) }
        case .disconnect, .flush, .trim, .cache: break
        }
        let others = flags.subtracting(allowed)
        guard others.isEmpty else {
            throw Refusal(.invalid, "the command flags 0x\(String(others.rawValue, radix: 16)) aren't for it")
        }
        if type == .write, agreement.style == .extended, !flags.contains(.payloadLen) {
            throw Refusal(.invalid, "NBD_CMD_WRITE came without NBD_CMD_FLAG_PAYLOAD_LEN")
        }
    }

    /// What isn't offered, or not on this export.
    private func checkFeature(_ type: CommandType) throws(Refusal) {
        let flags = agreement.flags
        let isOffered =
            switch type {
            case .read, .write, .disconnect: true
            case .flush: flags.contains(.flush)
            case .trim: flags.contains(.trim)
            case .cache: flags.contains(.cache)
            case .writeZeroes: flags.contains(.writeZeroes)
            case .blockStatus: !agreement.contexts.isEmpty
            }
        let changes: Set<CommandType> = [.write, .trim, .writeZeroes]
        if flags.contains(.readOnly), changes.contains(type) {
            throw Refusal(.notPermitted, "the export is read-only")
        }
        guard isOffered else { throw Refusal(.invalid, "\(type) was not offered") }
    }

    private func flush(_ header: RequestHeader) throws(Refusal) -> Request.Command {
        guard header.offset == 0, header.length == 0 else {
            throw Refusal(.invalid, "offset and length of NBD_CMD_FLUSH are zero")
        }
        return .flush
    }

    /// The bytes that a request is about. All sums are made so that no announced number can overflow.
    private func extent(_ header: RequestHeader, length: UInt64? = nil, most: UInt32? = nil) throws(Refusal) -> Extent {
        let (offset, length) = (header.offset, length ?? header.length)
        // The specification leaves open what no bytes mean.
        guard length > 0 else { throw Refusal(.invalid, "a length of zero") }
        let minimum = UInt64(agreement.blockSizes.minimum)
        guard offset % minimum == 0, length % minimum == 0 else {
            throw Refusal(.invalid, "not aligned to the minimum block size of \(minimum) bytes")
        }
        let size = agreement.size.bytes
        guard offset <= size, length <= size - offset else {
            let isWrite =
                header.type == CommandType.write.rawValue || header.type == CommandType.writeZeroes.rawValue
            throw Refusal(isWrite ? .noSpace : .invalid, "reaches beyond the end of the export at \(size) bytes")
        }
        if let most, length > most {
            // NBD_EOVERFLOW is for requests without a payload of their own.
            let isRead = header.type == CommandType.read.rawValue
            let error = isRead && agreement.style != .simple ? ErrorValue.overflow : .invalid
            throw Refusal(error, "at most \(most) bytes go over the wire at once")
        }
        return Extent(offset: ByteOffset(offset), length: ByteCount(length))
    }

    /// The contexts with these numbers, or none of them: unknown and repeated ones are the client's error.
    private func chosen(_ ids: [UInt32]) throws(Refusal) -> [ChosenContext] {
        var chosen: [ChosenContext] = []
        for id in ids {
            guard let context = agreement.contexts.first(where: { $0.id == id }), !chosen.contains(context) else {
                throw Refusal(.invalid, "metadata context \(id) is unknown, or named twice")
            }
            chosen.append(context)
        }
        guard !chosen.isEmpty else { throw Refusal(.invalid, "no metadata context is named") }
        return chosen
    }
}
