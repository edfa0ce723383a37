import Conformance
import NIOCore
import Volumes

@testable import NBDProtocol

/// A client session and a server that isn't one.
struct ClientFuzz {
    var random: SplitMix64
    var session: ClientSession
    var server = ServerSession(ServerPolicy(tls: .offered, offersRelay: true))
    var finished = 0
    /// What must not be.
    var fault: String?
    /// Where an honest client's bytes go, to have something to spoil.
    private var messages: [ByteBuffer] = []
    private var input = ByteBuffer()

    init(seed: UInt64) {
        random = SplitMix64(seed: seed)
        var limits = ClientLimits()
        (limits.pieces, limits.chunks) = (4, 64)
        if Int.random(in: 0..<3, using: &random) > 0 {
            let style = ReplyStyle.allCases.randomElement(using: &random)!
            session = .transmitting(style, contexts: [.allocation, .dirty], limits: limits)
            server = .transmitting(style, contexts: [.allocation, .dirty])
        } else {
            let tls = Bool.random(using: &random) ? ClientPlan.TLS.off : .required
            let purposes: [ClientPlan.Purpose] = [
                .list, .list, .enter("disk"), .enter("disk"), .relay(ByteBuffer(string: "offer")),
            ]
            let purpose = purposes.randomElement(using: &random)!
            session = ClientSession(ClientPlan(purpose, tls: tls), limits: limits)
            messages = [server.greeting]
        }
    }

    mutating func run() {
        var isHonest = session.agreement == nil && Bool.random(using: &random)
        for _ in 0..<8 where fault == nil && !session.isClosed {
            if session.agreement != nil { ask() }
            // Some begin as an honest server does, so that the later states are reached.
            let bytes = isHonest ? messages.flatMap { Array($0.readableBytesView) } : Mutation.spoil(messages, &random)
            isHonest = isHonest && Int.random(in: 0..<4, using: &random) > 0
            messages = []
            feed(bytes)
        }
        let wasClosed = session.isClosed
        if (session.inputEnded() == nil) != wasClosed || !session.isClosed { fault = "no end" }
    }

    private mutating func feed(_ bytes: [UInt8]) {
        var rest = bytes[...]
        var steps = 0
        while !rest.isEmpty, fault == nil {
            input.writeImmutableBuffer(Mutation.piece(&rest, &random))
            while let step = session.receive(&input) {
                steps += 1
                take(step)
            }
            if session.heldBytes > 4 + 2 * Bounds.string { fault = "\(session.heldBytes) bytes are held" }
            if input.readableBytes > 0 { fault = "bytes were left that nothing waits for" }
            if session.pending.values.contains(where: { $0.covered.extents.count > 5 }) { fault = "too many gaps" }
            input.discardReadBytes()
        }
        if steps > 2 * bytes.count + 2 { fault = "more steps than bytes" }
    }

    private mutating func take(_ step: ClientSession.Step) {
        switch step {
        case .send(var bytes): answer(&bytes)
        case .startTLS:
            if server.state == .upgrading { server.tlsStarted() }
            take(session.tlsStarted())
        case .finished: finished += 1
        case .data(_, _, let piece): if piece.readableBytes == 0 { fault = "nothing handed on" }
        case .hole(_, let extent): if extent.isEmpty { fault = "no hole" }
        case .status(_, _, let statuses):
            if statuses.isEmpty || statuses.contains(where: { $0.length == .zero }) { fault = "no progress" }
        case .listed, .entered, .relayed, .close: break
        }
    }

    // MARK: What a server would say

    private mutating func answer(_ bytes: inout ByteBuffer) {
        while let step = server.receive(&bytes) {
            var next: ServerSession.Step? = step
            while let step = next {
                next = nil
                switch step {
                case .send(let bytes), .startTLS(let bytes), .enter(_, let bytes): messages.append(bytes)
                case .list: next = server.exports([ListedExport(name: "a", description: "b"), ListedExport(name: "c")])
                case .find: next = server.answer(.found(.sample))
                case .relay: next = server.grantRelay(ByteBuffer(string: "grant"))
                case .relayed(let bytes): messages.append(bytes)
                case .request(let request): messages += replies(to: request)
                case .payload, .close: break
                }
            }
        }
    }

    private mutating func ask() {
        let extent = Extent(
            offset: ByteOffset(random.next() >> 46), length: ByteCount(.random(in: 1...64, using: &random)))
        let contexts = session.agreement?.contexts ?? []
        let commands: [Request.Command] = [
            .read(extent), .read(extent), .flush, .trim(extent), .blockStatus(extent, contexts: contexts),
        ]
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            // After a server said that it stops, there is no asking.
            guard var (_, bytes) = try? session.request(commands.randomElement(using: &random)!) else { continue }
            answer(&bytes)
        }
    }

    private mutating func replies(to request: Request) -> [ByteBuffer] {
        guard let agreement = server.agreement else { return [] }
        let encoder = ReplyEncoder(agreement)
        if Int.random(in: 0..<6, using: &random) == 0 {
            return [encoder.failed(request, .io, "no", at: request.extent?.offset)]
        }
        switch request.command {
        case .read(let extent):
            var reply = ReadReply(to: request, encoder)
            let middle = ByteOffset(.random(in: extent.offset.bytes..<extent.end.bytes, using: &random))
            var pieces: [ByteBuffer] = []
            if reply.mayFragment, middle > extent.offset {
                pieces.append(reply.hole(Extent(from: extent.offset, to: middle)))
            }
            let rest = reply.mayFragment ? Extent(from: middle, to: extent.end) : extent
            var data = reply.data(rest)
            data.writeRepeatingByte(0x66, count: Int(rest.length.bytes))
            return pieces + [data]
        case .blockStatus(_, let contexts):
            let runs = [BlockStatus(length: ByteCount(3), flags: 1), BlockStatus(length: ByteCount(900), flags: 0)]
            return [encoder.status(request, Dictionary(uniqueKeysWithValues: contexts.map { ($0.id, runs) }))]
        case .write, .flush, .trim, .cache, .writeZeroes: return [encoder.done(request)]
        }
    }
}
