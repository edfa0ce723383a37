import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// Requests as they come, and what is said to them. NBD protocol, "Transmission phase".
struct ServerTransmissionTests {
    private func extent(_ offset: UInt64, _ length: UInt64) -> Extent {
        Extent(offset: ByteOffset(offset), length: ByteCount(length))
    }

    // MARK: Transcripts

    @Test func `a write, a flush and the end, in compact headers`() {
        var session = ServerSession.transmitting(.simple)
        let encoder = ReplyEncoder(session.agreement!)
        let steps = session.steps(
            hex(
                """
                25609513           # NBD_REQUEST_MAGIC
                0001 0001          # NBD_CMD_FLAG_FUA, NBD_CMD_WRITE
                0123456789abcdef   # cookie
                0000000000001000   # offset
                00000004 "data"
                25609513 0000 0003 0000000000000002 0000000000000000 00000000  # NBD_CMD_FLUSH
                25609513 0000 0002 0000000000000003 0000000000000000 00000000  # NBD_CMD_DISC
                "more"             # nobody's
                """))
        #expect(steps.count == 4)
        #expect(steps[0].request?.command == .write(extent(0x1000, 4)))
        #expect(steps[0].request?.isFUA == true)
        #expect(steps[1] == .payload(ByteBuffer(string: "data"), remaining: 0))
        #expect(steps[2].request?.command == .flush)
        #expect(steps[3] == .close(.init(reason: .agreed, last: ByteBuffer())))
        #expect(encoder.done(steps[0].request!) == hex("67446698 00000000 0123456789abcdef"))
        #expect(
            encoder.failed(steps[0].request!, .noSpace, "the pool is full")
                == hex("67446698 0000001c 0123456789abcdef"))
    }

    @Test func `a read with holes, in structured replies`() {
        var session = ServerSession.transmitting(.structured)
        let request = session.step("25609513 0000 0000 0000000000000007 0000000000001000 00003000")!.request!
        var reply = ReadReply(to: request, ReplyEncoder(session.agreement!))
        #expect(
            reply.data(extent(0x1000, 0x1000))
                == hex(
                    """
                    668e33ef           # NBD_STRUCTURED_REPLY_MAGIC
                    0000 0001          # NBD_REPLY_TYPE_OFFSET_DATA
                    0000000000000007   # cookie
                    00001008           # 8 bytes and the data
                    0000000000001000
                    """))
        #expect(
            reply.hole(extent(0x3000, 0x1000))
                == hex("668e33ef 0000 0002 0000000000000007 0000000c 0000000000003000 00001000"))
        #expect(
            reply.failed(.io, "lost", at: ByteOffset(0x2000))
                == hex(
                    """
                    668e33ef
                    0001 8002          # NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR_OFFSET
                    0000000000000007
                    00000012
                    00000005           # NBD_EIO
                    0004 "lost"
                    0000000000002000
                    """))
        #expect(!reply.isComplete)
        #expect(
            reply.data(extent(0x2000, 0x1000))
                == hex("668e33ef 0001 0001 0000000000000007 00001008 0000000000002000"))
        #expect(reply.isComplete)
    }

    @Test func `a read in extended headers, unfragmented`() {
        var session = ServerSession.transmitting(.extended)
        let request = session.step(
            """
            21e41c71           # NBD_EXTENDED_REQUEST_MAGIC
            0004 0000          # NBD_CMD_FLAG_DF, NBD_CMD_READ
            0000000000000007
            0000000000001000
            0000000000002000   # 64 bits
            """)!.request!
        var reply = ReadReply(to: request, ReplyEncoder(session.agreement!))
        #expect(!reply.mayFragment)
        #expect(
            reply.data(extent(0x1000, 0x2000))
                == hex(
                    """
                    6e8a278c           # NBD_EXTENDED_REPLY_MAGIC
                    0001 0001          # NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA
                    0000000000000007
                    0000000000001000   # the request's offset
                    0000000000002008
                    0000000000001000   # the data's
                    """))
    }

    @Test func `block status of two contexts`() {
        let both = [MetaContext.allocation, .dirty]
        var session = ServerSession.transmitting(.structured, contexts: both)
        let request = session.step("25609513 0000 0007 0000000000000009 0000000000000000 00010000")!.request!
        let statuses: [UInt32: [BlockStatus]] = [
            1: [.init(length: .kibibytes(4), flags: 0), .init(length: .kibibytes(64), flags: 3)],
            2: [.init(length: .kibibytes(4), flags: 1), .init(length: .kibibytes(4), flags: 1)],
        ]
        #expect(
            ReplyEncoder(session.agreement!).status(request, statuses)
                == hex(
                    """
                    668e33ef 0000 0005 0000000000000009  # NBD_REPLY_TYPE_BLOCK_STATUS
                    00000014
                    00000001                             # base:allocation
                    00001000 00000000
                    00010000 00000003                    # NBD_STATE_HOLE, NBD_STATE_ZERO; beyond the request
                    668e33ef 0001 0005 0000000000000009  # NBD_REPLY_FLAG_DONE
                    0000000c
                    00000002                             # x-godwit:dirty
                    00002000 00000001                    # both runs in one
                    """))
        var wide = ServerSession.transmitting(.extended, contexts: both)
        let one = wide.step(
            """
            21e41c71
            0028 0007          # NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS
            0000000000000009
            0000000000000000
            000000000000000c   # bytes of the payload
            0000000000010000   # effect length
            00000001           # base:allocation alone
            """)!.request!
        #expect(one.isReqOne)
        #expect(
            ReplyEncoder(wide.agreement!).status(one, [1: [.init(length: .mebibytes(1), flags: 0)]])
                == hex(
                    """
                    6e8a278c 0001 0006 0000000000000009  # NBD_REPLY_TYPE_BLOCK_STATUS_EXT
                    0000000000000000
                    0000000000000018
                    00000001 00000001                    # base:allocation, one descriptor
                    0000000000010000 0000000000000000    # no longer than the request
                    """))
    }

    @Test func `every request that carries nothing is answered in its style`() {
        var plain = ServerSession.transmitting(.structured)
        let trim = plain.step("25609513 0000 0004 0000000000000001 0000000000000000 00001000")!.request!
        #expect(ReplyEncoder(plain.agreement!).done(trim) == hex("67446698 00000000 0000000000000001"))
        var wide = ServerSession.transmitting(.extended)
        let zero = wide.step("21e41c71 0012 0006 0000000000000001 0000000000001000 00000000000ff000")!.request!
        #expect(zero.command == .writeZeroes(extent(0x1000, 0xff000), noHole: true, fast: true))
        #expect(
            ReplyEncoder(wide.agreement!).done(zero)
                == hex("6e8a278c 0001 0000 0000000000000001 0000000000001000 0000000000000000"))
    }

    @Test func `long messages are cut between characters`() {
        var session = ServerSession.transmitting(.structured)
        let trim = session.step("25609513 0000 0004 0000000000000001 0000000000000000 00001000")!.request!
        let bytes = ReplyEncoder(session.agreement!).failed(trim, .io, String(repeating: "é\0", count: 3000))
        #expect(bytes.readableBytes == 20 + 6 + 4096)
        let odd = ReplyEncoder(session.agreement!).failed(trim, .io, "a" + String(repeating: "é", count: 3000))
        #expect(odd.readableBytes == 20 + 6 + 4095)
    }

    // MARK: Refusals

    struct Case: Sendable, CustomStringConvertible {
        let description: String
        let header: RequestHeader
        let error: ErrorValue
        var flags: TransmissionFlags = ExportInfo.sample.flags
        var minimum: UInt32 = 1
        var style: ReplyStyle?

        init(
            _ description: String, _ type: UInt16, _ flags: CommandFlags = [], _ offset: UInt64 = 0,
            _ length: UInt64 = 4096, is error: ErrorValue, on features: TransmissionFlags = ExportInfo.sample.flags,
            minimum: UInt32 = 1, in style: ReplyStyle? = nil
        ) {
            self.description = description
            header = RequestHeader(flags: flags, type: type, cookie: 0x77, offset: offset, length: length)
            (self.error, self.flags, self.minimum, self.style) = (error, features, minimum, style)
        }
    }

    static let all = ExportInfo.sample.flags
    static let refused: [Case] = [
        Case("a read beyond the end", 0, [], 1 << 20, 1, is: .invalid),
        Case("a read across the end", 0, [], 1 << 20 - 1, 2, is: .invalid),
        Case("a write beyond the end", 1, [], 1 << 20, 1, is: .noSpace),
        Case("a write across the end", 1, [], 1 << 20 - 1, 2, is: .noSpace),
        Case("zeroes across the end", 6, [], 1 << 20 - 1, 2, is: .noSpace),
        Case("a trim across the end", 4, [], 1 << 20 - 1, 2, is: .invalid),
        Case("a cache across the end", 5, [], 1 << 20 - 1, 2, is: .invalid),
        Case("a status across the end", 7, [], 1 << 20 - 1, 2, is: .invalid),
        Case("an offset where the sum overflows", 0, [], .max, 2, is: .invalid),
        Case("a length where the sum overflows", 4, [], 1, .max, is: .invalid, in: .extended),
        Case("nothing read", 0, [], 0, 0, is: .invalid), Case("nothing written", 1, [], 0, 0, is: .invalid),
        Case("nothing trimmed", 4, [], 0, 0, is: .invalid), Case("nothing asked about", 7, [], 0, 0, is: .invalid),
        Case("an unaligned offset", 0, [], 256, 512, is: .invalid, minimum: 512),
        Case("an unaligned length", 1, [], 512, 256, is: .invalid, minimum: 512),
        Case("a write of more than may be carried", 1, [], 0, 1 << 19 + 1, is: .invalid),
        Case("a write to a read-only export", 1, is: .notPermitted, on: all.union(.readOnly)),
        Case("a trim of a read-only export", 4, is: .notPermitted, on: all.union(.readOnly)),
        Case("zeroes on a read-only export", 6, is: .notPermitted, on: all.union(.readOnly)),
        Case("FUA that wasn't offered", 1, [.fua], is: .invalid, on: all.subtracting(.fua)),
        Case("a flush that wasn't offered", 3, [], 0, 0, is: .invalid, on: all.subtracting(.flush)),
        Case("a flush of something", 3, [], 0, 4096, is: .invalid),
        Case("a trim that wasn't offered", 4, is: .invalid, on: all.subtracting(.trim)),
        Case("a cache that wasn't offered", 5, is: .invalid, on: all.subtracting(.cache)),
        Case("zeroes that weren't offered", 6, is: .invalid, on: all.subtracting([.writeZeroes, .fastZero])),
        Case("FAST_ZERO that wasn't offered", 6, [.fastZero], is: .invalid, on: all.subtracting(.fastZero)),
        Case("DF without structured replies", 0, [.df], is: .invalid, in: .simple),
        Case("DF of a write", 1, [.df], is: .invalid), Case("NO_HOLE of a trim", 4, [.noHole], is: .invalid),
        Case("REQ_ONE of a read", 0, [.reqOne], is: .invalid),
        Case("an unknown flag", 0, [.init(rawValue: 1 << 9)], is: .invalid),
        Case("PAYLOAD_LEN in a compact header", 1, [.payloadLen], is: .invalid, in: .structured),
        Case("a write without PAYLOAD_LEN", 1, is: .invalid, in: .extended),
        Case("a read with a payload", 0, [.payloadLen], is: .invalid, in: .extended),
        Case("a status with a payload too long for its contexts", 7, [.payloadLen], 0, 20, is: .invalid, in: .extended),
        Case("a status with half a context", 7, [.payloadLen], 0, 10, is: .invalid, in: .extended),
        Case("a status without contexts", 7, is: .invalid, in: .simple),
        Case("an unknown command", 9, is: .invalid), Case("a resize, which is an experiment", 8, is: .invalid),
    ]

    @Test(arguments: refused) func `it is refused, its payload read over`(request: Case) {
        for style in request.style.map({ [$0] }) ?? [.simple, .structured, .extended] {
            var header = request.header
            if style == .extended, header.type == 1, request.style == nil { header.flags.insert(.payloadLen) }
            let info = ExportInfo(
                name: "disk", size: .mebibytes(1), flags: request.flags,
                blockSizes: BlockSizes(minimum: request.minimum, preferred: 4096, maximumPayload: 1 << 19)!)
            var session = ServerSession.transmitting(style, info)
            var bytes = ByteBuffer()
            header.write(to: &bytes, in: style)
            let payload = Int(header.payloadLength(in: style))
            bytes.writeRepeatingByte(0x25, count: payload)
            RequestHeader(flags: [], type: 0, cookie: 1, offset: 0, length: 512).write(to: &bytes, in: style)
            let steps = session.steps(bytes)
            guard steps.count == 2, var reply = steps[0].sent else {
                Issue.record("\(style): \(steps)")
                continue
            }
            #expect(Self.error(in: &reply, style) == request.error.rawValue, "\(style)")
            #expect(steps[1].request?.command == .read(extent(0, 512)), "\(style)")
        }
    }

    /// What a reply to the cookie 0x77 says is wrong.
    static func error(in reply: inout ByteBuffer, _ style: ReplyStyle) -> UInt32? {
        guard let magic = reply.readInteger(as: UInt32.self), let header = ReplyHeader(magic, from: &reply),
            header.cookie == 0x77
        else { return nil }
        switch header {
        case .simple(let error, _): return style == .simple ? error : nil
        case .chunk(let flags, let type, _, _, let length):
            guard type == .error, flags.contains(.done), Int(length) == reply.readableBytes else { return nil }
            return reply.readInteger()
        }
    }

    @Test func `more than goes over the wire at once`() {
        for style in ReplyStyle.allCases {
            let info = ExportInfo(name: "disk", size: .gibibytes(1), flags: ExportInfo.sample.flags)
            var session = ServerSession.transmitting(style, info)
            var bytes = ByteBuffer()
            RequestHeader(flags: [], type: 0, cookie: 0x77, offset: 0, length: 1 << 25 + 1).write(to: &bytes, in: style)
            var reply = session.steps(bytes)[0].sent ?? ByteBuffer()
            let error = style == .simple ? ErrorValue.invalid : .overflow
            #expect(Self.error(in: &reply, style) == error.rawValue)
            // What has no payload may be as long as the export.
            bytes.clear()
            RequestHeader(flags: [], type: 4, cookie: 1, offset: 0, length: 1 << 30).write(to: &bytes, in: style)
            #expect(session.steps(bytes)[0].request?.command == .trim(extent(0, 1 << 30)))
        }
    }

    @Test func `a write of 4 GiB is the end at its header`() {
        for style in ReplyStyle.allCases {
            var session = ServerSession.transmitting(style)
            var bytes = ByteBuffer()
            let flags: CommandFlags = style == .extended ? [.payloadLen] : []
            let length: UInt64 = style == .extended ? .max : UInt64(UInt32.max)
            RequestHeader(flags: flags, type: 1, cookie: 1, offset: 0, length: length).write(to: &bytes, in: style)
            #expect(
                session.steps(bytes).map(\.violation) == [.tooLong("a payload", announced: length, most: 1 << 25)])
        }
    }

    @Test func `a payload is handed on as it comes, and never held`() {
        var session = ServerSession.transmitting(.simple)
        _ = session.step("25609513 0000 0001 0000000000000007 0000000000001000 00000400")
        for remaining in stride(from: 1023, through: 0, by: -1) {
            #expect(session.step("61") == .payload(ByteBuffer(string: "a"), remaining: remaining))
            #expect(session.heldBytes == 0)
        }
        #expect(session.state == .request)
    }

    @Test func `contexts that were not agreed on can't be asked about`() {
        for ids in ["00000005", "00000001 00000001"] {
            var session = ServerSession.transmitting(.extended, contexts: [.allocation, .dirty])
            let length = ids.count > 8 ? "10" : "0c"
            var reply =
                session.step(
                    "21e41c71 0020 0007 0000000000000077 0000000000000000 00000000000000\(length) 0000000000001000 \(ids)"
                )?.sent ?? ByteBuffer()
            #expect(Self.error(in: &reply, .extended) == ErrorValue.invalid.rawValue)
            #expect(session.state == .request)
        }
    }

    @Test func `a server about to stop reads on, and says so`() {
        var session = ServerSession.transmitting(.structured)
        session.shutDown()
        var reply =
            session.step("25609513 0000 0001 0000000000000077 0000000000001000 00000004 \"data\"")?.sent
            ?? ByteBuffer()
        #expect(Self.error(in: &reply, .structured) == ErrorValue.shutdown.rawValue)
        #expect(session.state == .request)
    }

    @Test func `a header of the other style is junk`() {
        for (style, magic) in [(ReplyStyle.simple, "21e41c71"), (.structured, "21e41c71"), (.extended, "25609513")] {
            var session = ServerSession.transmitting(style)
            #expect(session.step(magic + " 00*32")?.violation == .magic(found: UInt64(magic, radix: 16)!))
        }
    }

    // MARK: What the protocol can't say

    @Test func `a status is cut to what the request and the protocol have room for`() {
        let info = ExportInfo(name: "disk", size: .gibibytes(16), flags: [])
        let long = [BlockStatus(length: .gibibytes(8), flags: 0), .init(length: .gibibytes(8), flags: 1)]
        var session = ServerSession.transmitting(.structured, info)
        let request = session.step("25609513 0000 0007 0000000000000009 0000000000000000 00010000")!.request!
        #expect(
            ReplyEncoder(session.agreement!).status(request, [1: long])
                == hex("668e33ef 0001 0005 0000000000000009 0000000c 00000001 00010000 00000000"))
        var wide = ServerSession.transmitting(.extended, info)
        let same = wide.step("21e41c71 0000 0007 0000000000000009 0000000000000000 0000000000010000")!.request!
        #expect(
            ReplyEncoder(wide.agreement!).status(same, [1: long])
                == hex(
                    "6e8a278c 0001 0006 0000000000000009 0000000000000000 0000000000000018 00000001 00000001"
                        + " 0000000200000000 0000000000000000"))
    }

    @Test func `an error outside of its request has no place`() {
        var session = ServerSession.transmitting(.structured)
        let trim = session.step("25609513 0000 0004 0000000000000001 0000000000000000 00001000")!.request!
        let encoder = ReplyEncoder(session.agreement!)
        #expect(encoder.failed(trim, .io, at: ByteOffset(4096)) == encoder.failed(trim, .io))
        #expect(encoder.failed(trim, .io, at: ByteOffset(4095)) != encoder.failed(trim, .io))
    }
}
