internal import Foundation
internal import NIOCore
internal import NIOPosix
package import Volumes

/// One client's connection to a VM's QMP socket.
///
/// All that is asked over it has to be answered by the same deadline, and the first that isn't ends it. A cancelled task
/// still gets its answers: half a switch is worse than one that takes its time, and its time is bounded.
package final class QMPConnection: Sendable {
    package let title: String
    package let version: Version
    private let channel: any Channel
    private let handler: NIOLoopBound<QMPHandler>
    private let deadline: NIODeadline

    package struct Version: Sendable, Comparable, CustomStringConvertible {
        package let major, minor, micro: Int64
        package static func < (left: Version, right: Version) -> Bool {
            (left.major, left.minor, left.micro) < (right.major, right.minor, right.micro)
        }
        package var description: String { "\(major).\(minor).\(micro)" }
    }

    private init(
        title: String, version: Version, channel: any Channel, handler: NIOLoopBound<QMPHandler>, deadline: NIODeadline
    ) {
        (self.title, self.version, self.channel) = (title, version, channel)
        (self.handler, self.deadline) = (handler, deadline)
    }

    deinit { channel.close(promise: nil) }

    /// - Parameter limit: For all that is asked over this connection, from now on.
    package static func open(path: String, limit: Duration) async throws(VolumeError) -> QMPConnection {
        let title = "qmp:" + path
        let deadline = NIODeadline.now() + TimeAmount(limit)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let greeting = loop.makePromise(of: JSONValue.self)
        do {
            let (channel, handler) = try await ClientBootstrap(group: loop)
                .connectTimeout(TimeAmount(limit))
                .connect(unixDomainSocketPath: path) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let handler = QMPHandler(title: title, greeting: greeting)
                        handler.limit(greeting.futureResult, by: deadline, on: channel)
                        try channel.pipeline.syncOperations.addHandler(handler)
                        return (channel, NIOLoopBound(handler, eventLoop: channel.eventLoop))
                    }
                }
            let numbers = try await greeting.futureResult.get()["version"]?["qemu"]
            let version = Version(
                major: numbers?["major"]?.integer ?? 0, minor: numbers?["minor"]?.integer ?? 0,
                micro: numbers?["micro"]?.integer ?? 0)
            let connection = QMPConnection(
                title: title, version: version, channel: channel, handler: handler, deadline: deadline)
            try await connection.execute("qmp_capabilities")
            return connection
        } catch {
            greeting.fail(error)
            throw translated(error, "connect", title)
        }
    }

    /// Has QEMU do something, and waits until it has.
    ///
    /// - Throws: What QEMU said, as `operation` the command.
    @discardableResult
    package func execute(
        _ command: String, _ arguments: [String: JSONValue] = [:]
    ) async throws(VolumeError) -> JSONValue {
        do {
            return try await channel.eventLoop.flatSubmit { [self] in
                handler.value.execute(command, arguments, by: deadline, on: channel)
            }.get()
        } catch {
            throw Self.translated(error, command, title)
        }
    }

    /// Waits for an event, or takes it from those that have come already.
    ///
    /// - Parameter name: What is waited for, in the words of an error: "BLOCK_JOB_READY".
    package func event(
        _ name: String, where isIt: @escaping @Sendable (QMPEvent) -> Bool
    ) async throws(VolumeError) -> QMPEvent {
        do {
            return try await channel.eventLoop.flatSubmit { [self] in
                handler.value.event(name, by: deadline, on: channel, isIt)
            }.get()
        } catch {
            throw Self.translated(error, name, title)
        }
    }

    /// Drops the events that have come so far: those of an earlier job of the same name, for one.
    package func forgetEvents() async {
        try? await channel.eventLoop.submit { [handler] in handler.value.forgetEvents() }.get()
    }

    /// Lets some time pass, in a cancelled task as well.
    package func pause(_ duration: Duration) async {
        try? await channel.eventLoop.scheduleTask(in: TimeAmount(duration)) {}.futureResult.get()
    }

    package func close() async {
        // It is closed already if QEMU or the deadline did it.
        try? await channel.close()
    }

    private static func translated(_ error: any Error, _ operation: String, _ title: String) -> VolumeError {
        if let known = error as? VolumeError { return known }
        guard let system = error as? IOError else {
            let reason = error is ChannelError ? "the connection is closed" : "\(error)"
            return VolumeError(
                .unreachable, operation, on: title, reason: reason, advice: "See whether the VM still runs.")
        }
        let (kind, advice): (VolumeError.Kind, String?) =
            switch system.errnoCode {
            case ENOENT, ENOTDIR, ENOTSOCK:
                (.missing, "Give the path of a QMP socket of the VM's: -qmp unix:PATH,server=on,wait=off")
            case ECONNREFUSED: (.unreachable, "Nobody listens there: see whether the VM still runs.")
            case EACCES, EPERM: (.forbidden, "The socket and its folder must let the user in that Godwit runs as.")
            case EAGAIN:
                (.busy, "QEMU serves one client at a time on a QMP socket: give the VM one that nobody else uses.")
            default: (.unreachable, nil)
            }
        let reason = unsafe String(cString: strerror(system.errnoCode))
        return VolumeError(kind, operation, on: title, reason: reason, advice: advice)
    }
}
