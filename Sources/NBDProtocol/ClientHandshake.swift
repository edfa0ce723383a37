internal import NIOCore
internal import Volumes

// The handshake as a script: TLS, then the style of replies, then contexts, then the export. NBD protocol, "Handshake".
extension ClientSession {
    mutating func takeMagic(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard var bytes = intake.take(16, from: &input),
            let (initial, second) = bytes.readMultipleIntegers(as: (UInt64, UInt64).self)
        else { return .wait }
        guard initial == Magic.initial else { throw .magic(found: initial) }
        guard second != Magic.oldstyle else { throw .oldstyle }
        guard second == Magic.option else { throw .magic(found: second) }
        state = .handshakeFlags
        return .again
    }

    mutating func takeHandshakeFlags(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard var bytes = intake.take(2, from: &input), let raw = bytes.readInteger(as: UInt16.self) else {
            return .wait
        }
        let flags = HandshakeFlags(rawValue: raw)
        noZeroes = flags.contains(.noZeroes)
        var answer: ClientFlags = noZeroes ? [.noZeroes] : []
        var message = ByteBuffer()
        if flags.contains(.fixedNewstyle) {
            answer.insert(.fixedNewstyle)
            message.writeInteger(answer.rawValue)
            message.writeImmutableBuffer(option(after: nil))
        } else {
            // Such a server ends the connection at any option but one.
            guard case .enter(let name) = plan.purpose, plan.tls == .off else { throw .notFixedNewstyle }
            message.writeInteger(answer.rawValue)
            message.writeImmutableBuffer(exportName(name))
        }
        return .step(.send(message))
    }

    mutating func ask(after option: OptionType?) -> Step { .send(self.option(after: option)) }

    /// The option that follows; its reply is waited for from now on.
    private mutating func option(after last: OptionType?) -> ByteBuffer {
        let next: OptionType
        var data = ByteBuffer()
        switch (last, plan.purpose) {
        case (nil, _) where plan.tls == .required: next = .startTLS
        case (nil, .list), (.startTLS, .list): next = .list
        case (nil, .relay(let offer)), (.startTLS, .relay(let offer)):
            next = .relay
            data = offer
        case (nil, _) where plan.wantsExtendedHeaders, (.startTLS, _) where plan.wantsExtendedHeaders:
            next = .extendedHeaders
        case (nil, _) where plan.wantsStructuredReplies, (.startTLS, _) where plan.wantsStructuredReplies,
            (.extendedHeaders, _) where plan.wantsStructuredReplies && style == .simple:
            next = .structuredReply
        case (_, .enter(let name)):
            if last != .setMetaContext, style != .simple, !plan.contexts.isEmpty {
                next = .setMetaContext
                data = MetaContextRequest(name: name, queries: plan.contexts.map(\.name)).data
            } else {
                next = .go
                data = ExportRequest(name: name, wishes: [.blockSize]).data
            }
        case (_, .list), (_, .relay): preconditionFailure("nothing is asked after it")
        }
        state = .optionReply(to: next)
        return OptionHeader.option(next, data: data)
    }

    private mutating func exportName(_ name: String) -> ByteBuffer {
        state = .exportNameReply
        return OptionHeader.option(.exportName, data: ByteBuffer(string: name))
    }

    mutating func takeOptionReply(to option: OptionType, _ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard var bytes = intake.take(OptionReplyHeader.length, from: &input) else { return .wait }
        let header = try OptionReplyHeader(from: &bytes)
        guard header.option == option.rawValue else {
            throw .unexpected("a reply to option \(header.option), when \(option.name) was asked")
        }
        let most: Int
        switch header.type {
        case .ack: most = 0
        case .server where option == .list: most = 4 + 2 * Bounds.string
        case .info where option == .go: most = 2 + Bounds.string
        case .metaContext where option == .setMetaContext: most = 4 + Bounds.string
        case .relay where option == .relay: most = Bounds.string
        case let type where type.isError: most = Bounds.string
        default: throw .unexpected("a reply of type \(header.type.rawValue) to \(option.name)")
        }
        guard header.length <= most else {
            throw .tooLong("a reply to \(option.name)", announced: UInt64(header.length), most: UInt64(most))
        }
        state = .optionReplyData(to: option, header)
        return .again
    }

    mutating func take(
        _ header: OptionReplyHeader, to option: OptionType, _ data: inout ByteBuffer, isLast: Bool
    ) throws(Violation) -> Turn {
        switch header.type {
        case .ack: return .step(try acknowledged(option, isLast: isLast))
        case .server:
            guard let export = ListedExport(from: &data) else { throw .malformed("an NBD_REP_SERVER of no shape") }
            guard told.exports.count < limits.exports else { throw .tooMany("exports", most: limits.exports) }
            told.exports.append(export)
        case .info: try take(&data)
        case .metaContext: try takeContext(&data)
        case .relay: told.grant = data
        default: return .step(refused(option, header.type, String(buffer: data)))
        }
        state = .optionReply(to: option)
        return .again
    }

