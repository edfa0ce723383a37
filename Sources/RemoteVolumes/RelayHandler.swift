internal import NBDProtocol
internal import NBDVolumes
internal import NIOCore
internal import Relay
internal import Sockets
internal import Volumes

/// Matches replies to requests, and sends changes that wait together. Lives on its channel's event loop.
final class RelayHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    typealias Answer = CheckedContinuation<RelayReply, Never>

    private enum Phase {
        case shaking(ClientSession)
        case relaying
        case over(End)
    }

    private let title: String
    private let silence: TimeAmount
    private var tls: ClientTLS.Course
    private var phase: Phase
    private var wire = RelayClientSession()
    private var entry: EventLoopPromise<RelayGrant?>?
    /// Who waits for a reply. Each is resumed once: kept from its asking to its reply, or to the end of the connection.
    private var answers: [UInt64: [Answer]] = [:]
    private var changes: Set<UInt64> = []
    private var gathering = Gathering<Answer>()
    /// When the receiver last showed itself, or was asked something after owing nothing.
    private var heard = NIODeadline.distantPast
    private var watch: Scheduled<Void>?

    /// - Parameters:
    ///   - tls: Needed where the plan is one under TLS.
    ///   - entry: Fulfilled or failed with the end of the handshake.
    init(
        title: String, plan: ClientPlan, tls: ClientTLS?, silence: Duration, entry: EventLoopPromise<RelayGrant?>
    ) {
        self.title = title
        self.tls = ClientTLS.Course(tls, for: plan)
        self.silence = TimeAmount(silence)
        self.entry = entry
        phase = .shaking(ClientSession(plan))
    }

    // MARK: What the channel asks for

    func ask(_ request: RelayRequest, _ answer: Answer, on channel: any Channel) {
        if case .over(let end) = phase {
            return answer.resume(returning: .failed(end.error("\(request.kind)", on: title)))
        }
        _ = send(request, [answer], on: channel)
    }

    /// A change goes out at once where the line is idle, and with others where it isn't.
    func add(_ change: Change, _ answer: Answer, on channel: any Channel) {
        if case .over(let end) = phase { return answer.resume(returning: .failed(end.error("change", on: title))) }
        gathering.add(change, answer)
        sendGathered(on: channel)
    }

    private func sendGathered(on channel: any Channel) {
        while let (list, tickets) = gathering.take() { changes.insert(send(.change(list), tickets, on: channel)) }
    }

    private func send(_ request: RelayRequest, _ waiting: [Answer], on channel: any Channel) -> UInt64 {
        let (id, pieces) = wire.request(request)
        if answers.isEmpty { heard = channel.eventLoop.now }
        answers[id] = waiting
        watchOver(channel)
        for piece in pieces { channel.write(piece, promise: nil) }
        channel.flush()
        return id
    }

    /// Takes leave of the receiver.
    func leave(_ channel: any Channel) {
        finish(End(.failed, "the connection was ended"))
        channel.close(promise: nil)
    }

    /// Gives the server up that doesn't answer the offer by then.
    func limitHandshake(to limit: Duration, on channel: any Channel) {
        guard let entry else { return }
        let late = channel.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(limit)) { [weak self] in
            self?.finish(
                End(
                    .unreachable, "no answer to the offer in \(limit.components.seconds) s",
                    advice: "See what the receiver does, and whether its volumes can be reached there."))
            channel.close(promise: nil)
        }
        entry.futureResult.assumeIsolated().whenComplete { _ in late.cancel() }
    }

    /// Has somebody look whether the receiver shows a sign, while it owes anything.
    private func watchOver(_ channel: any Channel) {
        guard watch == nil, !answers.isEmpty else { return }
        watch = channel.eventLoop.assumeIsolated().scheduleTask(deadline: heard + silence) { [weak self] in
            guard let self else { return }
            watch = nil
            guard channel.eventLoop.now >= heard + silence, !answers.isEmpty else { return watchOver(channel) }
            finish(
                End(
                    .unreachable, "no sign for \(silence.nanoseconds / 1_000_000_000) s",
                    advice: "See whether the receiver still runs, and the way to it."))
            channel.close(promise: nil)
        }
    }

    // MARK: What the receiver says

    func channelActive(context: ChannelHandlerContext) {
        context.channel.noticeDeadPeers()
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        heard = context.eventLoop.now
        while case .shaking(var session) = phase {
            guard let step = session.receive(&bytes) else {
                phase = .shaking(session)
                return
            }
            phase = .shaking(session)
            take(step, context)
        }
        while case .relaying = phase, let step = wire.receive(&bytes) { take(step, context) }
    }

    private func take(_ step: ClientSession.Step, _ context: ChannelHandlerContext) {
        switch step {
        case .send(let bytes): context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
        case .relayed(var data):
            guard let grant = RelayGrant(from: &data) else {
                finish(
                    End(
                        .unsupported, "the receiver speaks another version of the relay",
                        advice: "Both ends have to be of versions that go together."))
                return context.close(promise: nil)
            }
            phase = .relaying
            entry?.succeed(grant)
            entry = nil
        case .close(let closing): refused(closing, context)
        case .startTLS:
            guard let failure = tls.begin(before: self, context) else { return }
            finish(failure)
            context.close(promise: nil)
        case .listed, .entered, .data, .hole, .status, .finished: preconditionFailure("it wasn't planned")
        }
    }

    private func refused(_ closing: ClientSession.Closing, _ context: ChannelHandlerContext) {
        switch closing.reason {
        case .refused(.relay, .unsupported, _), .violation(.notFixedNewstyle):
            // No Godwit, or none that receives.
            entry?.succeed(nil)
            entry = nil
            finish(End(.unsupported, "the server is no receiver"))
        case .refused(.relay, .tlsRequired, _):
            finish(
                End(
                    .forbidden, "the receiver demands TLS",
                    advice: "Write godwits:// for godwit://, or godwits+unix:// for godwit+unix://."))
        case .refused(.relay, .policy, let words):
            finish(
                End(
                    .forbidden, "the receiver refused it: \(words.oneLine)",
                    advice: "Name a volume that it takes: its operator says which, by --allow."))
        case .refused(.relay, .platform, let words):
            finish(End(.unreachable, "the receiver can't open it: \(words.oneLine)"))
        case .refused(.relay, _, let words): finish(End(.unsupported, "the receiver refused it: \(words.oneLine)"))
        default: finish(End(closing.reason, isEntered: false))
        }
        context.writeAndFlush(wrapOutboundOut(closing.last), promise: nil)
        context.close(promise: nil)
    }

    private func take(_ step: RelayClientSession.Step, _ context: ChannelHandlerContext) {
        switch step {
        case .alive: break
        case .reply(let id, let reply):
            for answer in answers.removeValue(forKey: id) ?? [] { answer.resume(returning: reply) }
            if changes.remove(id) != nil {
                gathering.frameEnded()
                sendGathered(on: context.channel)
            }
        case .close(let violation):
            finish(
                End(
                    .damaged, "the receiver broke the protocol: \(violation)",
                    advice: "See that a Godwit listens there, and of which version it is."))
            context.close(promise: nil)
        }
    }

    // MARK: The end

    func channelInactive(context: ChannelHandlerContext) {
        let isShaking = if case .shaking = phase { true } else { false }
        finish(
            isShaking
                ? End(.lost, isEntered: false)
                : End(.unreachable, "the receiver closed the connection", advice: "See whether it still runs."))
        context.fireChannelInactive()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if tls.stands(after: event), case .shaking(var session) = phase {
            let step = session.tlsStarted()
            phase = .shaking(session)
            take(step, context)
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let isShaking = if case .shaking = phase { true } else { false }
        finish(tls.end(error, isEntered: !isShaking))
        context.close(promise: nil)
    }

    private func finish(_ end: End) {
        if case .over = phase { return }
        phase = .over(end)
        watch?.cancel()
        entry?.fail(end.error("connect", on: title))
        entry = nil
        // In the order in which they were asked.
        let waiting = answers.sorted { $0.key < $1.key }.flatMap(\.value) + gathering.giveUp()
        answers = [:]
        for answer in waiting { answer.resume(returning: .failed(end.error("relay", on: title))) }
    }
}

extension String {
    /// The receiver's own words.
    fileprivate var oneLine: String { split(whereSeparator: \.isNewline).joined(separator: " ") }
}
