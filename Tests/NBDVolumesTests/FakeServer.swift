import Foundation
import NIOCore
import NIOPosix
import Synchronization
import Volumes

@testable import NBDProtocol

/// An NBD server of an array of bytes, that does what a test has it do.
final class FakeServer: Sendable {
    /// What it does instead of carrying out a request.
    enum Act: Sendable {
        /// Carries it out all the same.
        case obey
        case die
        case keepSilent
        case fail(ErrorValue, String)
        case say(@Sendable (Request, ReplyEncoder) -> ByteBuffer)
        /// Carries it out, and answers so much later.
        case answerLate(TimeAmount)
    }

    /// How a connection begins.
    enum Greeting: Sendable {
        case honest
        case none
        case words(ByteBuffer)
    }

    struct Script: Sendable {
        var greeting = Greeting.honest
        var flags: TransmissionFlags = [.flush, .fua, .writeZeroes]
        var blockSizes = BlockSizes.standard
        var contexts: [MetaContext] = [.allocation]
        /// Of every connection but the first, if not the same.
        var contextsOfOthers: [MetaContext]?
        /// What every context but `base:allocation` has as dirty. Beside that its runs carry bits that nobody knows.
        var dirty: [Range<Int>] = []
        var policy = ServerPolicy(tls: .off)
        /// Those that come after are closed without a word.
        var mostConnections = Int.max
        var act: @Sendable (Request) -> Act = { _ in .obey }
    }

    struct Seen {
        var requests: [Request] = []
        var connections = 0
        /// That took their leave.
        var goodbyes = 0
        var open = 0
        var longest = 0
    }

    let path: String
    let script: Script
    let bytes: Mutex<[UInt8]>
    let seen = Mutex(Seen())
    private let channel = Mutex<(any Channel)?>(nil)

