import NIOCore
import Testing

@testable import NBDProtocol

/// Godwit's own option, by which a connection leaves NBD.
struct RelayOptionTests {
    private static let offer = "\"IHAVEOPT\" 474f4457 00000005 \"offer\""

    @Test func `a server that doesn't offer it says that it doesn't know it`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .off))
        let reply = session.step(Self.offer)?.sent
        #expect(reply?.getInteger(at: 12, as: UInt32.self) == OptionReplyType.unsupported.rawValue)
        #expect(session.step("\"IHAVEOPT\" 00000003 00000000") == .list)
    }

    @Test func `granted, the session is over and takes nothing of what follows`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .off, offersRelay: true))
        var input = hex(Self.offer + " \"frames\"")
        #expect(session.receive(&input) == .relay(ByteBuffer(string: "offer")))
        #expect(input == ByteBuffer(string: "frames"))
        #expect(session.receive(&input) == nil)
        #expect(input == ByteBuffer(string: "frames"), "nothing is taken before the answer")
        #expect(
            session.grantRelay(ByteBuffer(string: "grant"))
                == .relayed(
                    hex(
                        """
                        0003e889045565a9 474f4457 474f4457 00000005 "grant"
                        0003e889045565a9 474f4457 00000001 00000000  # NBD_REP_ACK
                        """)))
        #expect(session.isClosed && session.inputEnded() == nil)
    }

    @Test func `refused, the client may go on with other options`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .off, offersRelay: true))
        #expect(session.step(Self.offer) == .relay(ByteBuffer(string: "offer")))
        #expect(
            session.refuseRelay(.policy, "no").sent == hex("0003e889045565a9 474f4457 80000002 00000002 \"no\""))
        #expect(session.step("\"IHAVEOPT\" 00000003 00000000") == .list)
    }

    @Test func `where TLS is required it comes after it`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .required, offersRelay: true))
        let reply = session.step(Self.offer)?.sent
        #expect(reply?.getInteger(at: 12, as: UInt32.self) == OptionReplyType.tlsRequired.rawValue)
        _ = session.step("\"IHAVEOPT\" 00000005 00000000")
        session.tlsStarted()
        #expect(session.step(Self.offer) == .relay(ByteBuffer(string: "offer")))
    }

    @Test func `more than an option may hold is read over and refused`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .off, offersRelay: true))
        var input = hex("\"IHAVEOPT\" 474f4457 00010001")
        input.writeRepeatingByte(1, count: 65_537)
        guard case .send(let reply) = session.receive(&input) else { return #expect(Bool(false)) }
        #expect(reply.getInteger(at: 12, as: UInt32.self) == OptionReplyType.tooBig.rawValue)
    }

    // MARK: The client

    private static func client() -> ClientSession {
        ClientSession(ClientPlan(.relay(ByteBuffer(string: "offer")), tls: .off))
    }

    @Test func `the client asks for it first of all, and leaves what follows`() {
        var client = Self.client()
        #expect(
            client.step("\"NBDMAGIC\" \"IHAVEOPT\" 0003")?.sent == hex("00000003 " + Self.offer))
        var input = hex(
            """
            0003e889045565a9 474f4457 474f4457 00000005 "grant"
            0003e889045565a9 474f4457 00000001 00000000
            "frames"
            """)
        #expect(client.receive(&input) == .relayed(ByteBuffer(string: "grant")))
        #expect(input == ByteBuffer(string: "frames"))
        #expect(client.isClosed)
    }

    @Test(arguments: [UInt32(1), 2, 6, 7])
    func `the client is told why not`(error: UInt32) {
        var client = Self.client()
        _ = client.step("\"NBDMAGIC\" \"IHAVEOPT\" 0003")
        var reply = hex("0003e889045565a9 474f4457")
        reply.writeMultipleIntegers(1 << 31 + error, UInt32(2))
        reply.writeString("no")
        guard case .close(let closing) = client.receive(&reply) else { return #expect(Bool(false)) }
        #expect(closing.reason == .refused(.relay, OptionReplyType(rawValue: 1 << 31 + error), "no"))
    }

    @Test func `an acknowledgement without a grant, or a server of one option, is no relay`() {
        var client = Self.client()
        _ = client.step("\"NBDMAGIC\" \"IHAVEOPT\" 0003")
        #expect(client.step("0003e889045565a9 474f4457 00000001 00000000")?.violation != nil)
        var other = Self.client()
        #expect(other.step("\"NBDMAGIC\" \"IHAVEOPT\" 0002")?.violation == .notFixedNewstyle)
    }
}
