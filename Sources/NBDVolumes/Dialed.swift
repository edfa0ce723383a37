package import NIOCore
package import Volumes

/// A connection to a server, whose handshake has come to its end.
///
/// - Parameters:
///   - Handler: What speaks on it, on its event loop.
///   - Entry: What the handshake came to.
package struct Dialed<Handler: ChannelHandler & SendableMetatype, Entry: Sendable>: Sendable {
    package let channel: any Channel
    package let handler: NIOLoopBound<Handler>
    package let entry: Entry

    /// - Parameters:
    ///   - title: The address, for errors.
    ///   - limit: For the connection alone: the handshake is the handler's to bound.
    ///   - newHandler: Makes what fulfils or fails the promise with the end of the handshake. A host's name may have
    ///     several addresses, which are tried side by side: each attempt has a handler of its own.
    package init(
        to server: NBDAddress.Server, by dialer: any Dialer = SocketDialer(), title: String, limit: Duration,
        _ newHandler: @escaping @Sendable (EventLoopPromise<Entry>, any Channel) -> Handler
    ) async throws(VolumeError) {
        @Sendable func initialize(_ channel: any Channel) -> EventLoopFuture<Attempt> {
            channel.eventLoop.makeCompletedFuture {
                let entry = channel.eventLoop.makePromise(of: Entry.self)
                // Does nothing if the handler has told why before.
                channel.closeFuture.whenComplete { _ in entry.fail(ChannelError.alreadyClosed) }
                let handler = newHandler(entry, channel)
                try channel.pipeline.syncOperations.addHandler(handler)
                return Attempt(
                    channel: channel, handler: NIOLoopBound(handler, eventLoop: channel.eventLoop),
                    entry: entry.futureResult)
            }
        }
        do {
            let attempt = try await dialer.connect(to: server, limit: limit, initialize)
            (channel, handler, entry) = (attempt.channel, attempt.handler, try await attempt.entry.get())
        } catch let error as VolumeError {
            throw error
        } catch {
            throw End(error).error("connect", on: title)
        }
    }

    private struct Attempt: Sendable {
        let channel: any Channel
        let handler: NIOLoopBound<Handler>
        let entry: EventLoopFuture<Entry>
    }
}
