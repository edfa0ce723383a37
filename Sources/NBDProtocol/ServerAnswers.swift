package import NIOCore
internal import Volumes

// What the session says to the client once it knows which exports there are. NBD protocol, "Option reply types".
extension ServerSession {
    /// The answer to `Step.list`.
    /// - Parameter exports: Those that may be shown to this client.
    package mutating func exports(_ exports: [ListedExport]) -> Step {
        guard state == .listing else { preconditionFailure("no list was asked for") }
        state = .option
        let option = OptionType.list.rawValue
        var bytes = ByteBuffer()
        for export in exports {
            precondition(export.name.isNBDString, "no string of the protocol")
            bytes.writeOptionReply(to: option, .server, data: export.data)
        }
        bytes.writeOptionReply(to: option, .ack)
        return .send(bytes)
    }

    /// The answer to `Step.find`.
    ///
    /// Between an `NBD_OPT_INFO` and an `NBD_OPT_GO` that follows at once it is to be the same.
    package mutating func answer(_ answer: ExportAnswer) -> Step {
        guard case .finding(let search) = state else { preconditionFailure("no export was asked for") }
        state = .option
        switch answer {
        case .found(let info): return found(info, for: search)
        case .missing: return refuse(search, .unknown, "no export \"\(search.question.name)\"")
        case .refused(let why): return refuse(search, .policy, why)
        case .needsTLS:
            // NBD protocol, "SELECTIVETLS mode": never once TLS was started, never where there is none, and only in
            // reply to these options.
            precondition(policy.tls == .offered && !isUnderTLS, "TLS can't be asked for now")
            switch search {
            case .exportName, .info, .go: break
            case .listContexts, .setContexts: return refuse(search, .unknown, "no export \"\(search.question.name)\"")
            }
            return refuse(search, .tlsRequired, "the export is used under TLS only")
        }
    }

    /// The answer to `Step.relay`: granted, with what the client is told of it.
    /// - Parameter grant: At most 4096 bytes.
    package mutating func grantRelay(_ grant: ByteBuffer) -> Step {
        guard state == .granting else { preconditionFailure("no relay was asked for") }
        precondition(grant.readableBytes <= Bounds.string, "no client takes more")
        var bytes = ByteBuffer()
        bytes.writeOptionReply(to: OptionType.relay.rawValue, .relay, data: grant)
        bytes.writeOptionReply(to: OptionType.relay.rawValue, .ack)
        _ = end(.agreed)
        return .relayed(bytes)
    }

    /// The answer to `Step.relay`: refused, and the client may go on with other options.
    /// - Parameter type: An error's.
    package mutating func refuseRelay(_ type: OptionReplyType, _ message: String) -> Step {
        guard state == .granting else { preconditionFailure("no relay was asked for") }
        precondition(type.isError, "it is refused")
        state = .option
        var bytes = ByteBuffer()
        bytes.writeOptionError(to: OptionType.relay.rawValue, type, message)
        return .send(bytes)
    }

    private mutating func refuse(_ search: Search, _ type: OptionReplyType, _ message: String) -> Step {
        if case .exportName = search { return .close(end(.noExport)) }
        var bytes = ByteBuffer()
        bytes.writeOptionError(to: search.option.rawValue, type, message)
        return .send(bytes)
    }

    private mutating func found(_ info: ExportInfo, for search: Search) -> Step {
        switch search {
        case .exportName(let name):
            var bytes = ByteBuffer()
            let agreement = agreement(on: info, as: name)
            guard contexts(for: name).allSatisfy({ info.contexts.contains($0.context) }) else {
                return .close(end(.noExport))
            }
            bytes.writeMultipleIntegers(agreement.size.bytes, agreement.flags.rawValue)
            if !clientFlags.contains(.noZeroes) { bytes.writeRepeatingByte(0, count: 124) }
            return enter(agreement, bytes)
        case .info(let request), .go(let request): return inform(info, request, search)
        case .listContexts(let request):
            return tell(request.matches(info.contexts).map { ChosenContext(id: 0, context: $0) }, .listMetaContext)
        case .setContexts(let request):
            // Numbers that say nothing, as they should: zero is left to the answers of LIST.
            let chosen = info.contexts.enumerated().filter { request.queries.contains($0.element.name) }
                .map { ChosenContext(id: UInt32($0.offset + 1), context: $0.element) }
            selection = (request.name, chosen)
            return tell(chosen, .setMetaContext)
        }
    }

    private mutating func inform(_ info: ExportInfo, _ request: ExportRequest, _ search: Search) -> Step {
        // Chosen before, and gone since: a block status could not be answered as agreed.
        guard contexts(for: request.name).allSatisfy({ info.contexts.contains($0.context) }) else {
            selection = nil
            return refuse(search, .unknown, "a metadata context that was chosen is no longer there")
        }
        let agreement = agreement(on: info, as: request.name)
        var told: [Information] = [.export(size: agreement.size.bytes, agreement.flags)]
        if request.wishes.contains(.name) { told.append(.name(info.name)) }
        if request.wishes.contains(.description), !info.description.isEmpty {
            told.append(.description(info.description))
        }
        if request.wishes.contains(.blockSize) || info.blockSizes != .standard {
            told.append(.blockSize(info.blockSizes))
        }
        let option = search.option.rawValue
        var bytes = ByteBuffer()
        for information in told { bytes.writeOptionReply(to: option, .info, data: information.data) }
        bytes.writeOptionReply(to: option, .ack)
        if search.option == .go { return enter(agreement, bytes) }
        return .send(bytes)
    }

    private func tell(_ contexts: [ChosenContext], _ type: OptionType) -> Step {
        var bytes = ByteBuffer()
        for context in contexts {
            var data = ByteBuffer(integer: context.id)
            data.writeString(context.context.name)
            bytes.writeOptionReply(to: type.rawValue, .metaContext, data: data)
        }
        bytes.writeOptionReply(to: type.rawValue, .ack)
        return .send(bytes)
    }

    private mutating func enter(_ agreement: Agreement, _ bytes: ByteBuffer) -> Step {
        rules = RequestRules(agreement: agreement)
        state = .request
        return .enter(agreement, bytes)
    }

    /// Those that hold if the export of that name is used: the last choice must have been for the same.
    private func contexts(for name: String) -> [ChosenContext] {
        guard let selection, selection.name == name, style != .simple else { return [] }
        return selection.contexts
    }

    private func agreement(on info: ExportInfo, as name: String) -> Agreement {
        let contexts = contexts(for: name)
        var flags = info.flags.union(.hasFlags).subtracting([.df, .blockStatusPayload])
        if style != .simple { flags.insert(.df) }
        if style == .extended, !contexts.isEmpty { flags.insert(.blockStatusPayload) }
        return Agreement(
            exportName: name, size: info.size, flags: flags, blockSizes: info.blockSizes, style: style,
            contexts: contexts, isUnderTLS: isUnderTLS)
    }
}

extension MetaContextRequest {
    /// For `NBD_OPT_LIST_META_CONTEXT`: all without a query; a namespace alone stands for all of its contexts.
    func matches(_ contexts: [MetaContext]) -> [MetaContext] {
        guard !queries.isEmpty else { return contexts }
        return contexts.filter { queries.contains($0.name) || queries.contains(String($0.namespace)) }
    }
}
