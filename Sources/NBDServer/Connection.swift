internal import Credentials
internal import NBDProtocol
internal import NIOCore
internal import Volumes

/// One client: what it sends goes to its session, what that wants is done. Used on its event loop only.
///
/// Nothing is read from the client while as much is under way as the limits allow. Whatever it does, or doesn't do, ends
/// no more than this connection.
final class Connection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let exports: Exports
    private let limits: ServerLimits
    private let connections: Connections
    private let loop: any EventLoop
    private let executor: LoopExecutor
    private let credentials: ServerCredentials?
    private var session: ServerSession
    /// There from `NBD_OPT_STARTTLS` on.
    private var tls: TLSLayer?
    private var context: ChannelHandlerContext?
    private var deadline: Scheduled<Void>?
    /// What came and was not looked at.
    private var input = CircularBuffer<ByteBuffer>()
    private var isReading = false
    /// The client sends no more than what is in `input`.
    private var hasInputEnded = false
    private var willTurn = false
    /// Nothing more is read; what is under way is answered, then the connection is closed.
    private var isLeaving = false
    /// The server ends: the connection does as soon as nothing is under way.
    private var isStopping = false
    private var hasFailed = false
    private var servant: Servant?
    /// A write whose bytes are coming.
    private var write: IncomingWrite?
    private var load: Load
    private var outbox = Outbox()
    /// Requests that the disk is at.
    private var running = 0

    /// - Parameter credentials: With them, TLS is required.
    init(
        _ exports: Exports, _ credentials: ServerCredentials?, limits: ServerLimits, among connections: Connections,
        on loop: any EventLoop
    ) {
        (self.exports, self.limits, self.connections, self.loop) = (exports, limits, connections, loop)
        self.credentials = credentials
        session = ServerSession(ServerPolicy(tls: credentials == nil ? .off : .required))
        executor = LoopExecutor(loop)
        load = Load(limits)
    }

    // MARK: What the client does

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func channelActive(context: ChannelHandlerContext) {
        guard connections.admit(self, on: loop) else { return context.close(promise: nil) }
        wait(limits.handshake) { $0.drop("no handshake within \($0.limits.handshake)") }
        post(session.greeting)
        flush()
        readOn()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isLeaving else { return }
        input.append(unwrapInboundIn(data))
        goOn()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        flush()
        readOn()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if TLSLayer.stands(after: event), !isLeaving { session.tlsStarted() }
        guard case .some(.inputClosed) = event as? ChannelEvent else { return }
        // It may still want the replies to what it sent.
        hasInputEnded = true
        goOn()
        flush()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let failure = tls?.failure(error), !isLeaving else { return context.close(promise: nil) }
        drop(failure.reason)
    }

    func channelInactive(context: ChannelHandlerContext) { _ = session.inputEnded() }

    func handlerRemoved(context: ChannelHandlerContext) {
        deadline?.cancel()
        self.context = nil
        giveUp()
        if running == 0 { connections.leave(self) }
    }

    // MARK: What is made of it

    /// Looks at what came, as far as there is room.
    private func goOn() {
        // A write that has begun has its room.
        while !isLeaving, !load.isFull || write != nil, var bytes = input.first {
            guard let step = session.receive(&bytes) else {
                // It wants more than there is.
                input.removeFirst()
                continue
            }
            if bytes.readableBytes == 0 { input.removeFirst() } else { input[input.startIndex] = bytes }
            take(step)
        }
        if hasInputEnded, !isLeaving, input.isEmpty, let closing = session.inputEnded() { leave(closing) }
    }

    private func readOn() {
        guard !isReading, !isLeaving, input.isEmpty, !load.isFull || write != nil, let context else { return }
        isReading = true
        context.read()
    }

    private func take(_ step: ServerSession.Step) {
        switch step {
        case .send(let bytes): post(bytes)
        case .startTLS(let bytes):
            post(bytes)
            startTLS()
        case .relay, .relayed: preconditionFailure("no relay is offered")
        case .list: take(session.exports(exports.listed))
        case .find(let question):
            take(session.answer(exports.named(question.name).map { .found($0.info) } ?? .missing))
        case .enter(let agreement, let bytes):
            guard let export = exports.named(agreement.exportName) else {
                preconditionFailure("it was found, and exports stay")
            }
            servant = Servant(export, agreement)
            connections.entered(self)
            deadline?.cancel()
            post(bytes)
        case .request(let request): begin(request)
        case .payload(let piece, let remaining): fill(piece, isLast: remaining == 0)
        case .close(let closing): leave(closing)
        }
    }

    /// The last in clear goes out, and from then on all is TLS's. What came already came in clear: the session refuses it
    /// when it gets to see it.
    private func startTLS() {
        guard let credentials, let context else { preconditionFailure("TLS is not offered") }
        flush()
        guard input.isEmpty else { return }
        do {
            tls = try credentials.begin(before: self, in: context.pipeline)
        } catch {
            drop("TLS could not be begun: \(error)")
        }
    }

    /// What a request takes of the memory that the connection may have.
    private func cost(of request: Request) -> Int {
        switch request.command {
        case .read(let extent), .write(let extent): Int(extent.length.bytes)
        // Up to 4096 descriptors of 16 bytes, and as many extents.
        case .blockStatus: 1 << 17
        case .flush, .trim, .cache, .writeZeroes: 0
        }
    }

    private func begin(_ request: Request) {
        load.add(requests: 1, bytes: cost(of: request))
        if case .write(let extent) = request.command {
            write = IncomingWrite(request, count: Int(extent.length.bytes))
        } else if let answer = unsafe servant?.atOnce(request, nil) {
            finish(request, answer)
        } else {
            carryOut(request, nil)
        }
    }

    private func fill(_ piece: ByteBuffer, isLast: Bool) {
        guard var incoming = write.take(), let servant else { preconditionFailure("bytes come after their request") }
        let request = incoming.request
        // What came in one piece is written from where it is.
        let isWhole = isLast && incoming.isEmpty
        if isWhole, let answer = unsafe piece.withUnsafeReadableBytes({ unsafe servant.atOnce(request, $0) }) {
            return finish(request, answer)
        }
        incoming.add(piece)
        guard isLast else { return write = incoming }
        guard let memory = incoming.memory else { return finish(request, servant.noMemory(request)) }
        if !isWhole, let answer = unsafe servant.atOnce(request, UnsafeRawBufferPointer(memory.bytes)) {
            return finish(request, answer)
        }
        carryOut(request, memory)
    }

    private func carryOut(_ request: Request, _ memory: RequestMemory?) {
        guard let servant else { preconditionFailure("requests come after the handshake") }
        running += 1
        let connection = NIOLoopBound(self, eventLoop: loop)
        // Owned by the connection, which counts it and isn't over before it. It runs on the connection's event loop.
        Task(executorPreference: executor) {
            let answer = await servant.carryOut(request, memory)
            connection.value.ended(request, answer)
        }
    }

    private func ended(_ request: Request, _ answer: Servant.Answer) {
        running -= 1
        guard context != nil else {
            if running == 0 { connections.leave(self) }
            return
        }
        finish(request, answer)
        turnSoon()
    }

    private func finish(_ request: Request, _ answer: Servant.Answer) {
        load.remove(bytes: cost(of: request))
        for piece in answer.pieces { post(piece) }
        outbox.endReply()
        if let failure = answer.failure, !hasFailed {
            hasFailed = true
            connections.notice("\(failure); the client was told")
        }
    }

    // MARK: What the client is told

    private func post(_ piece: ByteBuffer) {
        load.add(bytes: piece.readableBytes)
        outbox.add(piece) { context?.write(wrapOutboundOut($0), promise: nil) }
    }

    /// Replies that are ready in one turn of the loop go out together, and then there may be room to go on.
    private func turnSoon() {
        guard !willTurn else { return }
        willTurn = true
        let connection = NIOLoopBound(self, eventLoop: loop)
        loop.execute { connection.value.turn() }
    }

    private func turn() {
        willTurn = false
        goOn()
        flush()
        readOn()
    }

    private func flush() {
        guard let context, let (last, requests, bytes) = outbox.take() else { return }
        context.writeAndFlush(wrapOutboundOut(last)).assumeIsolated().whenComplete { _ in
            self.sent(requests: requests, bytes: bytes)
        }
    }

    private func sent(requests: Int, bytes: Int) {
        load.remove(requests: requests, bytes: bytes)
        if isStopping, load.requests == 0 { leave() }
        if isLeaving { return closeIfDone() }
        // Not from here: what goes on ends with a flush, and this may be the end of one.
        if input.isEmpty { readOn() } else { turnSoon() }
    }

    // MARK: The end

    private func leave(_ closing: ServerSession.Closing) {
        if case .violation(let violation) = closing.reason { return drop("\(violation)") }
        post(closing.last)
        leave()
    }

    /// Ends at once, with nobody to talk to.
    private func drop(_ reason: String) {
        connections.notice("a client was dropped: \(reason)")
        giveUp()
        context?.close(promise: nil)
    }

    /// Ends when all that is under way is answered, and the client has it.
    private func leave() {
        guard !isLeaving else { return }
        giveUp()
        wait(limits.grace) { $0.context?.close(promise: nil) }
        flush()
        closeIfDone()
    }

    /// Nothing that comes, or that came and isn't complete, is looked at any more.
    private func giveUp() {
        isLeaving = true
        input.removeAll()
        if let request = write.take()?.request { load.remove(requests: 1, bytes: cost(of: request)) }
    }

    private func closeIfDone() {
        if running == 0, outbox.isEmpty, load.isNone { context?.close(promise: nil) }
    }

    /// The server ends: what is under way is answered, what comes is refused.
    func stop() {
        guard context != nil, !isLeaving else { return }
        isStopping = true
        session.shutDown()
        if servant == nil || load.requests == 0 { return leave() }
        wait(limits.grace) { $0.context?.close(promise: nil) }
    }

    /// Does `then` unless something else is waited for before. There is one such thing at a time.
    private func wait(_ time: Duration, _ then: @escaping (Connection) -> Void) {
        deadline?.cancel()
        deadline = loop.assumeIsolated().scheduleTask(in: TimeAmount(time)) { [weak self] in
            if let self { then(self) }
        }
    }
}
