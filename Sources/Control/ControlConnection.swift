internal import NIOCore

/// One client of a move: a line in, a line out, closed. Used on its event loop only.
final class ControlConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State {
        case reading(LineCollector)
        /// The move was asked.
        case asking
        /// The reply is written, or nobody is there to have it.
        case over
    }

    private let connections: ControlConnections
    private let control: any MoveControl
    private let limits: ControlServer.Limits
    private var state = State.reading(LineCollector())
    private var context: ChannelHandlerContext?
    private var deadline: Scheduled<Void>?
    /// Whether the move has been asked, and hasn't answered yet. It keeps the connection's place taken, even when the
    /// client has left: so the number of questions to the move is bounded, too.
    private var isAsking = false

    init(among connections: ControlConnections, control: any MoveControl, limits: ControlServer.Limits) {
        (self.connections, self.control, self.limits) = (connections, control, limits)
    }

    var isReading: Bool { if case .reading = state { true } else { false } }
    var isOpen: Bool { context != nil }

    func close() {
        state = .over
        context?.close(promise: nil)
    }

    // MARK: What the client does

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func channelActive(context: ChannelHandlerContext) {
        guard connections.admit(self) else {
            return reply(.refused("the move has more orders than it can take; try again in a few seconds"))
        }
        wait(limits.request) { $0.reply(.refused("no order came within \(self.limits.request)")) }
        context.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .reading(var line) = state else { return }
        let step = line.take(unwrapInboundIn(data).readableBytesView)
        state = .reading(line)
        switch step {
        case .more: break
        case .line(let line): take(line)
        case .tooLong: reply(.refused("an order is a line of at most \(longestControlLine) bytes"))
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if isReading { context.read() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .some(.inputClosed) = event as? ChannelEvent else { return }
        // It will send no more, but may still want the reply to what it sent.
        switch state {
        case .reading(let line):
            if line.isEmpty { close() } else { reply(.refused("an order ends with a newline")) }
        case .asking, .over: break
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { close() }

    func channelInactive(context: ChannelHandlerContext) { state = .over }

    func handlerRemoved(context: ChannelHandlerContext) {
        deadline?.cancel()
        self.context = nil
        if !isAsking { connections.leave(self) }
    }

    // MARK: What it is told

    private func take(_ line: [UInt8]) {
        guard let order = controlValue(MoveOrder.self, of: line) else {
            return reply(.refused("this is no order that this version of godwit knows"))
        }
        guard let loop = context?.eventLoop else { return }
        (state, isAsking) = (.asking, true)
        wait(limits.answer) {
            $0.reply(.refused("the move didn't answer within \(self.limits.answer); it may still do what was asked"))
        }
        let (control, bound) = (control, NIOLoopBound(self, eventLoop: loop))
        // Nobody waits for it: a move that doesn't answer must hold up neither this loop nor its own end. It is counted
        // by `connections` until it is over.
        Task {
            let answer: ControlReply =
                if order == .status { .status(await control.status()) } else { .init(await control.take(order)) }
            loop.execute { bound.value.answered(answer) }
        }
    }

    private func answered(_ answer: ControlReply) {
        isAsking = false
        guard isOpen else { return connections.leave(self) }
        if case .asking = state { reply(answer) }
    }

    /// Writes the reply and closes.
    private func reply(_ reply: ControlReply) {
        guard let context else { return }
        state = .over
        let line = controlLine(reply) ?? controlLine(ControlReply.refused("the move's answer can't be sent")) ?? []
        // A client that doesn't read doesn't keep its place.
        wait(limits.request) { $0.close() }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: line))).assumeIsolated().whenComplete { _ in
            self.close()
        }
    }

    /// Does `then` unless something else happens before. There is one such thing at a time.
    private func wait(_ time: Duration, _ then: @escaping (ControlConnection) -> Void) {
        deadline?.cancel()
        deadline = context?.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(time)) { [weak self] in
            if let self { then(self) }
        }
    }
}

/// The connections of a move: a bounded number. Used on its event loop only.
final class ControlConnections {
    private let limit: Int
    /// The oldest first.
    private var members: [ControlConnection] = []
    private var ended: EventLoopPromise<Void>?

    init(limit: Int) { self.limit = limit }

    /// - Returns: Whether there is a place. The one that has been silent for longest gives up its own; those that wait
    ///   for the move don't.
    func admit(_ connection: ControlConnection) -> Bool {
        guard ended == nil else { return false }
        if members.count >= limit {
            guard let silent = members.first(where: \.isReading) else { return false }
            leave(silent)
            silent.close()
        }
        members.append(connection)
        return true
    }

    func leave(_ connection: ControlConnection) {
        members.removeAll { $0 === connection }
        if !members.contains(where: \.isOpen) { ended?.succeed() }
    }

    /// Closes all that haven't asked anything yet, and the others when they have their answers, but at the latest after
    /// `grace`.
    func end(within grace: TimeAmount, on loop: any EventLoop) -> EventLoopFuture<Void> {
        let promise = loop.makePromise(of: Void.self)
        ended = promise
        for silent in members where silent.isReading { silent.close() }
        guard members.contains(where: \.isOpen) else {
            promise.succeed()
            return promise.futureResult
        }
        let late = loop.assumeIsolated().scheduleTask(in: grace) {
            for member in self.members { member.close() }
            promise.succeed()
        }
        promise.futureResult.assumeIsolated().whenComplete { _ in late.cancel() }
        return promise.futureResult
    }
}
