package import Credentials
internal import Glibc
internal import NBDProtocol
package import NIOCore
internal import NIOPosix
internal import Sockets
package import Volumes

/// Serves disks by the NBD protocol, over a Unix socket or TCP.
package struct ExportServer: Sendable {
    /// An export, and how to reach it.
    package struct Offer: Sendable, Equatable {
        package let name: String
        package let uri: String
    }

    /// A server that runs.
    package struct Serving: Sendable {
        package let offers: [Offer]
        fileprivate let connections: Connections

        /// How many connections use an export now.
        package var clientCount: Int { connections.userCount }
    }

    private let exports: Exports
    private let limits: ServerLimits
    private let credentials: ServerCredentials?
    private let isInsecureAllowed: Bool
    private let notice: @Sendable (String) -> Void

    /// - Parameters:
    ///   - exports: Each of another name. Their disks are open, and stay the caller's to close.
    ///   - credentials: With them nothing is served but under TLS.
    ///   - isInsecureAllowed: Whether others than this host's users may connect, without TLS.
    ///   - notice: Told, from any thread, what an operator may want to know: what failed, and which clients were dropped.
    package init(
        _ exports: [Export], limits: ServerLimits = ServerLimits(), credentials: ServerCredentials? = nil,
        isInsecureAllowed: Bool = false, notice: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.exports = Exports(exports)
        (self.limits, self.credentials) = (limits, credentials)
        (self.isInsecureAllowed, self.notice) = (isInsecureAllowed, notice)
    }

    /// Runs `body`, and listens meanwhile: see `Bound.serve`.
    ///
    /// - Throws: If it can't listen, and `body` isn't run then; or if a disk can't be flushed.
    package nonisolated(nonsending) func serve<Value>(
        at address: ListenAddress, _ body: nonisolated(nonsending) (Serving) async -> Value
    ) async throws(VolumeError) -> Value {
        try await bind(to: address).serve(body)
    }

    /// Takes the address, and lets nobody in yet: whoever comes waits.
    ///
    /// - Returns: What is to be served, or closed.
    package func bind(to address: ListenAddress) async throws(VolumeError) -> Bound {
        let (exports, credentials, limits) = (exports, credentials, limits)
        let connections = Connections(limit: limits.connections, notice: notice)
        let listener = try await Listener(
            at: address, isUnderTLS: credentials != nil, isInsecureAllowed: isInsecureAllowed, isHeldBack: true
        ) { loop in
            Connection(exports, credentials, limits: limits, among: connections, on: loop)
        }
        let port = listener.port
        let offers = exports.all.map {
            Offer(name: $0.name, uri: address.uri(ofExport: $0.name, port: port, isUnderTLS: credentials != nil))
        }
        return Bound(listener: listener, serving: Serving(offers: offers, connections: connections), exports: exports)
    }

    /// A server that has its address.
    package struct Bound: Sendable {
        fileprivate let listener: Listener
        fileprivate let serving: Serving
        fileprivate let exports: Exports

        /// Runs `body`, and lets clients in meanwhile. When it returns, nobody is let in any more, what is under way is
        /// answered, and all disks are flushed. A Unix socket is gone when this returns, in every outcome.
        ///
        /// - Throws: If a disk can't be flushed.
        package nonisolated(nonsending) func serve<Value>(
            _ body: nonisolated(nonsending) (Serving) async -> Value
        ) async throws(VolumeError) -> Value {
            await listener.letIn()
            let value = await body(serving)
            await listener.close()
            await serving.connections.end()
            for export in exports.all where export.disk.isWritable { try await export.disk.flush() }
            return value
        }

        /// Instead of serving. Whoever waited is turned away.
        package func close() async { await listener.close() }
    }
}

