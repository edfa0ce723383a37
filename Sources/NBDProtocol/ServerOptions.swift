internal import NIOCore

/// Which export is asked about, and why.
package struct ExportQuestion: Sendable, Equatable {
    package enum Purpose: Sendable, Equatable {
        /// `NBD_OPT_GO`, `NBD_OPT_EXPORT_NAME`: to use it, if the answer is `found`.
        case enter
        /// `NBD_OPT_INFO`
        case inform
        /// `NBD_OPT_LIST_META_CONTEXT`, `NBD_OPT_SET_META_CONTEXT`
        case contexts
    }
    /// As the client says it; empty means the default export.
    package let name: String
    package let purpose: Purpose
}

/// What there is to say of an export.
package enum ExportAnswer: Sendable, Equatable {
    case found(ExportInfo)
    case missing
    /// It is there, but not for this client; with words for its user.
    case refused(String)
    /// Where TLS is offered, and the client is without.
    case needsTLS
}

/// How an option is answered whose data doesn't matter.
enum OptionAnswer: Sendable, Equatable {
    case error(OptionReplyType, String)
    /// `NBD_OPT_ABORT`
    case farewell
}

/// Who waits for an export to be found.
enum Search: Sendable, Equatable {
    case exportName(String)
    case info(ExportRequest)
    case go(ExportRequest)
    case listContexts(MetaContextRequest)
    case setContexts(MetaContextRequest)

    var option: OptionType {
        switch self {
        case .exportName: .exportName
        case .info: .info
        case .go: .go
        case .listContexts: .listMetaContext
        case .setContexts: .setMetaContext
        }
    }

    var question: ExportQuestion {
        switch self {
        case .exportName(let name): ExportQuestion(name: name, purpose: .enter)
        case .go(let request): ExportQuestion(name: request.name, purpose: .enter)
        case .info(let request): ExportQuestion(name: request.name, purpose: .inform)
        case .listContexts(let request), .setContexts(let request):
            ExportQuestion(name: request.name, purpose: .contexts)
        }
    }
}

// Option haggling: what options are before their data is waited for, and what becomes of them. NBD protocol, "Option
// types".
extension ServerSession {
    mutating func takeClientFlags(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard var bytes = intake.take(4, from: &input), let raw = bytes.readInteger(as: UInt32.self) else {
            return .wait
        }
        let flags = ClientFlags(rawValue: raw)
        guard flags.isSubset(of: .known) else { throw .clientFlags(raw) }
        // Such a client can't be asked for TLS.
        guard flags.contains(.fixedNewstyle) || policy.tls != .required else { throw .notFixedNewstyle }
        clientFlags = flags
        state = .option
        return .again
    }

    mutating func takeOption(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        guard var bytes = intake.take(OptionHeader.length, from: &input) else { return .wait }
        let header = try OptionHeader(from: &bytes)
        options += 1
        guard options <= Bounds.options else { throw .tooMany("options", most: Bounds.options) }
        let answer = try answerWithoutData(header)
        guard let answer else {
            state = .optionData(header)
            return .again
        }
        guard header.length <= Bounds.skippedOption else {
            throw .tooLong("an option", announced: UInt64(header.length), most: UInt64(Bounds.skippedOption))
        }
        // "Including when this command fails": NBD protocol, `NBD_OPT_SET_META_CONTEXT`.
        if header.type == OptionType.setMetaContext.rawValue { selection = nil }
        state = .skippingOption(header, remaining: Int(header.length), answer)
        return .again
    }

    /// What an option is answered whatever its data says; nothing if that has to be seen.
    private func answerWithoutData(_ header: OptionHeader) throws(Violation) -> OptionAnswer? {
        let type = OptionType(rawValue: header.type)
        if type == .abort { return .farewell }
        if policy.tls == .required, !isUnderTLS, type != .startTLS {
            if type == .exportName { throw .tlsRequired }
            return .error(.tlsRequired, "this server is used under TLS only: NBD_OPT_STARTTLS comes first")
        }
        if isShuttingDown, type != .exportName { return .error(.shutdown, "the server is about to stop") }
        switch type {
        case nil: return .error(.unsupported, "no option \(header.type)")
        case .relay where !policy.offersRelay || !clientFlags.contains(.fixedNewstyle):
            return .error(.unsupported, "no option \(header.type)")
        case .abort: return .farewell
        case .exportName:
            guard header.length <= Bounds.string else {
                throw .tooLong("an export's name", announced: UInt64(header.length), most: UInt64(Bounds.string))
            }
            return nil
        case .list, .startTLS, .structuredReply, .extendedHeaders:
            return header.length == 0 ? nil : .error(.invalid, "the option has no data")
        case .info, .go, .listMetaContext, .setMetaContext, .relay:
            return header.length <= Bounds.option
                ? nil : .error(.tooBig, "at most \(Bounds.option) bytes of data are taken")
        }
    }

