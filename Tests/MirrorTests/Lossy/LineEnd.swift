import NIOCore
import Synchronization

/// One end of a simulated connection: a channel without a socket.
final class LineEnd: Channel, ChannelCore {
    private struct State {
        var isOpen = true
        var isActive = false
        /// What was written and not flushed.
        var writes: [(bytes: ByteBuffer, promise: EventLoopPromise<Void>?)] = []
        /// What came and was not read.
        var inbox: [ByteBuffer] = []
        var isInputOver = false
        var isReading = false
    }

    private let loop: VirtualLoop
    /// Reads as soon as there is something, and ends with the other end's bytes.
    private let isEager: Bool
    private let closePromise: EventLoopPromise<Void>
    private let state = Mutex(State())
    private let line = Mutex<Line?>(nil)
    private let pipe = Mutex<ChannelPipeline?>(nil)

    init(on loop: VirtualLoop, isEager: Bool) {
        (self.loop, self.isEager) = (loop, isEager)
        closePromise = loop.makePromise()
        let pipeline = ChannelPipeline(channel: self)
        pipe.withLock { $0 = pipeline }
    }

    /// Its connection stands. On its loop, as all that follows.
    func connect(_ line: Line) {
        self.line.withLock { $0 = line }
        state.withLock { $0.isActive = true }
        pipeline.fireChannelRegistered()
        pipeline.fireChannelActive()
        if isEager { pipeline.read() }
    }

    // MARK: What comes

    func receive(_ bytes: ByteBuffer) {
        state.withLock { if $0.isOpen { $0.inbox.append(bytes) } }
        handOn()
    }

    /// The other end sends no more.
    func endInput() {
        state.withLock { $0.isInputOver = true }
        handOn()
    }

    func fail(_ error: any Error) {
        guard state.withLock({ $0.isOpen }) else { return }
        pipeline.fireErrorCaught(error)
        close0(error: error, mode: .all, promise: nil)
    }

    private func handOn() {
        while true {
            let (bytes, isOver) = state.withLock { state -> (ByteBuffer?, Bool) in
                guard state.isOpen, state.isReading || isEager else { return (nil, false) }
                guard state.inbox.isEmpty else {
                    state.isReading = false
                    return (state.inbox.removeFirst(), false)
                }
                guard state.isInputOver else { return (nil, false) }
                state.isReading = false
                return (nil, true)
            }
            if let bytes {
                pipeline.fireChannelRead(bytes)
                pipeline.fireChannelReadComplete()
            } else if isOver, isEager {
                return close0(error: ChannelError.eof, mode: .all, promise: nil)
            } else {
                if isOver { pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed) }
                return
            }
        }
    }

    // MARK: ChannelCore

    func read0() {
        state.withLock { $0.isReading = true }
        // Not from within the handler that asks.
        loop.execute { self.handOn() }
    }

    func write0(_ data: NIOAny, promise: EventLoopPromise<Void>?) {
        let bytes = unwrapData(data, as: ByteBuffer.self)
        let isOpen = state.withLock { state in
            if state.isOpen { state.writes.append((bytes, promise)) }
            return state.isOpen
        }
        if !isOpen { promise?.fail(ChannelError.ioOnClosedChannel) }
    }

    func flush0() {
        let writes = state.withLock { state in
            defer { state.writes = [] }
            return state.writes
        }
        guard !writes.isEmpty else { return }
        var bytes = ByteBuffer()
        for write in writes { bytes.writeImmutableBuffer(write.bytes) }
        let promises = writes.compactMap(\.promise)
        line.withLock { $0 }?.send(bytes, from: self) { isTaken in
            for promise in promises {
                if isTaken { promise.succeed() } else { promise.fail(ChannelError.ioOnClosedChannel) }
            }
        }
    }

    func close0(error: any Error, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        let (wasOpen, wasActive, writes) = state.withLock { state in
            defer {
                (state.isOpen, state.isActive) = (false, false)
                (state.writes, state.inbox) = ([], [])
            }
            return (state.isOpen, state.isActive, state.writes)
        }
        guard wasOpen else {
            promise?.fail(ChannelError.alreadyClosed)
            return
        }
        for write in writes { write.promise?.fail(error) }
        line.withLock { $0.take() }?.end(from: self)
        promise?.succeed()
        if wasActive { pipeline.fireChannelInactive() }
        pipeline.fireChannelUnregistered()
        // Not while the pipeline is in use.
        loop.execute {
            self.removeHandlers(pipeline: self.pipeline)
            self.closePromise.succeed()
        }
    }

    func register0(promise: EventLoopPromise<Void>?) { promise?.succeed() }
    func registerAlreadyConfigured0(promise: EventLoopPromise<Void>?) { promise?.succeed() }
    func bind0(to: SocketAddress, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }
    func connect0(to: SocketAddress, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }
    func triggerUserOutboundEvent0(_ event: Any, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }
    func channelRead0(_ data: NIOAny) {}
    func errorCaught0(error: any Error) {}
    func localAddress0() throws -> SocketAddress { throw ChannelError.operationUnsupported }
    func remoteAddress0() throws -> SocketAddress { throw ChannelError.operationUnsupported }

    // MARK: Channel

    var allocator: ByteBufferAllocator { ByteBufferAllocator() }
    var closeFuture: EventLoopFuture<Void> { closePromise.futureResult }
    var pipeline: ChannelPipeline {
        guard let pipeline = pipe.withLock({ $0 }) else { preconditionFailure("made with the channel") }
        return pipeline
    }
    var eventLoop: any EventLoop { loop }
    var localAddress: SocketAddress? { nil }
    var remoteAddress: SocketAddress? { nil }
    var parent: (any Channel)? { nil }
    var isWritable: Bool { true }
    var isActive: Bool { state.withLock { $0.isActive } }
    var _channelCore: any ChannelCore { self }

    func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) -> EventLoopFuture<Void> {
        loop.makeFailedFuture(ChannelError.operationUnsupported)
    }
    func getOption<Option: ChannelOption>(_ option: Option) -> EventLoopFuture<Option.Value> {
        loop.makeFailedFuture(ChannelError.operationUnsupported)
    }
}
