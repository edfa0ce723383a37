import Conformance
import NIOCore
import Volumes

@testable import NBDProtocol

/// A server session and a client that isn't one.
struct ServerFuzz {
    var random: SplitMix64
    var session: ServerSession
    var requests = 0
    /// What must not be.
    var fault: String?
    private var handed = 0

    init(seed: UInt64) {
        random = SplitMix64(seed: seed)
        if Bool.random(using: &random) {
            let style = ReplyStyle.allCases.randomElement(using: &random)!
            session = .transmitting(style, contexts: [.allocation, .dirty])
        } else {
            let tls = [ServerPolicy.TLS.off, .offered, .required].randomElement(using: &random)!
            session = ServerSession(ServerPolicy(tls: tls, offersRelay: Bool.random(using: &random)))
        }
    }

    mutating func run() {
        var messages: [ByteBuffer] = []
        if session.agreement == nil { messages.append(ByteBuffer(integer: UInt32(3))) }
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            messages.append(session.agreement == nil ? option() : request(in: session.style))
        }
        if session.agreement == nil, Bool.random(using: &random) { messages.append(request(in: .simple)) }
        let bytes = Mutation.spoil(messages, &random)
        var rest = bytes[...]
        var input = ByteBuffer()
        var steps = 0
        while !rest.isEmpty, fault == nil {
            input.writeImmutableBuffer(Mutation.piece(&rest, &random))
            while let step = session.receive(&input) {
                steps += 1
                take(step)
            }
            if session.heldBytes > Bounds.option { fault = "\(session.heldBytes) bytes are held" }
            if input.readableBytes > 0 { fault = "bytes were left that nothing waits for" }
            input.discardReadBytes()
        }
        // A step for each 16 bytes of an option, an answer, and each piece of a payload.
        if steps > 2 * bytes.count + 2 { fault = "more steps than bytes" }
        if handed > bytes.count { fault = "more bytes than came" }
        let wasClosed = session.isClosed
        if (session.inputEnded() == nil) != wasClosed || !session.isClosed { fault = "no end" }
    }

    private mutating func take(_ step: ServerSession.Step) {
        switch step {
        case .send, .enter, .close, .relayed: break
        case .relay:
            take(
                Bool.random(using: &random)
                    ? session.grantRelay(ByteBuffer(string: "grant")) : session.refuseRelay(.policy, "no"))
        case .startTLS: session.tlsStarted()
        case .list: take(session.exports([ListedExport(name: "disk")]))
        case .find:
            let answers: [ExportAnswer] = [.found(.sample), .found(.sample), .found(.sample), .missing, .refused("no")]
            let answer = answers.randomElement(using: &random)!
            let isTLSOffered = session.policy.tls == .offered && !session.isUnderTLS
            take(session.answer(isTLSOffered && answer == .missing ? .needsTLS : answer))
        case .request(let request):
            requests += 1
            guard let agreement = session.agreement else { return fault = "a request before the handshake's end" }
            if let extent = request.extent {
                if extent.isEmpty || extent.end.bytes > agreement.size.bytes { fault = "out of bounds: \(request)" }
            }
            let encoder = ReplyEncoder(agreement)
            let reply = encoder.failed(request, .io)
            if reply.readableBytes == 0 { fault = "no reply" }
        case .payload(let piece, let remaining):
            handed += piece.readableBytes
            if piece.readableBytes == 0 || remaining < 0 { fault = "nothing handed on" }
        }
    }

    // MARK: What a client would say

    private mutating func option() -> ByteBuffer {
        let type = OptionType.allCases.randomElement(using: &random)!
        var data = ByteBuffer()
        switch type {
        case .exportName: data.writeString("disk")
        case .info, .go: data = ExportRequest(name: "disk", wishes: [.blockSize, .name]).data
        case .listMetaContext, .setMetaContext:
            data = MetaContextRequest(name: "disk", queries: ["base:allocation", "x:y"]).data
        case .abort: return OptionHeader.option(.list)
        case .list, .startTLS, .structuredReply, .extendedHeaders: break
        case .relay: data.writeString("offer")
        }
        return OptionHeader.option(type, data: data)
    }

    private mutating func request(in style: ReplyStyle) -> ByteBuffer {
        var bytes = ByteBuffer()
        let type = CommandType.allCases.filter { $0 != .disconnect }.randomElement(using: &random)!
        let isFlush = type == .flush
        let length = UInt64.random(in: 1...64, using: &random)
        var flags: CommandFlags = Bool.random(using: &random) ? [.fua] : []
        if style == .extended, type == .write { flags.insert(.payloadLen) }
        let isChoice = style == .extended && type == .blockStatus && Bool.random(using: &random)
        if isChoice { flags.insert(.payloadLen) }
        RequestHeader(
            flags: flags, type: type.rawValue, cookie: random.next(), offset: isFlush ? 0 : random.next() >> 46,
            length: isFlush ? 0 : isChoice ? 12 : length
        ).write(to: &bytes, in: style)
        if type == .write { bytes.writeRepeatingByte(0x25, count: Int(length)) }
        if isChoice { bytes.writeMultipleIntegers(length, UInt32(2)) }
        return bytes
    }
}
