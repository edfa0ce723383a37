internal import NBDProtocol
internal import NIOCore
internal import Volumes

/// A request, and where its answer goes.
///
/// Safe: whoever asks keeps the buffer until it is resumed, and the handler lets go of the question before.
@safe struct Question {
    /// Empty but for a block status.
    typealias Statuses = [MetaContext: [BlockStatus]]

    let command: Request.Command
    /// Of a write, what goes after its header.
    let payload: ByteBuffer?
    /// Of a read, as many bytes as are asked for.
    let buffer: UnsafeMutableRawBufferPointer?
    var statuses: Statuses = [:]
    /// Resumed once: the handler keeps a question from its asking to its answer, or to the end of the connection.
    let continuation: CheckedContinuation<Result<Statuses, VolumeError>, Never>
}

/// Matches answers to requests. Lives on its channel's event loop.
final class ClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let title: String
    private let silence: TimeAmount
    private var tls: ClientTLS.Course
    private var session: ClientSession
    private var entry: EventLoopPromise<Agreement>?
    private var questions: [UInt64: Question] = [:]
    private var end: End?
    /// When the server last showed itself, or was asked something after owing nothing.
    private var heard = NIODeadline.now()
    private var watch: Scheduled<Void>?

    /// - Parameters:
    ///   - tls: Needed where the plan is one under TLS.
    ///   - entry: Fulfilled or failed with the end of the handshake.
    init(title: String, plan: ClientPlan, tls: ClientTLS?, silence: Duration, entry: EventLoopPromise<Agreement>) {
        self.title = title
        self.tls = ClientTLS.Course(tls, for: plan)
        self.silence = TimeAmount(silence)
        self.entry = entry
        session = ClientSession(plan)
    }

    // MARK: What the connection asks for

    func ask(_ question: Question, on channel: any Channel) {
        let command = question.command
        if let end {
            let object = command.object(title, at: command.extent?.offset)
            return question.continuation.resume(returning: .failure(end.error(command.name, on: object)))
        }
        do throws(Refusal) {
            let (cookie, header) = try session.request(command)
            if questions.isEmpty { heard = .now() }
            questions[cookie] = question
            watchOver(channel)
            guard let payload = question.payload else { return channel.writeAndFlush(header, promise: nil) }
            channel.write(header, promise: nil)
            channel.writeAndFlush(payload, promise: nil)
        } catch {
            question.continuation.resume(returning: .failure(VolumeError(error, to: command, on: title)))
        }
    }

    /// Takes leave of the server, which is owed nothing and owes nothing.
    func leave(_ channel: any Channel) {
        guard end == nil else { return }
        let goodbye = session.agreement == nil ? nil : session.disconnect()
        finish(End(.failed, "the connection was ended"))
        guard let goodbye else { return channel.close(promise: nil) }
        channel.writeAndFlush(goodbye).whenComplete { _ in channel.close(promise: nil) }
    }

    /// Gives the server up that isn't done with the handshake by then.
    func limitHandshake(to limit: Duration, on channel: any Channel) {
        guard let entry else { return }
        let late = channel.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(limit)) { [weak self] in
            self?.finish(
                End(
                    .unreachable, "no end of the handshake in \(limit.components.seconds) s",
                    advice: "See what the server does: it may serve so many clients at a time."))
            channel.close(promise: nil)
        }
        entry.futureResult.assumeIsolated().whenComplete { _ in late.cancel() }
    }

    /// Has somebody look whether the server answers, while it owes anything.
    private func watchOver(_ channel: any Channel) {
        guard watch == nil, !questions.isEmpty else { return }
        watch =
            channel.eventLoop.assumeIsolated().scheduleTask(deadline: heard + silence) { [weak self] in
                guard let self else { return }
                watch = nil
                guard NIODeadline.now() >= heard + silence, !questions.isEmpty else { return watchOver(channel) }
                finish(
                    End(
                        .unreachable, "no answer for \(silence.nanoseconds / 1_000_000_000) s",
                        advice: "See whether the server still runs, and what its disk does."))
                channel.close(promise: nil)
            }
    }

    // MARK: What the channel tells

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        heard = .now()
        while let step = session.receive(&bytes) { take(step, context) }
    }

    private func take(_ step: ClientSession.Step, _ context: ChannelHandlerContext) {
        switch step {
        case .send(let bytes): context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
        case .entered(let agreement):
            entry?.succeed(agreement)
            entry = nil
        case .data(let cookie, let offset, let piece): fill(cookie, offset, piece)
        case .hole(let cookie, let extent): clear(cookie, extent)
        case .status(let cookie, let context, let statuses):
            questions[cookie]?.statuses[context.context, default: []] += statuses
        case .finished(let cookie, let failure):
            guard let question = questions.removeValue(forKey: cookie) else { return }
            question.continuation.resume(
                returning: failure.map { .failure(VolumeError($0, to: question.command, on: title)) }
                    ?? .success(question.statuses))
        case .close(let closing):
            finish(End(closing.reason, isEntered: session.agreement != nil))
            context.writeAndFlush(wrapOutboundOut(closing.last), promise: nil)
            context.close(promise: nil)
        case .startTLS:
            guard let failure = tls.begin(before: self, context) else { return }
            finish(failure)
            context.close(promise: nil)
        case .listed, .relayed: preconditionFailure("it wasn't planned")
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if tls.stands(after: event), end == nil { take(session.tlsStarted(), context) }
        context.fireUserInboundEventTriggered(event)
    }

    /// Where in a read's buffer an extent belongs. The session has held it against the request.
    private func place(_ cookie: UInt64, _ offset: ByteOffset, _ count: Int) -> UnsafeMutableRawBufferPointer? {
        guard let question = questions[cookie], let buffer = unsafe question.buffer,
            let extent = question.command.extent
        else { return nil }
        let start = Int((offset - extent.offset).bytes)
        precondition(start >= 0 && count <= buffer.count - start, "a session lets nothing else through")
        return unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + count])
    }

    private func fill(_ cookie: UInt64, _ offset: ByteOffset, _ piece: ByteBuffer) {
        guard let place = unsafe place(cookie, offset, piece.readableBytes) else { return }
        unsafe piece.withUnsafeReadableBytes { unsafe place.copyMemory(from: $0) }
    }

    private func clear(_ cookie: UInt64, _ hole: Extent) {
        guard let place = unsafe place(cookie, hole.offset, Int(hole.length.bytes)) else { return }
        _ = unsafe place.initializeMemory(as: UInt8.self, repeating: 0)
    }

    func channelInactive(context: ChannelHandlerContext) {
        let isEntered = session.agreement != nil
        finish(End(session.inputEnded()?.reason ?? .lost, isEntered: isEntered))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        finish(tls.end(error, isEntered: session.agreement != nil))
        context.close(promise: nil)
    }

    private func finish(_ new: End) {
        guard end == nil else { return }
        end = new
        watch?.cancel()
        entry?.fail(new.error("connect", on: title))
        entry = nil
        // Forgotten first: whoever goes on frees its buffer.
        let unanswered = questions.values.map { ($0.command, $0.continuation) }
        questions = [:]
        for (command, continuation) in unanswered {
            let object = command.object(title, at: command.extent?.offset)
            continuation.resume(returning: .failure(new.error(command.name, on: object)))
        }
    }
}
