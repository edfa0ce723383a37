internal import NBDProtocol
internal import NBDVolumes
internal import NIOCore
internal import NIOPosix
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

    private init(_ grant: RelayGrant, _ address: RelayAddress, _ attempt: Attempt) {
        (self.grant, self.address) = (grant, address)
        (channel, handler) = (attempt.channel, attempt.handler)
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
        _ address: RelayAddress, tls: ClientTLS?, _ offer: RelayOffer, limit: Duration, _ silence: Duration
    ) async throws(VolumeError) -> RelayChannel? {
        let title = address.text
        let plan = ClientPlan(.relay(offer.data), tls: tls == nil ? .off : .required)
        @Sendable func initialize(_ channel: any Channel) -> EventLoopFuture<Attempt> {
            channel.eventLoop.makeCompletedFuture {
                let entry = channel.eventLoop.makePromise(of: RelayGrant?.self)
                // Does nothing if the handler has told why before.
                channel.closeFuture.whenComplete { _ in entry.fail(ChannelError.alreadyClosed) }
                let handler = RelayHandler(title: title, plan: plan, tls: tls, silence: silence, entry: entry)
                handler.limitHandshake(to: limit, on: channel)
                try channel.pipeline.syncOperations.addHandler(handler)
                return Attempt(
                    channel: channel, handler: NIOLoopBound(handler, eventLoop: channel.eventLoop),
                    grant: entry.futureResult)
            }
        }
        do {
            let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(TimeAmount(limit))
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            let attempt =
                switch address.server {
                case .tcp(let host, let port):
                    try await bootstrap.connect(host: host, port: Int(port), channelInitializer: initialize)
                case .unix(let path):
                    try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                        .connectTimeout(TimeAmount(limit))
                        .connect(unixDomainSocketPath: path, channelInitializer: initialize)
                }
            return try await attempt.grant.get().map { RelayChannel($0, address, attempt) }
        } catch let error as VolumeError {
            throw error
        } catch {
            throw End(error).error("connect", on: title)
        }
    }

    /// A channel, perhaps to one of several addresses of a host.
    private struct Attempt: Sendable {
        let channel: any Channel
        let handler: NIOLoopBound<RelayHandler>
        let grant: EventLoopFuture<RelayGrant?>
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
