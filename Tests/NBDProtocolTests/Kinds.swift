import NIOCore
import Volumes

@testable import NBDProtocol

/// The names of a server session's states. A state that is added must be named here, and so gets its rows.
enum ServerKind: String, CaseIterable {
    case clientFlags, option, optionData, skippingOption, upgrading, listing, finding, granting, request, payload,
        contexts
    case skippingPayload, closed

    init(_ state: ServerSession.State) {
        self =
            switch state {
            case .clientFlags: .clientFlags
            case .option: .option
            case .optionData: .optionData
            case .skippingOption: .skippingOption
            case .upgrading: .upgrading
            case .listing: .listing
            case .finding: .finding
            case .granting: .granting
            case .request: .request
            case .payload: .payload
            case .contexts: .contexts
            case .skippingPayload: .skippingPayload
            case .closed: .closed
            }
    }

    /// A session in this state, and what it is waiting for.
    func session() -> (ServerSession, wanted: ByteBuffer) {
        func haggling(_ bytes: String, _ wanted: String) -> (ServerSession, ByteBuffer) {
            var session = ServerSession.haggling(ServerPolicy(tls: .offered))
            _ = session.steps(hex(bytes))
            return (session, hex(wanted))
        }
        func transmitting(_ bytes: String, _ wanted: String) -> (ServerSession, ByteBuffer) {
            var session = ServerSession.transmitting(.extended)
            _ = session.steps(hex(bytes))
            return (session, hex(wanted))
        }
        switch self {
        case .clientFlags: return (ServerSession(ServerPolicy(tls: .offered)), hex("00000003"))
        case .option: return haggling("", "\"IHAVEOPT\" 00000003 00000000")
        case .optionData: return haggling("\"IHAVEOPT\" 00000007 0000000a", "00000004 \"disk\" 0000")
        case .skippingOption: return haggling("\"IHAVEOPT\" 00000063 00000004 00", "00*3")
        case .upgrading: return haggling("\"IHAVEOPT\" 00000005 00000000", "")
        case .listing: return haggling("\"IHAVEOPT\" 00000003 00000000", "")
        case .finding: return haggling("\"IHAVEOPT\" 00000007 0000000a 00000004 \"disk\" 0000", "")
        case .granting:
            var session = ServerSession.haggling(ServerPolicy(tls: .offered, offersRelay: true))
            _ = session.steps(hex("\"IHAVEOPT\" 474f4457 00000005 \"offer\""))
            return (session, hex("\"IHAVEOPT\" 00000003 00000000"))
        case .request:
            return transmitting("", "21e41c71 0000 0000 0000000000000001 0000000000000000 0000000000000200")
        case .payload:
            return transmitting(
                "21e41c71 0020 0001 0000000000000001 0000000000000000 0000000000000008 \"data\"", "\"data\"")
        case .contexts:
            return transmitting(
                "21e41c71 0020 0007 0000000000000001 0000000000000000 000000000000000c", "0000000000000200 00000001")
        case .skippingPayload:
            return transmitting(
                "21e41c71 0020 0001 0000000000000001 ffffffffffffffff 0000000000000008 \"data\"", "\"data\"")
        case .closed: return haggling("\"IHAVEOPT\" 00000002 00000000", "")
        }
    }
}

/// The same of a client session.
enum ClientKind: String, CaseIterable {
    case magic, handshakeFlags, optionReply, optionReplyData, upgrading, exportNameReply, replyMagic, replyHeader, chunk
    case data, descriptors, finishing, closed

    init(_ state: ClientSession.State) {
        self =
            switch state {
            case .magic: .magic
            case .handshakeFlags: .handshakeFlags
            case .optionReply: .optionReply
            case .optionReplyData: .optionReplyData
            case .upgrading: .upgrading
            case .exportNameReply: .exportNameReply
            case .replyMagic: .replyMagic
            case .replyHeader: .replyHeader
            case .chunk: .chunk
            case .data: .data
            case .descriptors: .descriptors
            case .finishing: .finishing
            case .closed: .closed
            }
    }

    func session() -> (ClientSession, wanted: ByteBuffer) {
        func shaking(_ bytes: String, _ wanted: String) -> (ClientSession, ByteBuffer) {
            var session = ClientSession(ClientPlan(.enter("disk"), tls: self == .upgrading ? .required : .off))
            _ = session.steps(hex(bytes))
            return (session, hex(wanted))
        }
        func transmitting(_ bytes: String, _ wanted: String) -> (ClientSession, ByteBuffer) {
            var session = ClientSession.transmitting(.structured)
            do throws(Refusal) {
                _ = try session.request(.read(Extent(offset: .zero, length: ByteCount(4))))
                _ = try session.request(
                    .blockStatus(
                        Extent(offset: .zero, length: ByteCount(512)), contexts: session.agreement?.contexts ?? []))
                _ = try session.request(.flush)
            } catch {
                preconditionFailure("\(error)")
            }
            var input = hex(bytes)
            while input.readableBytes > 0, session.receive(&input) != nil {}
            return (session, hex(wanted))
        }
        let greeting = "\"NBDMAGIC\" \"IHAVEOPT\" 0003"
        switch self {
        case .magic: return shaking("", "\"NBDMAGIC\" \"IHAVEOPT\"")
        case .handshakeFlags: return shaking("\"NBDMAGIC\" \"IHAVEOPT\"", "0003")
        case .optionReply: return shaking(greeting, "0003e889045565a9 0000000b 00000001 00000000")
        case .optionReplyData: return shaking("\(greeting) 0003e889045565a9 0000000b 80000001 00000004", "\"what\"")
        case .upgrading: return shaking("\(greeting) 0003e889045565a9 00000005 00000001 00000000", "")
        case .exportNameReply: return shaking("\"NBDMAGIC\" \"IHAVEOPT\" 0002", "0000000000001000 0001")
        case .replyMagic: return transmitting("", "67446698")
        case .replyHeader: return transmitting("67446698", "00000000 0000000000000003")
        case .chunk:
            return transmitting("668e33ef 0000 0002 0000000000000001 0000000c", "0000000000000000 00000002")
        case .data: return transmitting("668e33ef 0000 0001 0000000000000001 0000000a 0000000000000000", "\"ab\"")
        case .descriptors:
            return transmitting("668e33ef 0000 0005 0000000000000002 0000000c 00000001", "00000200 00000000")
        case .finishing:
            return transmitting("668e33ef 0001 0001 0000000000000001 0000000c 0000000000000000 \"data\"", "")
        case .closed: return shaking("00*16", "")
        }
    }
}
