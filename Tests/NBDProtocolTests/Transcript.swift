import NIOCore
import Volumes

@testable import NBDProtocol

/// Bytes as they stand in a specification: hex digits, words in quotation marks as ASCII, `00*124` for many, and after a
/// `#` what they are.
func hex(_ text: String) -> ByteBuffer {
    var bytes = ByteBuffer()
    for line in text.split(separator: "\n") {
        var rest = line.prefix { $0 != "#" }
        while let first = rest.first {
            if first == "\"" {
                let word = rest.dropFirst().prefix { $0 != "\"" }
                bytes.writeString(String(word))
                rest = rest.dropFirst(word.count + 2)
            } else if first == " " {
                rest = rest.dropFirst()
            } else {
                let word = rest.prefix { $0 != " " }
                let parts = word.split(separator: "*")
                let digits = String(parts[0])
                precondition(digits.count % 2 == 0, "half a byte: \(line)")
                let once = stride(from: 0, to: digits.count, by: 2).map { index in
                    UInt8(digits.dropFirst(index).prefix(2), radix: 16)!
                }
                for _ in 0..<(parts.count > 1 ? Int(parts[1])! : 1) { bytes.writeBytes(once) }
                rest = rest.dropFirst(word.count)
            }
        }
    }
    return bytes
}

/// Either end.
protocol Session {
    associatedtype Step
    mutating func receive(_ input: inout ByteBuffer) -> Step?
}

extension ServerSession: Session {}
extension ClientSession: Session {}

extension Session {
    /// All steps that these bytes lead to.
    mutating func steps(_ bytes: ByteBuffer) -> [Step] {
        var input = bytes
        var steps: [Step] = []
        while let step = receive(&input) { steps.append(step) }
        return steps
    }

    /// The one step that this transcript leads to.
    mutating func step(_ text: String) -> Step? {
        let steps = steps(hex(text))
        return steps.count == 1 ? steps[0] : nil
    }
}

extension ServerSession {
    /// After the client's flags, as most tests begin.
    static func haggling(_ policy: ServerPolicy = ServerPolicy(tls: .off)) -> ServerSession {
        var session = ServerSession(policy)
        var input = hex("00000003")
        precondition(session.receive(&input) == nil)
        return session
    }

    /// In the transmission, with all that was asked for.
    static func transmitting(
        _ style: ReplyStyle, _ info: ExportInfo = .sample, contexts: [MetaContext] = [.allocation]
    ) -> ServerSession {
        var session = haggling()
        switch style {
        case .simple: break
        case .structured: _ = session.steps(OptionHeader.option(.structuredReply))
        case .extended: _ = session.steps(OptionHeader.option(.extendedHeaders))
        }
        if style != .simple, !contexts.isEmpty {
            let request = MetaContextRequest(name: info.name, queries: contexts.map(\.name))
            _ = session.steps(OptionHeader.option(.setMetaContext, data: request.data))
            _ = session.answer(.found(info))
        }
        _ = session.steps(OptionHeader.option(.go, data: ExportRequest(name: info.name, wishes: []).data))
        guard case .enter = session.answer(.found(info)) else { preconditionFailure("no way in") }
        return session
    }
}

extension ClientSession {
    /// In the transmission of a server that does all.
    static func transmitting(
        _ style: ReplyStyle, _ info: ExportInfo = .sample, contexts: [MetaContext] = [.allocation],
        limits: ClientLimits = ClientLimits()
    ) -> ClientSession {
        var client = ClientSession(
            ClientPlan(
                .enter(info.name), tls: .off, wantsStructuredReplies: style != .simple,
                wantsExtendedHeaders: style == .extended, contexts: contexts), limits: limits)
        var server = ServerSession(ServerPolicy(tls: .off))
        var toClient = server.greeting
        while client.agreement == nil {
            var toServer = ByteBuffer()
            for case .send(let bytes) in client.steps(toClient) { toServer.writeImmutableBuffer(bytes) }
            toClient = ByteBuffer()
            while let step = server.receive(&toServer) {
                switch step {
                case .send(let bytes): toClient.writeImmutableBuffer(bytes)
                case .find:
                    switch server.answer(.found(info)) {
                    case .send(let bytes), .enter(_, let bytes): toClient.writeImmutableBuffer(bytes)
                    default: preconditionFailure("no way in")
                    }
                default: preconditionFailure("no way in")
                }
            }
        }
        return client
    }
}

extension ExportInfo {
    /// 1 MiB that can do everything.
    static let sample = ExportInfo(
        name: "disk", description: "a disk", size: .mebibytes(1),
        flags: [.flush, .fua, .trim, .writeZeroes, .fastZero, .cache, .multiConn], contexts: [.allocation, .dirty])
}

extension ServerSession.Step {
    var sent: ByteBuffer? { if case .send(let bytes) = self { bytes } else { nil } }
    var violation: Violation? {
        if case .close(let closing) = self, case .violation(let violation) = closing.reason { violation } else { nil }
    }
    var refused: OptionReplyType? {
        guard var bytes = sent, let header = try? OptionReplyHeader(from: &bytes), header.type.isError else {
            return nil
        }
        return header.type
    }
    var request: Request? { if case .request(let request) = self { request } else { nil } }
}

extension ClientSession.Step {
    var sent: ByteBuffer? { if case .send(let bytes) = self { bytes } else { nil } }
    var violation: Violation? {
        if case .close(let closing) = self, case .violation(let violation) = closing.reason { violation } else { nil }
    }
}