    private mutating func take(_ information: inout ByteBuffer) throws(Violation) {
        told.information += 1
        guard told.information <= limits.information else {
            throw .tooMany("pieces of information", most: limits.information)
        }
        guard let information = Information(from: &information) else { throw .malformed("an NBD_REP_INFO of no shape") }
        switch information {
        case .export(let size, let flags): told.export = (size, flags)
        case .blockSize(let sizes): told.blockSizes = sizes
        case .name, .description, .other: break
        }
    }

    private mutating func takeContext(_ data: inout ByteBuffer) throws(Violation) {
        guard let id = data.readInteger(as: UInt32.self), let name = data.readText(length: data.readableBytes) else {
            throw .malformed("an NBD_REP_META_CONTEXT of no shape")
        }
        let context = MetaContext(name)
        guard plan.contexts.contains(context),
            !told.contexts.contains(where: { $0.id == id || $0.context == context })
        else { throw .unexpected("the metadata context \(name), which was not asked for, or again") }
        told.contexts.append(ChosenContext(id: id, context: context))
    }

    private mutating func acknowledged(_ option: OptionType, isLast: Bool) throws(Violation) -> Step {
        switch option {
        case .startTLS:
            // Otherwise who can write into the clear stream could have replies taken for the authenticated server's.
            guard isLast else { throw .clearAfterStartTLS }
            state = .upgrading
            return .startTLS
        case .extendedHeaders:
            style = .extended
            return ask(after: option)
        case .structuredReply:
            style = .structured
            return ask(after: option)
        case .setMetaContext: return ask(after: option)
        case .list:
            let exports = told.exports
            told.exports = []
            state = .closed
            return .listed(exports, last: OptionHeader.option(.abort))
        case .relay:
            guard let grant = told.grant else { throw .malformed("a relay was granted without a word") }
            state = .closed
            return .relayed(grant)
        case .go:
            guard let (size, flags) = told.export else { throw .malformed("NBD_OPT_GO without NBD_INFO_EXPORT") }
            return try enter(size: size, flags: flags)
        case .exportName, .abort, .info, .listMetaContext: preconditionFailure("\(option.name) isn't asked")
        }
    }

    private mutating func refused(_ option: OptionType, _ type: OptionReplyType, _ message: String) -> Step {
        let isFinal = type == .shutdown || type == .tlsRequired
        switch (option, plan.purpose) {
        case (.extendedHeaders, _) where !isFinal, (.structuredReply, _) where !isFinal:
            return ask(after: option)
        case (.setMetaContext, _) where !isFinal:
            // "The client MUST disregard any context replies that may have been sent."
            told.contexts = []
            return ask(after: option)
        case (.go, .enter(let name)) where type == .unsupported && style != .extended:
            return .send(exportName(name))
        default:
            return .close(end(.refused(option, type, message), last: OptionHeader.option(.abort)))
        }
    }

    mutating func takeExportNameReply(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard var bytes = intake.take(10 + (noZeroes ? 0 : 124), from: &input),
            let (size, flags) = bytes.readMultipleIntegers(as: (UInt64, UInt16).self)
        else { return .wait }
        return .step(try enter(size: size, flags: TransmissionFlags(rawValue: flags)))
    }

    private mutating func enter(size: UInt64, flags: TransmissionFlags) throws(Violation) -> Step {
        guard case .enter(let name) = plan.purpose else { preconditionFailure("a list ends otherwise") }
        guard size <= UInt64(Int64.max) else { throw .malformed("an export of more than 2^63 - 1 bytes") }
        // What may not be said, given what was agreed, is as if it had not been.
        var flags = flags.contains(.hasFlags) ? flags : []
        if style == .simple { flags.remove(.df) }
        if style != .extended { flags.remove(.blockStatusPayload) }
        if !flags.contains(.writeZeroes) { flags.remove(.fastZero) }
        let agreement = Agreement(
            exportName: name, size: ByteCount(size), flags: flags, blockSizes: told.blockSizes.within(Bounds.payload),
            style: style, contexts: told.contexts, isUnderTLS: isUnderTLS)
        rules = RequestRules(agreement: agreement)
        state = .replyMagic
        return .entered(agreement)
    }
}

extension BlockSizes {
    /// The same for a peer that doesn't take or send more than `payload`, a power of two, at once.
    func within(_ payload: UInt32) -> BlockSizes {
        BlockSizes(
            minimum: minimum, preferred: min(preferred, payload), maximumPayload: min(maximumPayload, payload))!
    }
}
