import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// Replies, true and untrue. NBD protocol, "Structured reply types".
struct ClientTransmissionTests {
    static func extent(_ offset: UInt64, _ length: UInt64) -> Extent {
        Extent(offset: ByteOffset(offset), length: ByteCount(length))
    }
    static let both = [
        ChosenContext(id: 1, context: .allocation), ChosenContext(id: 2, context: .dirty),
    ]
    static let read = Request.Command.read(extent(0x1000, 0x1000))
    static let status = Request.Command.blockStatus(extent(0, 0x10000), contexts: both)

    static func session(_ style: ReplyStyle, limits: ClientLimits = ClientLimits()) -> ClientSession {
        .transmitting(style, contexts: [.allocation, .dirty], limits: limits)
    }

    // MARK: Requests

    @Test(
        arguments: [
            (Request.Command.read(extent(0x1000, 0x200)), CommandFlags.df, "0004 0000", "00001000", "00000200"),
            (.write(extent(0x1000, 0x200)), .fua, "0001 0001", "00001000", "00000200"),
            (.flush, [], "0000 0003", "00000000", "00000000"),
            (.trim(extent(0x1000, 0x200)), [], "0000 0004", "00001000", "00000200"),
            (.cache(extent(0x1000, 0x200)), [], "0000 0005", "00001000", "00000200"),
            (.writeZeroes(extent(0x1000, 0x200), noHole: true, fast: true), [], "0012 0006", "00001000", "00000200"),
            (.blockStatus(extent(0x1000, 0x200), contexts: both), .reqOne, "0008 0007", "00001000", "00000200"),
        ] as [(Request.Command, CommandFlags, String, String, String)])
    func `a request is these bytes`(
        command: Request.Command, flags: CommandFlags, head: String, offset: String, length: String
    ) throws {
        var compact = Self.session(.structured)
        let (cookie, bytes) = try compact.request(command, flags)
        #expect(cookie == 1)
        #expect(bytes == hex("25609513 \(head) 0000000000000001 00000000\(offset) \(length)"))
        var extended = Self.session(.extended)
        _ = try extended.request(.flush)
        let wide = head == "0001 0001" ? "0021 0001" : head  // NBD_CMD_FLAG_PAYLOAD_LEN
        #expect(
            try extended.request(command, flags).bytes
                == hex("21e41c71 \(wide) 0000000000000002 00000000\(offset) 00000000\(length)"))
    }

    @Test func `a status of some contexts carries their numbers`() throws {
        let some = Request.Command.blockStatus(Self.extent(0, 0x1000), contexts: [Self.both[1]])
        var extended = Self.session(.extended)
        #expect(
            try extended.request(some).bytes
                == hex(
                    """
                    21e41c71 0020 0007 0000000000000001 0000000000000000
                    000000000000000c   # bytes of the payload
                    0000000000001000   # effect length
                    00000002           # x-godwit:dirty
                    """))
        var structured = Self.session(.structured)
        #expect(throws: Refusal.self) { try structured.request(some) }
        #expect(structured.pendingCookies == [])
    }

    @Test func `what the server would refuse is not even sent`() {
        var session = Self.session(.simple)
        for command in [
            Self.status, .read(Self.extent(1 << 20, 1)), .write(Self.extent(0, 0)),
            .blockStatus(Self.extent(0, 1), contexts: []),
        ] {
            #expect(throws: Refusal.self) { try session.request(command) }
        }
        #expect(session.pendingCookies == [])
        var limits = ClientLimits()
        limits.pending = 1
        var narrow = Self.session(.simple, limits: limits)
        #expect(throws: Never.self) { try narrow.request(.flush) }
        #expect(throws: Refusal.self) { try narrow.request(.flush) }
        let large = ExportInfo(name: "disk", size: .gibibytes(8), flags: [.trim])
        var compact = ClientSession.transmitting(.structured, large)
        #expect(throws: Refusal.self) { try compact.request(.trim(Self.extent(0, 1 << 32))) }
        var extended = ClientSession.transmitting(.extended, large)
        #expect(throws: Never.self) { try extended.request(.trim(Self.extent(0, 1 << 32))) }
    }

    // MARK: Replies

    @Test func `a simple read, in pieces`() throws {
        var session = Self.session(.simple)
        _ = try session.request(.read(Self.extent(0x1000, 6)))
        #expect(
            session.step("67446698 00000000 0000000000000001 \"abc\"")
                == .data(cookie: 1, offset: ByteOffset(0x1000), ByteBuffer(string: "abc")))
        #expect(
            session.steps(hex("\"def\"")) == [
                .data(cookie: 1, offset: ByteOffset(0x1003), ByteBuffer(string: "def")),
                .finished(cookie: 1, nil),
            ])
        #expect(session.pendingCookies == [])
    }

    @Test func `a read in any order, among other replies`() throws {
        var session = Self.session(.structured)
        _ = try session.request(.read(Self.extent(0x1000, 0x1000)))
        _ = try session.request(.flush)
        #expect(
            session.steps(
                hex(
                    """
                    668e33ef 0000 0001 0000000000000001 00000009  # NBD_REPLY_TYPE_OFFSET_DATA
                    0000000000001fff "z"                          # its last byte first
                    67446698 00000000 0000000000000002            # the flush
                    668e33ef 0001 0002 0000000000000001 0000000c  # NBD_REPLY_TYPE_OFFSET_HOLE
                    0000000000001000 00000fff
                    """)) == [
                    .data(cookie: 1, offset: ByteOffset(0x1fff), ByteBuffer(string: "z")),
                    .finished(cookie: 2, nil), .hole(cookie: 1, Self.extent(0x1000, 0xfff)),
                    .finished(cookie: 1, nil),
                ])
    }

    @Test func `an error in the middle of a read`() throws {
        var session = Self.session(.extended)
        _ = try session.request(Self.read)
        #expect(
            session.steps(
                hex(
                    """
                    6e8a278c 0000 8002 0000000000000001 0000000000001000 0000000000000011
                    00000005 0003 "bad" 0000000000001234
                    6e8a278c 0000 8001 0000000000000001 0000000000001000 0000000000000006
                    00000016 0000
                    6e8a278c 0001 0000 0000000000000001 0000000000001000 0000000000000000
                    """)) == [
                    .finished(cookie: 1, RequestFailure(error: .io, message: "bad", offset: ByteOffset(0x1234)))
                ])
    }

    @Test func `an error of an unknown type or value is one`() throws {
        var session = Self.session(.structured)
        _ = try session.request(.flush)
        #expect(
            session.step("668e33ef 0001 8003 0000000000000001 00000008 000000ff 0000 0000")
                == .finished(cookie: 1, RequestFailure(error: .invalid, message: "", offset: nil)))
    }

    @Test func `block status, the last one cut at the export's end`() throws {
        var session = Self.session(.structured)
        _ = try session.request(Self.status)
        #expect(
            session.steps(
                hex(
                    """
                    668e33ef 0000 0005 0000000000000001 00000014
                    00000002 0000ffff 00000001 ffffffff 00000000
                    668e33ef 0001 0005 0000000000000001 0000000c
                    00000001 00001000 00000003
                    """)) == [
                    .status(
                        cookie: 1, Self.both[1],
                        [
                            BlockStatus(length: ByteCount(0xffff), flags: 1),
                            BlockStatus(length: ByteCount(0xf0001), flags: 0),
                        ]),
                    .status(cookie: 1, Self.both[0], [BlockStatus(length: ByteCount(0x1000), flags: 3)]),
                    .finished(cookie: 1, nil),
                ])
        var wide = Self.session(.extended)
        _ = try wide.request(Self.status, .reqOne)
        #expect(
            wide.step(
                """
                6e8a278c 0000 0006 0000000000000001 0000000000000000 0000000000000018
                00000002 00000001 0000000000010000 8000000000000001
                """)
                == .status(
                    cookie: 1, Self.both[1],
                    [BlockStatus(length: ByteCount(0x10000), flags: 0x8000_0000_0000_0001)]))
    }

    @Test func `a server about to stop is left`() throws {
        var session = Self.session(.structured)
        _ = try session.request(.flush)
        _ = try session.request(.flush)
        #expect(
            session.step("67446698 0000006c 0000000000000001")
                == .finished(cookie: 1, RequestFailure(error: .shutdown, message: "", offset: nil)))
        #expect(session.mustLeave)
        #expect(throws: Refusal.self) { try session.request(.flush) }
        #expect(session.disconnect() == hex("25609513 0000 0002 0000000000000000 0000000000000000 00000000"))
        #expect(session.step("67446698 00000000 0000000000000002") == .finished(cookie: 2, nil))
        #expect(session.inputEnded()?.reason == .agreed)
        #expect(session.inputEnded() == nil)
    }

    @Test func `what is in flight when the server dies is known`() throws {
        var session = Self.session(.structured)
        _ = try session.request(.flush)
        _ = try session.request(Self.read)
        #expect(session.inputEnded()?.reason == .lost)
        #expect(session.pendingCookies == [1, 2])
    }

    // MARK: Lies

    @Test(arguments: lies) func `no honest server replies so`(lie: Lie) throws {
        for length in [1, 7, 1 << 20] {
            var session = Self.session(lie.style)
            _ = try session.request(lie.command, lie.flags)
            var bytes = hex(lie.reply)
            var steps: [ClientSession.Step] = []
            while let piece = bytes.readSlice(length: min(length, bytes.readableBytes)), piece.readableBytes > 0 {
                steps += session.steps(piece)
                #expect(session.heldBytes <= Bounds.string + 14)
            }
            #expect(steps.last?.violation?.description == lie.finding, "\(steps)")
            #expect(session.isClosed)
        }
    }

    @Test func `no end of chunks, no end of gaps`() throws {
        var limits = ClientLimits()
        (limits.chunks, limits.pieces) = (3, 2)
        let hole = { (offset: Int) in
            "668e33ef 0000 0002 \(Self.one) 0000000c 000000000000\(String(0x1000 + offset, radix: 16)) 00000001"
        }
        var gaps = Self.session(.structured, limits: limits)
        _ = try gaps.request(Self.read)
        #expect(gaps.steps(hex("\(hole(0)) \(hole(2))")).count == 2)
        #expect(gaps.step(hole(4))?.violation == .tooMany("gaps in a read", most: 2))
        var chunks = Self.session(.structured, limits: limits)
        _ = try chunks.request(Self.read)
        #expect(chunks.steps(hex("\(hole(0)) \(hole(1)) \(hole(2))")).count == 3)
        #expect(chunks.step(hole(3))?.violation == .tooMany("chunks of a reply", most: 3))
    }
}