/// A listening socket, which makes a connection of each that it lets in.
package struct Listener: Sendable {
    /// How many may wait to be let in; the kernel takes no more than `net.core.somaxconn`.
    private static let backlog: Int32 = 128

    /// A write of 256 KiB, as copying programs send it, comes in one piece.
    private static let receiving = AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 1 << 16, maximum: 1 << 19)

    private let channel: any Channel
    private let name: SocketName?

    /// The port that is listened on.
    package var port: Int? { channel.localAddress?.port }

    /// - Parameters:
    ///   - isUnderTLS: Whether `newConnection` lets nobody in without it.
    ///   - isInsecureAllowed: Whether others than this host's users may connect without TLS.
    ///   - isHeldBack: Whether whoever comes has to wait for `letIn`.
    ///   - newConnection: Makes what serves a client, on the event loop that is to be its own. It asks for what it reads
    ///     (`ChannelHandlerContext.read`), and is told of the end of the client's input.
    package init(
        at address: ListenAddress, isUnderTLS: Bool, isInsecureAllowed: Bool, isHeldBack: Bool = false,
        newConnection: @escaping @Sendable (any EventLoop) -> any ChannelHandler
    ) async throws(VolumeError) {
        let bootstrap = ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: Self.backlog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.autoRead, value: !isHeldBack)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Doorkeeper())
                }
            }
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.recvAllocator, value: Self.receiving)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                let loop = channel.eventLoop
                return loop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(newConnection(loop))
                }
            }
        switch address {
        case .unix(let path):
            let descriptor = try await Self.socket(at: path)
            let name = try SocketName(of: path)
            self.name = name
            let unix = bootstrap.childChannelOption(.socketOption(.so_sndbuf), value: UnixSocket.sendBuffer)
            channel = try await Self.bound(to: path) {
                // The channel closes the descriptor from here on.
                try await unix.withBoundSocket(descriptor).get()
            } failed: {
                name.remove()
            }
        case .tcp(let host, let port):
            let found = try await SocketAddress.resolving(host: host, port: port)
            guard found.isLoopback || isUnderTLS || isInsecureAllowed else {
                throw VolumeError(
                    .forbidden, "listen", on: "\(host):\(port)",
                    reason: "others than this host's users could read and write, without TLS",
                    advice:
                        "Give --tls with a folder of certificates, listen on a Unix socket or 127.0.0.1, or take the "
                        + "risk with --insecure.")
            }
            name = nil
            let tcp = bootstrap.childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            channel = try await Self.bound(to: "\(host):\(port)") {
                try await tcp.bind(to: found).get()
            } failed: {
            }
        }
    }

    private static func bound(
        to title: String, _ bind: () async throws -> any Channel, failed: () -> Void
    ) async throws(VolumeError) -> any Channel {
        do {
            return try await bind()
        } catch {
            failed()
            guard let error = error as? IOError else {
                throw VolumeError(.failed, "bind", on: title, reason: "\(error)")
            }
            throw VolumeError(errno: error.errnoCode, "bind", on: title)
        }
    }

    /// A socket that listens under that name. One whose server has died makes room.
    private static func socket(at path: String) async throws(VolumeError) -> Int32 {
        try await blocking { () throws(VolumeError) in
            do throws(VolumeError) {
                return try UnixSocket.listening(at: path, backlog: backlog)
            } catch let error where error.kind == .exists {
                guard let isDead = try? SocketName.isDead(path), isDead else {
                    throw VolumeError(
                        .exists, "bind", on: path, reason: "it is there already, and is no socket of a dead server",
                        advice: "Choose another path, or end the server that listens there.")
                }
            }
            _ = unsafe unlink(path)
            return try UnixSocket.listening(at: path, backlog: backlog)
        }
    }

    /// Whoever waits, and whoever comes from here on.
    func letIn() async {
        // Fails only where it is closed already.
        try? await channel.setOption(.autoRead, value: true).get()
        channel.read()
    }

    /// Takes the name away at once, so that nobody comes any more. The connections go on.
    package func close() async {
        name?.remove()
        try? await channel.close().get()
    }
}
