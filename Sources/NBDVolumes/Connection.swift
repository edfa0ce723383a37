internal import NBDProtocol
internal import NIOCore
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

    private init(_ dialed: Dialed<ClientHandler, Agreement>) {
        (agreement, channel, handler) = (dialed.entry, dialed.channel, dialed.handler)
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
        return Connection(
            try await Dialed(to: address.server, title: title, limit: limit) { entry, channel in
                let handler = ClientHandler(title: title, plan: plan, tls: tls, silence: silence, entry: entry)
                handler.limitHandshake(to: limit, on: channel)
                return handler
            })
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
