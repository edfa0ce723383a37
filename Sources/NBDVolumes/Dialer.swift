package import NIOCore
internal import NIOPosix
internal import Sockets
package import Volumes

/// How a connection to a server is made.
package protocol Dialer: Sendable {
    /// - Parameters:
    ///   - limit: How long it may take.
    ///   - initialize: Prepares a channel on its event loop, before anything is read from it. A host's name may have
    ///     several addresses, which are tried side by side.
    /// - Returns: What it made of the channel that came to be connected.
    func connect<Prepared: Sendable>(
        to server: NBDAddress.Server, limit: Duration,
        _ initialize: @escaping @Sendable (any Channel) -> EventLoopFuture<Prepared>
    ) async throws -> Prepared
}

/// Over TCP and Unix sockets.
package struct SocketDialer: Dialer {
    package init() {}

    package func connect<Prepared: Sendable>(
        to server: NBDAddress.Server, limit: Duration,
        _ initialize: @escaping @Sendable (any Channel) -> EventLoopFuture<Prepared>
    ) async throws -> Prepared {
        // It sets `TCP_NODELAY` by itself.
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(TimeAmount(limit))
        return switch server {
        case .tcp(let host, let port):
            try await bootstrap.connect(host: host, port: Int(port), channelInitializer: initialize)
        case .unix(let path):
            try await bootstrap.channelOption(.socketOption(.so_sndbuf), value: UnixSocket.sendBuffer)
                .connect(unixDomainSocketPath: path, channelInitializer: initialize)
        }
    }
}
