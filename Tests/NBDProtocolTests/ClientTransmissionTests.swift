import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// Replies, true and untrue. NBD protocol, "Structured reply types".
struct ClientTransmissionTests {
    private static func extent(_ offset: UInt64, _ length: UInt64) -> Extent {
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
                    00000002           # godwit:dirty
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

    struct Lie: Sendable, CustomStringConvertible {
        let description: String
        /// What the client says to it.
        let finding: String
        let style: ReplyStyle
        let command: Request.Command
        var flags: CommandFlags = []
        let reply: String

        init(
            _ description: String, _ finding: String, _ style: ReplyStyle, _ command: Request.Command, _ reply: String
        ) {
            self.init(description, finding, style, command, [], reply)
        }
        init(
            _ description: String, _ finding: String, _ style: ReplyStyle, _ command: Request.Command,
            _ flags: CommandFlags,
            _ reply: String
        ) {
            (self.description, self.finding, self.style, self.command) = (description, finding, style, command)
            (self.flags, self.reply) = (flags, reply)
        }
    }

    private static let head = "668e33ef 0000"
    private static let last = "668e33ef 0001"
    private static let one = "0000000000000001"
    private static let none = "668e33ef 0001 0000 0000000000000001 00000000"
    static let lies: [Lie] = [
        Lie(
            "junk", "a message begins with 0x67446699, which has no place there", .simple, .flush,
            "67446699 00000000 \(one)"),
        Lie(
            "an unknown cookie", "a reply to 0x2, which nobody waits for", .simple, .flush,
            "67446698 00000000 0000000000000002"),
        Lie(
            "a reply again", "a reply to 0x1, which nobody waits for", .simple, .flush,
            "67446698 00000000 \(one) 67446698 00000000 \(one)"),
        Lie(
            "a structured reply that was not agreed on", "a message begins with 0x668e33ef, which has no place there",
            .simple, .flush, none),
        Lie(
            "an extended reply that was not agreed on", "a message begins with 0x6e8a278c, which has no place there",
            .structured, .flush, "6e8a278c 00*28"),
        Lie(
            "a simple reply with extended headers", "a message begins with 0x67446698, which has no place there",
            .extended, .flush, "67446698 00000000 \(one)"),
        Lie(
            "a structured reply with extended headers", "a message begins with 0x668e33ef, which has no place there",
            .extended, .flush, none),
        Lie(
            "a simple reply to a structured read", "a simple reply to a read, when structured ones were agreed on",
            .structured, read, "67446698 00000000 \(one)"),
        Lie(
            "a simple error of a structured read", "a simple reply to a read, when structured ones were agreed on",
            .structured, read, "67446698 00000005 \(one)"),
        Lie(
            "a simple reply to a block status", "a simple reply to a block status", .structured, status,
            "67446698 00000000 \(one)"),
        Lie(
            "another offset than the request's", "a reply at 4097 to a request at 4096", .extended, read,
            "6e8a278c 0001 0000 \(one) 0000000000001001 00*8"),
        Lie("nothing of a read", "a read that ends without all of its bytes", .structured, read, none),
        Lie(
            "all but a byte", "a read that ends without all of its bytes", .structured, read,
            "\(last) 0002 \(one) 0000000c 0000000000001000 00000fff"),
        Lie(
            "a hole twice", "2 bytes at 8190, which were told before", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000001000 00000fff"
                + " \(head) 0002 \(one) 0000000c 0000000000001ffe 00000002"),
        Lie(
            "a hole of no bytes", "0 bytes at 4096, which were not asked for", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000001000 00000000"),
        Lie(
            "a hole before the request", "1 bytes at 4095, which were not asked for", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000000fff 00000001"),
        Lie(
            "a hole beyond the request", "2 bytes at 8191, which were not asked for", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000001fff 00000002"),
        Lie(
            "a hole where the sum overflows", "4294967295 bytes at 18446744073709551615, which were not asked for",
            .structured, read, "\(head) 0002 \(one) 0000000c ffffffffffffffff ffffffff"),
        Lie("a hole of 11 bytes", "a chunk of type 2 of 11 bytes", .structured, read, "\(head) 0002 \(one) 0000000b"),
        Lie(
            "data before the request", "1 bytes at 4095, which were not asked for", .structured, read,
            "\(head) 0001 \(one) 00000009 0000000000000fff"),
        Lie("data of no bytes", "a chunk of type 1 of 8 bytes", .structured, read, "\(head) 0001 \(one) 00000008"),
        Lie(
            "data beyond the request", "16 bytes at 8177, which were not asked for", .structured, read,
            "\(head) 0001 \(one) 00000018 0000000000001ff1"),
        Lie(
            "more data than was asked for", "a chunk of type 1 of 4105 bytes, when at most 4104 are taken", .structured,
            read, "\(head) 0001 \(one) 00001009"),
        Lie(
            "4 GiB", "a chunk of type 1 of 4294967295 bytes, when at most 4104 are taken", .structured, read,
            "\(head) 0001 \(one) ffffffff"),
        Lie(
            "16 EiB", "a chunk of type 1 of 18446744073709551615 bytes, when at most 4104 are taken", .extended, read,
            "6e8a278c 0000 0001 \(one) 0000000000001000 ffffffffffffffff"),
        Lie(
            "data of a write", "a chunk of type 1 in reply to write", .structured, .write(extent(0, 512)),
            "\(head) 0001 \(one) 00000009"),
        Lie(
            "two chunks in spite of DF", "a second content chunk, in spite of NBD_CMD_FLAG_DF", .structured, read, .df,
            "\(head) 0002 \(one) 0000000c 0000000000001000 00000800"
                + " \(last) 0002 \(one) 0000000c 0000000000001800 00000800"),
        Lie(
            "NONE that isn't the last", "an NBD_REPLY_TYPE_NONE without NBD_REPLY_FLAG_DONE", .structured, .flush,
            "\(head) 0000 \(one) 00000000"),
        Lie(
            "NONE with something", "a chunk of type 0 of 1 bytes, when at most 0 are taken", .structured, .flush,
            "\(last) 0000 \(one) 00000001"),
        Lie(
            "an unknown chunk", "a chunk of type 3 in reply to flush", .structured, .flush,
            "\(last) 0003 \(one) 00000000"),
        Lie(
            "an error that is none", "an error chunk without an error, or with a message that doesn't fit", .structured,
            .flush, "\(last) 8001 \(one) 00000006 00000000 0000"),
        Lie(
            "an error too short", "a chunk of type 32769 of 5 bytes", .structured, .flush,
            "\(last) 8001 \(one) 00000005"),
        Lie(
            "an error's message beyond its chunk",
            "an error chunk without an error, or with a message that doesn't fit", .structured, .flush,
            "\(last) 8001 \(one) 00000007 00000005 0002 61"),
        Lie(
            "an error too long", "a chunk of type 32769 of 8192 bytes, when at most 4110 are taken", .structured,
            .flush, "\(last) 8001 \(one) 00002000"),
        Lie(
            "an error outside the request", "an error outside of its request", .structured, read,
            "\(last) 8002 \(one) 0000000e 00000005 0000 0000000000002000"),
        Lie(
            "a place in a flush", "an error outside of its request", .structured, .flush,
            "\(last) 8002 \(one) 0000000e 00000005 0000 0000000000000000"),
        Lie(
            "a status of an unknown context", "a status of context 3, which was not asked for, or again", .structured,
            status, "\(head) 0005 \(one) 0000000c 00000003"),
        Lie(
            "a context twice", "a status of context 1, which was not asked for, or again", .structured, status,
            "\(head) 0005 \(one) 0000000c 00000001 00001000 00000000"
                + " \(head) 0005 \(one) 0000000c 00000001"),
        Lie(
            "a context missing", "a block status that ends without all of its contexts", .structured, status,
            "\(last) 0005 \(one) 0000000c 00000001 00001000 00000000"),
        Lie(
            "a status of no bytes", "the status of no bytes", .structured, status,
            "\(head) 0005 \(one) 0000000c 00000001 00000000 00000000"),
        Lie(
            "a status without descriptors", "a chunk of type 5 of 4 bytes", .structured, status,
            "\(head) 0005 \(one) 00000004"),
        Lie("half a descriptor", "a block status of 16 bytes", .structured, status, "\(head) 0005 \(one) 00000010"),
        Lie(
            "a descriptor too many", "the status of more bytes than were asked about", .structured, status,
            "\(head) 0005 \(one) 00000014 00000001 00010000 00000000 00000001 00000000"),
        Lie(
            "two descriptors in spite of REQ_ONE", "a chunk of type 5 of 20 bytes, when at most 12 are taken",
            .structured, status, .reqOne, "\(head) 0005 \(one) 00000014"),
        Lie(
            "more than was asked about, in spite of REQ_ONE", "the status of more bytes than were asked about",
            .structured, status, .reqOne,
            "\(head) 0005 \(one) 0000000c 00000001 00010001 00000000"),
        Lie(
            "more descriptors than there may be", "a chunk of type 5 of 8388620 bytes, when at most 8388612 are taken",
            .structured, status, "\(head) 0005 \(one) 0080000c"),
        Lie(
            "compact descriptors in extended headers", "a chunk of type 5 in reply to blockStatus", .extended, status,
            "6e8a278c 0000 0005 \(one) 0000000000000000 000000000000000c"),
        Lie(
            "a count that isn't theirs", "a block status of 1 descriptors that says 2", .extended, status,
            "6e8a278c 0000 0006 \(one) 0000000000000000 0000000000000018 00000001 00000002"),
    ]

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