    /// An option's data was read over.
    mutating func finish(_ header: OptionHeader, _ answer: OptionAnswer) -> Step {
        var bytes = ByteBuffer()
        switch answer {
        case .error(let type, let message):
            bytes.writeOptionError(to: header.type, type, message)
            state = .option
            return .send(bytes)
        case .farewell:
            bytes.writeOptionReply(to: header.type, .ack)
            return .close(end(.agreed, last: bytes))
        }
    }

    /// An option is there with its data.
    /// - Parameter isLast: Whether nothing came after it so far.
    mutating func handle(_ header: OptionHeader, _ data: inout ByteBuffer, isLast: Bool) throws(Violation) -> Turn {
        guard let type = OptionType(rawValue: header.type) else { preconditionFailure("unknown options are skipped") }
        state = .option
        switch type {
        case .abort: preconditionFailure("its data is skipped")
        case .exportName:
            guard let name = data.readText(length: data.readableBytes) else {
                throw .malformed("an export's name is UTF-8 without NUL")
            }
            guard style != .extended else {
                throw .unexpected("NBD_OPT_EXPORT_NAME after NBD_OPT_EXTENDED_HEADERS")
            }
            guard !isShuttingDown else { return .step(.close(end(.noExport))) }
            return ask(.exportName(name))
        case .startTLS: return try .step(startTLS(isLast: isLast))
        case .list:
            guard policy.showsExports else {
                return error(type, .policy, "this server doesn't tell its exports: ask for one by name")
            }
            state = .listing
            return .step(.list)
        case .structuredReply:
            guard style != .extended else {
                return error(type, .extendedHeadersRequired, "extended headers were agreed on")
            }
            guard policy.offersStructuredReplies else { return error(type, .unsupported, "not on this server") }
            style = .structured
            return acknowledge(type)
        case .extendedHeaders:
            guard policy.offersExtendedHeaders else { return error(type, .unsupported, "not on this server") }
            style = .extended
            return acknowledge(type)
        case .info, .go:
            guard let request = ExportRequest(from: &data) else {
                return error(type, .invalid, "the name or the list of information contradicts the option's length")
            }
            return ask(type == .go ? .go(request) : .info(request))
        case .listMetaContext, .setMetaContext: return takeContextQueries(type, &data)
        case .relay:
            state = .granting
            return .step(.relay(data))
        }
    }

    private mutating func startTLS(isLast: Bool) throws(Violation) -> Step {
        var bytes = ByteBuffer()
        let option = OptionType.startTLS.rawValue
        if isUnderTLS {
            bytes.writeOptionError(to: option, .invalid, "TLS has been started")
            return .send(bytes)
        }
        // NBD protocol, "Server-side requirements": without fixed newstyle on both sides there is no TLS.
        guard policy.tls != .off, clientFlags.contains(.fixedNewstyle) else {
            bytes.writeOptionError(to: option, .policy, "this server is used without TLS")
            return .send(bytes)
        }
        // Otherwise who can write into the clear stream could have options taken for the authenticated client's.
        guard isLast else { throw .clearAfterStartTLS }
        bytes.writeOptionReply(to: option, .ack)
        state = .upgrading
        return .startTLS(bytes)
    }

    private mutating func takeContextQueries(_ type: OptionType, _ data: inout ByteBuffer) -> Turn {
        if type == .setMetaContext { selection = nil }
        let request: MetaContextRequest
        do throws(MetaContextRequest.Flaw) {
            request = try MetaContextRequest(from: &data)
        } catch {
            return switch error {
            case .invalid:
                self.error(type, .invalid, "the queries contradict the option's length, or have no namespace")
            case .tooBig: self.error(type, .tooBig, "at most \(Bounds.queries) queries are taken")
            }
        }
        guard style != .simple else {
            return error(type, .invalid, "NBD_OPT_STRUCTURED_REPLY or NBD_OPT_EXTENDED_HEADERS comes first")
        }
        return ask(type == .setMetaContext ? .setContexts(request) : .listContexts(request))
    }

    private mutating func ask(_ search: Search) -> Turn {
        state = .finding(search)
        return .step(.find(search.question))
    }

    private func acknowledge(_ type: OptionType) -> Turn {
        var bytes = ByteBuffer()
        bytes.writeOptionReply(to: type.rawValue, .ack)
        return .step(.send(bytes))
    }

    private func error(_ option: OptionType, _ type: OptionReplyType, _ message: String) -> Turn {
        var bytes = ByteBuffer()
        bytes.writeOptionError(to: option.rawValue, type, message)
        return .step(.send(bytes))
    }
}