    init(_ bytes: [UInt8], _ script: Script = Script()) async throws {
        path = NSTemporaryDirectory() + "godwit-nbd-\(UInt64.random(in: 0...(.max)))"
        self.script = script
        self.bytes = Mutex(bytes)
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(self))
                }
            }
            .bind(unixDomainSocketPath: path).get()
        self.channel.withLock { $0 = channel }
    }

    func close() async {
        try? await channel.withLock { $0.take() }?.close()
        try? FileManager.default.removeItem(atPath: path)
    }

    var address: NBDAddress { NBDAddress(server: .unix(path: path), export: "disk") }

    var requests: [Request] { seen.withLock { $0.requests } }

    private func info(_ connection: Int) -> ExportInfo {
        let size = bytes.withLock { $0.count }
        return ExportInfo(
            name: "disk", size: size.count, flags: script.flags, blockSizes: script.blockSizes,
            contexts: connection > 1 ? script.contextsOfOthers ?? script.contexts : script.contexts)
    }

    /// Blocks of 512 bytes, so that runs begin and end anywhere in a client's blocks.
    private func runs(_ range: Range<Int>, of context: MetaContext, _ bytes: [UInt8]) -> [BlockStatus] {
        stride(from: range.lowerBound, to: range.upperBound, by: 512).map { start in
            let block = start..<min(start + 512, range.upperBound)
            let flags =
                if context == .allocation {
                    bytes[block].isZeros ? BlockStatus.hole | BlockStatus.zero : 0
                } else {
                    6 | (script.dirty.contains { $0.overlaps(block) } ? BlockStatus.dirty : 0)
                }
            return BlockStatus(length: block.count.count, flags: flags)
        }
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let server: FakeServer
        private var session: ServerSession
        private var input = ByteBuffer()
        private var writing: (request: Request, bytes: [UInt8])?
        private var isOver = false
        /// From 1 on.
        private var number = 0

        init(_ server: FakeServer) {
            self.server = server
            session = ServerSession(server.script.policy)
        }

        func channelActive(context: ChannelHandlerContext) {
            number = server.seen.withLock { seen in
                seen.connections += 1
                seen.open += 1
                return seen.connections
            }
            guard number <= server.script.mostConnections else { return context.close(promise: nil) }
            switch server.script.greeting {
            case .honest: send(session.greeting, context)
            case .none: isOver = true
            case .words(let words):
                isOver = true
                send(words, context)
            }
        }

        func channelInactive(context: ChannelHandlerContext) { server.seen.withLock { $0.open -= 1 } }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var bytes = unwrapInboundIn(data)
            input.writeBuffer(&bytes)
            while !isOver, let step = session.receive(&input) { serve(step, context) }
            input.discardReadBytes()
        }

        private func send(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
        }

        private func serve(_ step: ServerSession.Step, _ context: ChannelHandlerContext) {
            switch step {
            case .send(let bytes), .enter(_, let bytes): send(bytes, context)
            case .list: serve(session.exports([]), context)
            case .find(let question):
                serve(session.answer(question.name == "disk" ? .found(server.info(number)) : .missing), context)
            case .request(let request):
                if case .write = request.command { writing = (request, []) } else { take(request, [], context) }
            case .payload(let piece, let remaining):
                writing?.bytes += piece.getBytes(at: piece.readerIndex, length: piece.readableBytes) ?? []
                guard remaining == 0, let writing else { return }
                self.writing = nil
                take(writing.request, writing.bytes, context)
            case .close(let closing):
                if closing.reason == .agreed { server.seen.withLock { $0.goodbyes += 1 } }
                send(closing.last, context)
                context.close(promise: nil)
            case .startTLS: preconditionFailure("this server has no TLS")
            case .relay, .relayed: preconditionFailure("this server has no relay")
            }
        }

        private func take(_ request: Request, _ payload: [UInt8], _ context: ChannelHandlerContext) {
            server.seen.withLock { seen in
                seen.requests.append(request)
                seen.longest = max(seen.longest, payload.count)
            }
            let encoder = ReplyEncoder(session.agreement!)
            switch server.script.act(request) {
            case .obey: send(carryOut(request, payload, encoder), context)
            case .die:
                isOver = true
                context.close(promise: nil)
            case .keepSilent: break
            case .fail(let error, let words): send(encoder.failed(request, error, words), context)
            case .say(let words): send(words(request, encoder), context)
            case .answerLate(let delay):
                let answer = carryOut(request, payload, encoder)
                context.eventLoop.assumeIsolated().scheduleTask(in: delay) { self.send(answer, context) }
            }
        }

        private func carryOut(_ request: Request, _ payload: [UInt8], _ encoder: ReplyEncoder) -> ByteBuffer {
            let range = request.extent.map { Int($0.offset.bytes)..<Int($0.end.bytes) } ?? 0..<0
            return server.bytes.withLock { bytes in
                switch request.command {
                case .read(let extent):
                    var reply = ReadReply(to: request, encoder)
                    if reply.mayFragment, bytes[range].isZeros { return reply.hole(extent) }
                    var answer = reply.data(extent)
                    answer.writeBytes(bytes[range])
                    return answer
                case .write: bytes.replaceSubrange(range, with: payload)
                case .writeZeroes: bytes.fill(range, with: 0)
                // Nobody may count on zeros after it.
                case .trim: bytes.fill(range, with: 0xEE)
                case .flush, .cache: break
                case .blockStatus(_, let contexts):
                    let runs = contexts.map { ($0.id, server.runs(range, of: $0.context, bytes)) }
                    return encoder.status(request, Dictionary(uniqueKeysWithValues: runs))
                }
                return encoder.done(request)
            }
        }
    }
}

extension ContiguousBytes {
    /// Quick in a debug build, too.
    var isZeros: Bool { unsafe withUnsafeBytes { unsafe isZero($0) } }
}

extension [UInt8] {
    mutating func fill(_ range: Range<Int>, with byte: UInt8) {
        unsafe withUnsafeMutableBytes { bytes in
            _ = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[range])
                .initializeMemory(as: UInt8.self, repeating: byte)
        }
    }
}

extension Int {
    var count: ByteCount { ByteCount(UInt64(self)) }
}

/// Runs a body against a server, and closes it whatever comes.
func withServer<Value>(
    _ bytes: [UInt8], _ script: FakeServer.Script = FakeServer.Script(), _ body: (FakeServer) async throws -> Value
) async throws -> Value {
    let server = try await FakeServer(bytes, script)
    do {
        let value = try await body(server)
        await server.close()
        return value
    } catch {
        await server.close()
        throw error
    }
}
