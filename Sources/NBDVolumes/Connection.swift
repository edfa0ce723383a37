internal import NBDProtocol
internal import NIOCore
internal import NIOPosix
internal import Volumes

/// One connection to an export.
///
/// What is asked over it is answered, or fails with the connection: at the latest when the server was silent for too
/// long. A cancelled task still gets its answers, as its buffers must not be touched once it has gone on; that takes no
/// longer. A connection that has ended isn't made anew: what a server had acknowledged and not flushed may be lost with
/// it.
final class Connection: Sendable {
    /// As servers take it: QEMU has 16 under way, nbdkit as many by default. More than that only wait there.
    private static let mostInFlight = 32

    let agreement: Agreement
    private let channel: any Channel
    private let handler: NIOLoopBound<ClientHandler>
    private let slots = Slots(mostInFlight)

    private init(agreement: Agreement, channel: any Channel, handler: NIOLoopBound<ClientHandler>) {
        (self.agreement, self.channel, self.handler) = (agreement, channel, handler)
    }

    deinit {
        channel.eventLoop.execute { [channel, handler] in handler.value.leave(channel) }
    }

    /// - Parameters:
    ///   - tls: Needed where the address is one under TLS.
    ///   - limit: For all of it, the handshake included.
    ///   - silence: How long the server may leave requests without a byte of an answer.
    static func open(
        _ address: NBDAddress, tls: ClientTLS?, contexts: [MetaContext], limit: Duration, silence: Duration
    ) async throws(VolumeError) -> Connection {
        let title = address.text
        let plan = ClientPlan(.enter(address.export), tls: tls == nil ? .off : .required, contexts: contexts)
        // A host's name may have several addresses, which are tried side by side: each attempt has its own handler.
        @Sendable func initialize(_ channel: any Channel) -> EventLoopFuture<Attempt> {
            channel.eventLoop.makeCompletedFuture {
                let entry = channel.eventLoop.makePromise(of: Agreement.self)
                // Does nothing if the handler has told why before.
                channel.closeFuture.whenComplete { _ in entry.fail(ChannelError.alreadyClosed) }
                let handler = ClientHandler(title: title, plan: plan, tls: tls, silence: silence, entry: entry)
                handler.limitHandshake(to: limit, on: channel)
                try channel.pipeline.syncOperations.addHandler(handler)
                return Attempt(
                    channel: channel, handler: NIOLoopBound(handler, eventLoop: channel.eventLoop),
                    agreement: entry.futureResult)
            }
        }
        do {
            let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(TimeAmount(limit))
            let attempt =
                switch address.server {
                case .tcp(let host, let port):
                    try await bootstrap.connect(host: host, port: Int(port), channelInitializer: initialize)
                case .unix(let path):
                    try await bootstrap.connect(unixDomainSocketPath: path, channelInitializer: initialize)
                }
            return Connection(
                agreement: try await attempt.agreement.get(), channel: attempt.channel, handler: attempt.handler)
        } catch let error as VolumeError {
            throw error
        } catch {
            throw End(error).error("connect", on: title)
        }
    }

    /// A channel, perhaps to one of several addresses.
    private struct Attempt: Sendable {
        let channel: any Channel
        let handler: NIOLoopBound<ClientHandler>
        let agreement: EventLoopFuture<Agreement>
    }

    /// Has the server carry out a request, and waits until it has.
    ///
    /// - Parameters:
    ///   - payload: Of a write, its bytes.
    ///   - buffer: Of a read, as many bytes as are asked for; filled when this returns.
    @discardableResult
    func ask(
        _ command: Request.Command, payload: ByteBuffer? = nil, into buffer: UnsafeMutableRawBufferPointer? = nil
    ) async throws(VolumeError) -> Question.Statuses {
        // Needed: pointers are not Sendable. Safe: the caller keeps the buffer and leaves it alone until this returns,
        // and the handler forgets it before it resumes.
        nonisolated(unsafe) let buffer = unsafe buffer
        return try await slots.run { () throws(VolumeError) in
            let outcome: Result<Question.Statuses, VolumeError> = await withCheckedContinuation { continuation in
                channel.eventLoop.execute { [channel, handler] in
                    unsafe handler.value.ask(
                        Question(command: command, payload: payload, buffer: buffer, continuation: continuation),
                        on: channel)
                }
            }
            return try outcome.get()
        }
    }
}
