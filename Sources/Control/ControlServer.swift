internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import Sockets
package import Volumes

/// Lets a move be asked and told over a Unix socket for as long as it runs.
///
/// A connection carries one line each way, both JSON, and is closed:
///
///     {"order":"throttle","mode":"limit","bytesPerSecond":20971520}
///     {"accepted":"the writer is held to 20.0 MiB/s"}
///
/// What a client does, or doesn't do, never reaches the move: it has a connection for a bounded time, can send a bounded
/// line, and a move that answers late is waited for by nobody but that client.
package struct ControlServer: Sendable {
    package struct Limits: Sendable {
        /// At most so many at a time; the one that has been silent for longest makes room for the next.
        package var connections = 16
        /// From being let in to the end of the line.
        package var request = Duration.seconds(5)
        /// From the end of the line to the move's answer: less than a client waits.
        package var answer = Duration.seconds(8)
        /// What the end of the move waits for an answer that is under way: to the order that ended it, mostly.
        package var grace = Duration.milliseconds(200)

        package init() {}
    }

    private let directory: RuntimeDirectory
    private let control: any MoveControl
    private let limits: Limits

    package init(
        in directory: RuntimeDirectory = .ownMoves(), control: any MoveControl, limits: Limits = Limits()
    ) {
        (self.directory, self.control, self.limits) = (directory, control, limits)
    }

    /// Runs `body`, and listens meanwhile. The socket is gone when this returns, in every outcome.
    ///
    /// - Parameter unheard: Told why nobody can be listened to, before `body` begins. The move goes on without.
    package nonisolated(nonsending) func serve<Value, Failure: Error>(
        unheard: (VolumeError) -> Void, _ body: nonisolated(nonsending) () async throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        var listener: Listener?
        do throws(VolumeError) {
            listener = try await Listener(in: directory, control: control, limits: limits)
        } catch {
            unheard(error)
        }
        do throws(Failure) {
            let value = try await body()
            await listener?.close()
            return value
        } catch {
            await listener?.close()
            throw error
        }
    }
}

/// The socket and its connections. All of it happens on one event loop.
private struct Listener: Sendable {
    private let socket: NamedSocket
    private let channel: any Channel
    private let connections: NIOLoopBound<ControlConnections>
    private let grace: TimeAmount

    init(
        in directory: RuntimeDirectory, control: any MoveControl, limits: ControlServer.Limits
    ) async throws(VolumeError) {
        let socket = try NamedSocket(in: directory)
        self.socket = socket
        grace = TimeAmount(limits.grace)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        do {
            (channel, connections) = try await loop.submit {
                let connections = ControlConnections(limit: limits.connections)
                let bound = NIOLoopBound(connections, eventLoop: loop)
                return ServerBootstrap(group: loop)
                    .serverChannelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(Doorkeeper())
                        }
                    }
                    .childChannelOption(.autoRead, value: false)
                    .childChannelOption(.allowRemoteHalfClosure, value: true)
                    .childChannelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(
                                ControlConnection(among: bound.value, control: control, limits: limits))
                        }
                    }
                    // The channel closes the descriptor from here on.
                    .withBoundSocket(socket.descriptor)
                    .map { ($0, bound) }
            }.flatMap { $0 }.get()
        } catch {
            socket.unlink()
            throw VolumeError(.failed, "listen", on: socket.path.text, reason: "\(error)")
        }
    }

    /// Takes the name away at once, so that nobody comes any more; then all connections end, within the time of grace.
    func close() async {
        socket.unlink()
        let loop = channel.eventLoop
        let (channel, connections, grace) = (channel, connections, grace)
        // It can't fail: the loop is the process's own and never shut down.
        try? await loop.flatSubmit {
            channel.close(promise: nil)
            return connections.value.end(within: grace, on: loop)
        }.get()
    }
}
