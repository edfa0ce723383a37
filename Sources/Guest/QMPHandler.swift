internal import Foundation
internal import NIOCore
internal import Volumes

/// Matches answers to commands, and keeps events until somebody asks for them. Lives on its channel's event loop.
final class QMPHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Why the connection can't be used any more.
    struct End {
        let kind: VolumeError.Kind
        let reason: String
        let advice: String?

        func error(_ operation: String, _ object: String) -> VolumeError {
            VolumeError(kind, operation, on: object, reason: reason, advice: advice)
        }
    }

    /// Events that nobody has asked for yet; the oldest go first.
    static let mostEvents = 1024

    private let title: String
    private var session = QMPSession()
    private var end: End?
    private var greeting: EventLoopPromise<JSONValue>?
    /// QEMU answers on the socket, and not to whoever asked: what a client asked that was killed is answered to the next one.
    /// So no two of them begin with the same number.
    private var lastID = Int64.random(in: 0..<1 << 52)
    private var commands: [Int64: (name: String, promise: EventLoopPromise<JSONValue>)] = [:]
    private var events: [QMPEvent] = []
    private var wait: (isIt: (QMPEvent) -> Bool, name: String, promise: EventLoopPromise<QMPEvent>)?

    init(title: String, greeting: EventLoopPromise<JSONValue>) {
        self.title = title
        self.greeting = greeting
    }

    // MARK: What the connection asks for

    func execute(_ command: String, _ arguments: [String: JSONValue], by deadline: NIODeadline, on channel: any Channel)
        -> EventLoopFuture<JSONValue>
    {
        if let end { return channel.eventLoop.makeFailedFuture(end.error(command, title)) }
        let promise = channel.eventLoop.makePromise(of: JSONValue.self)
        lastID += 1
        var request: [String: JSONValue] = ["execute": .string(command), "id": .integer(lastID)]
        if !arguments.isEmpty { request["arguments"] = .object(arguments) }
        do {
            var line = ByteBuffer(bytes: try JSONValue.object(request).encoded())
            line.writeString("\n")
            commands[lastID] = (command, promise)
            channel.writeAndFlush(line, promise: nil)
        } catch {
            let reason = "no JSON can be made of its arguments: \(error)"
            promise.fail(VolumeError(.unsupported, command, on: title, reason: reason))
        }
        limit(promise.futureResult, by: deadline, on: channel)
        return promise.futureResult
    }

    func event(_ name: String, by deadline: NIODeadline, on channel: any Channel, _ isIt: @escaping (QMPEvent) -> Bool)
        -> EventLoopFuture<QMPEvent>
    {
        if let index = events.firstIndex(where: isIt) {
            return channel.eventLoop.makeSucceededFuture(events.remove(at: index))
        }
        if let end { return channel.eventLoop.makeFailedFuture(end.error(name, title)) }
        precondition(wait == nil, "one event is waited for at a time")
        let promise = channel.eventLoop.makePromise(of: QMPEvent.self)
        wait = (isIt, name, promise)
        limit(promise.futureResult, by: deadline, on: channel)
        return promise.futureResult
    }

    func forgetEvents() { events = [] }

    /// After its time no answer would be matched any more: what QEMU has done is found out by a new connection.
    func limit<Value: Sendable>(_ future: EventLoopFuture<Value>, by deadline: NIODeadline, on channel: any Channel) {
        let late = channel.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { [weak self] in
            let isGreeting = self?.greeting != nil
            let what = isGreeting ? "no greeting came in time" : "no answer came in time"
            self?.finish(
                End(
                    kind: .unreachable, reason: what,
                    advice: isGreeting
                        ? "QEMU serves one client at a time on a QMP socket: give the VM one that nobody else uses."
                        : "QEMU may be busy: see whether its host reaches the cluster."))
            channel.close(promise: nil)
        }
        future.assumeIsolated().whenComplete { _ in late.cancel() }
    }

    // MARK: What the channel tells

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        do {
            for message in try session.received(&bytes) { try take(message) }
        } catch let junk {
            finish(
                End(
                    kind: .damaged, reason: junk.reason,
                    advice: "The socket must be a QMP monitor: -qmp unix:PATH,server=on,wait=off"))
            context.close(promise: nil)
        }
    }

    private func take(_ message: QMPSession.Message) throws(QMPSession.Junk) {
        switch message {
        case .greeting(let value):
            guard let promise = greeting else { throw QMPSession.Junk(reason: "greeted twice") }
            greeting = nil
            promise.succeed(value)
        case .answer(let id, let answer):
            // Otherwise it was another client's.
            guard let (name, promise) = commands.removeValue(forKey: id) else { return }
            switch answer {
            case .value(let value): promise.succeed(value)
            case .refusal(let kind, let reason):
                promise.fail(VolumeError(Self.kind(kind, reason), name, on: title, reason: reason))
            }
        case .event(let event):
            if let wait, wait.isIt(event) {
                self.wait = nil
                wait.promise.succeed(event)
            } else {
                if events.count == Self.mostEvents { events.removeFirst() }
                events.append(event)
            }
        }
    }

    /// Classes: qapi/error.json. Most errors are of the class GenericError.
    private static func kind(_ name: String, _ reason: String) -> VolumeError.Kind {
        switch name {
        case "CommandNotFound": .unsupported
        case "DeviceNotFound", "DeviceNotActive": .missing
        default:
            // strerror's words, in which QEMU's block drivers end their messages.
            if reason.hasSuffix("No such file or directory") {
                .missing
            } else if reason.hasSuffix("Permission denied") || reason.hasSuffix("Operation not permitted") {
                .forbidden
            } else {
                .failed
            }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        finish(
            End(
                kind: .unreachable, reason: "QEMU closed the connection",
                advice: "See whether the VM still runs."))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        finish(End(kind: .unreachable, reason: "\(error)", advice: nil))
        context.close(promise: nil)
    }

    private func finish(_ new: End) {
        guard end == nil else { return }
        end = new
        greeting?.fail(new.error("connect", title))
        greeting = nil
        for (name, promise) in commands.values { promise.fail(new.error(name, title)) }
        commands = [:]
        wait?.promise.fail(new.error(wait?.name ?? "", title))
        wait = nil
    }
}
