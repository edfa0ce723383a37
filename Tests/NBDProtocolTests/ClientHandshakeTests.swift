import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// The handshake from the client's side.
struct ClientHandshakeTests {
    static let greeting = "\"NBDMAGIC\" \"IHAVEOPT\" 0003"

    @Test func `the script, to the end`() {
        var client = ClientSession(
            ClientPlan(.enter("disk"), tls: .off, contexts: [.allocation, .qemuDirtyBitmap("b")]))
        #expect(
            client.step(Self.greeting)?.sent
                == hex(
                    """
                    00000003            # NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES
                    "IHAVEOPT"
                    0000000b 00000000   # NBD_OPT_EXTENDED_HEADERS
                    """))
        #expect(
            client.step("0003e889045565a9 0000000b 80000001 00000000")?.sent  // NBD_REP_ERR_UNSUP
                == hex("\"IHAVEOPT\" 00000008 00000000"))  // NBD_OPT_STRUCTURED_REPLY
        #expect(
            client.step("0003e889045565a9 00000008 00000001 00000000")?.sent
                == hex(
                    """
                    "IHAVEOPT" 0000000a 00000036  # NBD_OPT_SET_META_CONTEXT
                    00000004 "disk"
                    00000002
                    0000000f "base:allocation"
                    00000013 "qemu:dirty-bitmap:b"
                    """))
        #expect(
            client.step(
                """
                0003e889045565a9 0000000a
                00000004 00000017 00000007 "qemu:dirty-bitmap:b"
                0003e889045565a9 0000000a
                00000001 00000000
                """)?.sent
                == hex(
                    """
                    "IHAVEOPT" 00000007 0000000c  # NBD_OPT_GO
                    00000004 "disk"
                    0001 0003                     # NBD_INFO_BLOCK_SIZE
                    """))
        let step = client.step(
            """
            0003e889045565a9 00000007
            00000003 0000000c
            0000 0000000000100000 050d    # NBD_INFO_EXPORT
            0003e889045565a9 00000007
            00000003 0000000e
            0003 00000200 00001000 04000000
            0003e889045565a9 00000007
            00000003 00000004
            00ff ffff                     # unknown information
            0003e889045565a9 00000007
            00000001 00000000
            """)
        guard case .entered(let agreement)? = step else {
            Issue.record("\(String(describing: step))")
            return
        }
        #expect(agreement.size == .mebibytes(1) && agreement.style == .structured)
        #expect(agreement.flags == [.hasFlags, .flush, .fua, .multiConn, .cache])
        #expect(agreement.blockSizes == BlockSizes(minimum: 512, preferred: 4096, maximumPayload: 1 << 25))
        #expect(agreement.contexts == [ChosenContext(id: 7, context: .qemuDirtyBitmap("b"))])
    }

    private func plain(_ purpose: ClientPlan.Purpose = .enter("disk"), tls: ClientPlan.TLS = .off) -> ClientSession {
        ClientSession(ClientPlan(purpose, tls: tls, wantsStructuredReplies: false, wantsExtendedHeaders: false))
    }

    @Test(arguments: [("0003", 0), ("0001", 124)])
    func `a server without GO`(flags: String, zeroes: Int) {
        var client = plain()
        _ = client.step("\"NBDMAGIC\" \"IHAVEOPT\" \(flags)")
        #expect(
            client.step("0003e889045565a9 00000007 80000001 00000003 \"eh?\"")?.sent
                == hex("\"IHAVEOPT\" 00000001 00000004 \"disk\""))
        let step = client.step("0000000000100000 0003" + (zeroes > 0 ? " 00*\(zeroes)" : ""))
        guard case .entered(let agreement)? = step else {
            Issue.record("\(String(describing: step))")
            return
        }
        #expect(agreement.size == .mebibytes(1) && agreement.flags == [.hasFlags, .readOnly])
    }

    @Test func `a server that isn't fixed newstyle`() {
        var client = plain()
        #expect(
            client.step("\"NBDMAGIC\" \"IHAVEOPT\" 0000")?.sent
                == hex("00000000 \"IHAVEOPT\" 00000001 00000004 \"disk\""))
        var secure = plain(tls: .required)
        #expect(secure.step("\"NBDMAGIC\" \"IHAVEOPT\" 0000")?.violation == .notFixedNewstyle)
        var list = plain(.list)
        #expect(list.step("\"NBDMAGIC\" \"IHAVEOPT\" 0000")?.violation == .notFixedNewstyle)
    }

    @Test func `an oldstyle server is told from junk`() {
        var client = plain()
        #expect(client.step("\"NBDMAGIC\" 0000420281861253 0000")?.violation == .oldstyle)
        var other = plain()
        #expect(
            other.step("\"HTTP/1.1 400 Bad Request\"")?.violation == .magic(found: 0x4854_5450_2f31_2e31))
    }

    @Test func `what exports there are`() {
        var client = ClientSession(ClientPlan(.list, tls: .off))
        #expect(client.step(Self.greeting)?.sent == hex("00000003 \"IHAVEOPT\" 00000003 00000000"))
        #expect(
            client.step(
                """
                0003e889045565a9 00000003 00000002 00000008 00000001 "a" "one"
                0003e889045565a9 00000003 00000002 00000005 00000001 "b"
                0003e889045565a9 00000003 00000001 00000000
                """)
                == .listed(
                    [ListedExport(name: "a", description: "one"), ListedExport(name: "b")],
                    last: hex("\"IHAVEOPT\" 00000002 00000000")))
        #expect(client.isClosed)
    }

    @Test(arguments: [UInt32(0x8000_0002), 0x8000_0005, 0x8000_0006, 0x8000_0007, 0x8000_00ff])
    func `a refusal is told in the server's words`(type: UInt32) {
        var client = plain()
        _ = client.step(Self.greeting)
        #expect(
            client.step("0003e889045565a9 00000007 \(String(type, radix: 16)) 00000002 \"no\"")
                == .close(
                    .init(
                        reason: .refused(.go, OptionReplyType(rawValue: type), "no"),
                        last: hex("\"IHAVEOPT\" 00000002 00000000"))))
    }

    // MARK: TLS

    @Test func `no one talks the client down from TLS`() {
        var client = plain(tls: .required)
        #expect(client.step(Self.greeting)?.sent == hex("00000003 \"IHAVEOPT\" 00000005 00000000"))
        for type in ["80000001", "80000002", "80000003"] {
            var refused = client
            guard case .close(let closing)? = refused.step("0003e889045565a9 00000005 \(type) 00000000") else {
                Issue.record("not closed")
                continue
            }
            #expect(closing.last == hex("\"IHAVEOPT\" 00000002 00000000"))
        }
        var pushed = client
        #expect(pushed.step("0003e889045565a9 00000005 00000001 00000000 00")?.violation == .clearAfterStartTLS)
        #expect(client.step("0003e889045565a9 00000005 00000001 00000000") == .startTLS)
        var late = client
        #expect(late.step("00")?.violation == .clearAfterStartTLS)
        #expect(client.tlsStarted().sent?.readableBytes == 16 + 12)
    }

    // MARK: Lies

    @Test(arguments: [
        ("0003e889045565a8 00000007 00000001 00000000", Violation.magic(found: 0x0003_e889_0455_65a8)),
        ("0003e889045565a9 00000007 00000001 00000000", .malformed("NBD_OPT_GO without NBD_INFO_EXPORT")),
        ("0003e889045565a9 00000006 00000001 00000000", .unexpected("a reply to option 6, when NBD_OPT_GO was asked")),
        ("0003e889045565a9 00000007 00000002 00000005", .unexpected("a reply of type 2 to NBD_OPT_GO")),
        ("0003e889045565a9 00000007 00000009 00000005", .unexpected("a reply of type 9 to NBD_OPT_GO")),
        (
            "0003e889045565a9 00000007 00000003 ffffffff",
            .tooLong("a reply to NBD_OPT_GO", announced: 0xffff_ffff, most: 4098)
        ),
        (
            "0003e889045565a9 00000007 80000001 00001001",
            .tooLong("a reply to NBD_OPT_GO", announced: 4097, most: 4096)
        ),
        (
            "0003e889045565a9 00000007 00000003 0000000b 0000 0000000000100000 00",
            .malformed("an NBD_REP_INFO of no shape")
        ),
        // A minimum of 3 bytes; a preferred size below the minimum.
        (
            "0003e889045565a9 00000007 00000003 0000000e 0003 00000003 00001000 02000000",
            .malformed("an NBD_REP_INFO of no shape")
        ),
        (
            "0003e889045565a9 00000007 00000003 0000000e 0003 00001000 00000200 02000000",
            .malformed("an NBD_REP_INFO of no shape")
        ),
        (
            "0003e889045565a9 00000007 00000003 0000000c 0000 ffffffffffffffff 0001"
                + " 0003e889045565a9 00000007 00000001 00000000",
            .malformed("an export of more than 2^63 - 1 bytes")
        ),
    ])
    func `no honest server says so`(bytes: String, violation: Violation) {
        var client = plain()
        _ = client.step(Self.greeting)
        #expect(client.step(bytes)?.violation == violation)
    }

    @Test func `contexts that were not asked for`() {
        var client = ClientSession(ClientPlan(.enter("disk"), tls: .off, wantsExtendedHeaders: false))
        _ = client.step(Self.greeting)
        _ = client.step("0003e889045565a9 00000008 00000001 00000000")
        var again = client
        let base = "0003e889045565a9 0000000a 00000004 00000013 00000001 \"base:allocation\""
        #expect(again.step("\(base) \(base)")?.violation != nil)
        #expect(
            client.step("0003e889045565a9 0000000a 00000004 00000007 00000001 \"a:b\"")?.violation
                == .unexpected("the metadata context a:b, which was not asked for, or again"))
    }

    @Test func `no end of exports, no end of information`() {
        var limits = ClientLimits()
        (limits.exports, limits.information) = (2, 2)
        var list = ClientSession(ClientPlan(.list, tls: .off), limits: limits)
        _ = list.step(Self.greeting)
        let export = "0003e889045565a9 00000003 00000002 00000005 00000001 \"a\""
        #expect(list.step("\(export) \(export)") == nil)
        #expect(list.step(export)?.violation == .tooMany("exports", most: 2))
        var client = ClientSession(
            ClientPlan(.enter(""), tls: .off, wantsStructuredReplies: false, wantsExtendedHeaders: false),
            limits: limits)
        _ = client.step(Self.greeting)
        let information = "0003e889045565a9 00000007 00000003 00000002 00ff"
        #expect(client.step("\(information) \(information)") == nil)
        #expect(client.step(information)?.violation == .tooMany("pieces of information", most: 2))
    }
}
