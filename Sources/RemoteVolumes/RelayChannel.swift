internal import NBDProtocol
internal import NBDVolumes
internal import NIOCore
internal import Relay
internal import Volumes

/// One connection to a receiver.
///
/// What is asked over it is answered, or fails with the connection: at the latest when the receiver was silent for too
/// long. One that has ended isn't made anew: the next run takes the move up from its record.
final class RelayChannel: Sendable {
    /// Requests under way, and changes that wait to go out together: callers beyond that wait.
    private static let mostAsked = 32
    private static let mostChanges = 256

    let grant: RelayGrant
    private let address: RelayAddress
    private let channel: any Channel
    private let handler: NIOLoopBound<RelayHandler>
    private let slots = Slots(mostAsked)
    private let changes = Slots(mostChanges)

    private init(_ grant: RelayGrant, _ address: RelayAddress, _ dialed: Dialed<RelayHandler, RelayGrant?>) {
        (self.grant, self.address) = (grant, address)
        (channel, handler) = (dialed.channel, dialed.handler)
    }

    deinit {
        channel.eventLoop.execute { [channel, handler] in handler.value.leave(channel) }
    }

    /// - Parameters:
    ///   - tls: Needed where the address is one under TLS.
    ///   - limit: For all of it, the receiver's opening of the target included.
    ///   - silence: How long the receiver may leave requests without a sign.
    /// - Returns: Nothing if the server doesn't know the option.
    static func open(
        _ address: RelayAddress, by dialer: any Dialer, tls: ClientTLS?, _ offer: RelayOffer, limit: Duration,
        _ silence: Duration
    ) async throws(VolumeError) -> RelayChannel? {
        let title = address.text
        let plan = ClientPlan(.relay(offer.data), tls: tls == nil ? .off : .required)
        let dialed: Dialed<RelayHandler, RelayGrant?> = try await Dialed(
            to: address.server, by: dialer, title: title, limit: limit
        ) { entry, channel in
            let handler = RelayHandler(title: title, plan: plan, tls: tls, silence: silence, entry: entry)
            handler.limitHandshake(to: limit, on: channel)
            return handler
        }
        return dialed.entry.map { RelayChannel($0, address, dialed) }
    }

    func ask(_ request: RelayRequest) async throws(VolumeError) -> RelayReply {
        try await slots.run { () throws(VolumeError) in
            try await answer { handler, channel, continuation in handler.ask(request, continuation, on: channel) }
        }
    }

    func change(_ change: Change) async throws(VolumeError) {
        try await changes.run { () throws(VolumeError) in
            _ = try await answer { handler, channel, continuation in handler.add(change, continuation, on: channel) }
        }
    }

    private func answer(
        _ ask: @escaping @Sendable (RelayHandler, any Channel, RelayHandler.Answer) -> Void
    ) async throws(VolumeError) -> RelayReply {
        let reply = await withCheckedContinuation { continuation in
            channel.eventLoop.execute { [channel, handler] in ask(handler.value, channel, continuation) }
        }
        // As the near side calls it.
        if case .failed(let error) = reply { throw error.renamed(address.target, to: address.text) }
        return reply
    }
}

extension VolumeError {
    /// The same with another name for the volume.
    fileprivate func renamed(_ title: String, to name: String) -> VolumeError {
        func renamed(_ text: String) -> String {
            // What the near side itself has said of it holds the name already.
            text.contains(name)
                ? text : text.split(separator: title, omittingEmptySubsequences: false).joined(separator: name)
        }
        return VolumeError(
            kind, operation, on: renamed(object), reason: renamed(reason), advice: advice.map { renamed($0) })
    }
}
