internal import Credentials
internal import NBDProtocol
internal import NIOCore
internal import Relay
internal import Sockets
internal import Volumes

/// One client of a receiver: an NBD handshake that ends in a relay, then its requests. Used on its event loop only.
///
/// Nothing is read from the client while as much is under way as the limits allow. Whatever it does, or doesn't do, ends
/// no more than its own session.
final class RelayConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum Phase {
        case shaking(ServerSession)
        /// Its target is being opened.
        case opening(ServerSession)
        case relaying(RelaySession)
        case closed
    }

    private let sessions: Sessions
    private let loop: any EventLoop
    private let credentials: ServerCredentials?
    private var phase: Phase
    /// There from `NBD_OPT_STARTTLS` on.
    private var tls: TLSLayer?
    /// By itself: a second reference to the frame that it holds would have each piece of it copy the whole.
    private var wire = RelayServerSession()
    private var context: ChannelHandlerContext?
    private var deadline: Scheduled<Void>?
    private var sign: Scheduled<Void>?
    /// What came and was not looked at.
    private var input = CircularBuffer<ByteBuffer>()
    private var isReading = false
    /// Requests that are being carried out, and what they and unsent replies hold.
    private var running = 0
    private var heldBytes = 0

    /// - Parameter credentials: With them, TLS is required.
    init(among sessions: Sessions, _ credentials: ServerCredentials?, on loop: any EventLoop) {
        (self.sessions, self.credentials, self.loop) = (sessions, credentials, loop)
        phase = .shaking(
            ServerSession(
                ServerPolicy(tls: credentials == nil ? .off : .required, showsExports: false, offersRelay: true)))
    }

    // MARK: What the client does

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func channelActive(context: ChannelHandlerContext) {
        let me = NIOLoopBound(self, eventLoop: loop)
        guard case .shaking(let session) = phase,
            sessions.admit(
                self,
                close: { [loop] in
                    loop.execute { me.value.drop(nil) }
                })
        else { return context.close(promise: nil) }
        context.channel.noticeDeadPeers()
        deadline = loop.assumeIsolated().scheduleTask(in: TimeAmount(sessions.limits.handshake)) { [weak self] in
            if let self { drop("no offer within \(sessions.limits.handshake)") }
        }
        send([session.greeting])
        readOn()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .closed = phase { return }
        input.append(unwrapInboundIn(data))
        goOn()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        readOn()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if TLSLayer.stands(after: event), case .shaking(var session) = phase {
            session.tlsStarted()
            phase = .shaking(session)
        }
        // A near side waits for its replies before it leaves: one that has ended its half is gone.
        if case .some(.inputClosed) = event as? ChannelEvent { drop(nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { drop(tls?.failure(error)?.reason) }

    func handlerRemoved(context: ChannelHandlerContext) {
        drop(nil)
        self.context = nil
        sessions.leave(self)
    }

    // MARK: What is made of it

    private var isFull: Bool {
        running >= RelayBounds.requests || heldBytes >= Int(clamping: sessions.limits.heldBytes.bytes)
    }

    /// Looks at what came, as far as there is room.
    private func goOn() {
        while !isFull, var bytes = input.first {
            let isMore = advance(&bytes)
            guard !input.isEmpty else { return }
            if bytes.readableBytes == 0 { input.removeFirst() } else { input[input.startIndex] = bytes }
            if !isMore, bytes.readableBytes > 0 { return }
        }
    }

    /// - Returns: Whether there may be more in the same bytes.
    private func advance(_ bytes: inout ByteBuffer) -> Bool {
        switch phase {
        case .shaking(var session):
            guard let step = session.receive(&bytes) else {
                phase = .shaking(session)
                return false
            }
            phase = .shaking(session)
            take(step)
            return true
        case .opening: return false
        case .relaying(let session):
            guard let step = wire.receive(&bytes) else { return false }
            switch step {
            case .request(let id, let request): begin(id, request, session)
            case .close(let violation): drop("\(violation)")
            }
            return true
        case .closed: return false
        }
    }

    private func readOn() {
        guard !isReading, input.isEmpty, !isFull, let context else { return }
        if case .closed = phase { return }
        isReading = true
        context.read()
    }

    // MARK: The handshake

    private func take(_ step: ServerSession.Step) {
        guard case .shaking(var session) = phase else { return }
        switch step {
        case .send(let bytes): send([bytes])
        case .startTLS(let bytes):
            send([bytes])
            startTLS()
        case .list: answer(&session) { $0.exports([]) }
        case .find: answer(&session) { $0.answer(.missing) }
        case .relay(var data): offered(&data, session)
        case .relayed, .enter, .request, .payload: preconditionFailure("there are no exports, and no second answer")
        case .close(let closing):
            if case .violation(let violation) = closing.reason { return drop("\(violation)") }
            send([closing.last])
            drop(nil)
        }
    }

    /// From now on all is TLS's. What came already came in clear: the session refuses it when it gets to see it.
    private func startTLS() {
        guard let credentials, let context else { preconditionFailure("TLS is not offered") }
        // The one that is looked at has nothing left.
        guard input.count <= 1 else { return }
        do {
            tls = try credentials.begin(before: self, in: context.pipeline)
        } catch {
            drop("TLS could not be begun: \(error)")
        }
    }

    private func answer(_ session: inout ServerSession, _ body: (inout ServerSession) -> ServerSession.Step) {
        let step = body(&session)
        phase = .shaking(session)
        take(step)
    }

    private func offered(_ data: inout ByteBuffer, _ session: ServerSession) {
        // What follows is bounded by the target's own limits.
        deadline?.cancel()
        phase = .opening(session)
        do throws(RelayOffer.Flaw) {
            let offer = try RelayOffer(from: &data)
            let me = NIOLoopBound(self, eventLoop: loop)
            switch offer.purpose {
            case .join(let token):
                let found = sessions.session(token)
                // Later, as what is settled goes on with the input.
                loop.execute { me.value.settle(found.map { .success($0) } ?? .failure(.notAllowed), isNew: false) }
            case .begin(let address, let wishes):
                // Owned by the connection, which takes what comes of it, and gives it up if it has ended meanwhile.
                Task(executorPreference: sessions.executor) { [sessions, loop] in
                    let result: Result<RelaySession, Sessions.Refusal>
                    do throws(Sessions.Refusal) {
                        result = .success(try await sessions.begin(address, wishes, offer.features))
                    } catch {
                        result = .failure(error)
                    }
                    loop.execute { me.value.settle(result, isNew: true) }
                }
            }
        } catch {
            switch error {
            case .malformed: refuse(.invalid, "the offer has no shape")
            case .version(let version):
                refuse(.invalid, "version \(version) isn't spoken here, but version \(RelayBounds.version)")
            }
        }
    }

    /// - Parameter isNew: Whether the session, if there is one, is nobody else's.
    private func settle(_ result: Result<RelaySession, Sessions.Refusal>, isNew: Bool) {
        guard case .opening(var handshake) = phase else {
            if isNew, case .success(let session) = result { session.end() }
            return
        }
        switch result {
        case .success(let session):
            let me = NIOLoopBound(self, eventLoop: loop)
            guard session.join(self, close: { [loop] in loop.execute { me.value.drop(nil) } }) else {
                return refuse(.policy, "no more connections in this session")
            }
            guard case .relayed(let bytes) = handshake.grantRelay(session.terms.data) else {
                preconditionFailure("a grant is a grant")
            }
            phase = .relaying(session)
            send([bytes])
            showSigns()
        case .failure(.notAllowed): return refuse(.policy, "not allowed here")
        case .failure(.failed(let error)):
            sessions.notice("\(error)")
            return refuse(.platform, "\(error.operation): \(error.reason)")
        }
        goOn()
        readOn()
    }

    private func refuse(_ type: OptionReplyType, _ message: String) {
        guard case .opening(var session) = phase else { return }
        guard case .send(let bytes) = session.refuseRelay(type, message) else {
            preconditionFailure("a refusal is a refusal")
        }
        phase = .shaking(session)
        send([bytes])
        deadline = loop.assumeIsolated().scheduleTask(in: TimeAmount(sessions.limits.handshake)) { [weak self] in
            if let self { drop(nil) }
        }
        readOn()
    }

    // MARK: Requests

    /// What a request holds of memory until it is answered.
    private static func cost(of request: RelayRequest) -> Int {
        switch request {
        case .change(let changes): changes.reduce(0) { $0 + $1.storedBytes + $1.plainBytes }
        case .read(_, let extent): Int(extent.length.bytes)
        case .digest: 4 << 20
        default: 1 << 12
        }
    }

    private func begin(_ id: UInt64, _ request: RelayRequest, _ session: RelaySession) {
        let cost = Self.cost(of: request)
        running += 1
        heldBytes += cost
        let me = NIOLoopBound(self, eventLoop: loop)
        // Owned by the session, which doesn't end before it.
        Task(executorPreference: sessions.executor) { [loop] in
            let reply = await session.carryOut(request)
            let pieces = RelayServerSession.reply(reply, to: id)
            loop.execute { me.value.finish(pieces, cost: cost) }
        }
    }

    private func finish(_ pieces: [ByteBuffer], cost: Int) {
        running -= 1
        heldBytes -= cost
        send(pieces)
        goOn()
        readOn()
    }

    private func send(_ pieces: [ByteBuffer]) {
        guard let context, let last = pieces.last else { return }
        let count = pieces.reduce(0) { $0 + $1.readableBytes }
        heldBytes += count
        for piece in pieces.dropLast() { context.write(wrapOutboundOut(piece), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(last)).assumeIsolated().whenComplete { _ in
            self.heldBytes -= count
            // Not from within the sending of another.
            if !self.input.isEmpty || !self.isReading { self.turnSoon() }
        }
    }

    private func turnSoon() {
        let me = NIOLoopBound(self, eventLoop: loop)
        loop.execute {
            me.value.goOn()
            me.value.readOn()
        }
    }

    /// Tells the client now and then that its requests are being worked on.
    private func showSigns() {
        sign = loop.assumeIsolated().scheduleTask(in: TimeAmount(sessions.limits.alive)) { [weak self] in
            guard let self, case .relaying = phase else { return }
            if running > 0 { send([RelayServerSession.alive]) }
            showSigns()
        }
    }

    // MARK: The end

    private func drop(_ reason: String?) {
        if case .closed = phase { return }
        if let reason { sessions.notice("a client was dropped: \(reason)") }
        if case .relaying(let session) = phase { session.end() }
        phase = .closed
        input.removeAll()
        deadline?.cancel()
        sign?.cancel()
        context?.close(promise: nil)
    }
}
