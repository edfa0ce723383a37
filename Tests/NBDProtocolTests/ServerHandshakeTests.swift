import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// What goes over the wire before the first request, byte by byte as NBD's protocol.md has it.
struct ServerHandshakeTests {
    @Test func `the server begins with its magic and its flags`() {
        #expect(
            ServerSession(ServerPolicy(tls: .off)).greeting
                == hex(
                    """
                    "NBDMAGIC"
                    "IHAVEOPT"
                    0003  # NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES
                    """))
    }

    @Test func `GO with an information request, a structured handshake`() {
        var session = ServerSession(ServerPolicy(tls: .off))
        #expect(
            session.step(
                """
                00000003           # NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES
                "IHAVEOPT"
                00000008           # NBD_OPT_STRUCTURED_REPLY
                00000000           # no data
                """)?.sent
                == hex(
                    """
                    0003e889045565a9  # reply magic
                    00000008          # to NBD_OPT_STRUCTURED_REPLY
                    00000001          # NBD_REP_ACK
                    00000000
                    """))
        #expect(
            session.step(
                """
                "IHAVEOPT"
                0000000a           # NBD_OPT_SET_META_CONTEXT
                00000036           # 54 bytes
                00000004 "disk"    # the export
                00000003           # three queries
                0000000f "base:allocation"
                00000005 "base:"   # selects nothing here
                0000000a "qemu:other"
                """) == .find(ExportQuestion(name: "disk", purpose: .contexts)))
        #expect(
            session.answer(.found(.sample)).sent
                == hex(
                    """
                    0003e889045565a9 0000000a
                    00000004                    # NBD_REP_META_CONTEXT
                    00000013 00000001 "base:allocation"
                    0003e889045565a9 0000000a
                    00000001 00000000           # NBD_REP_ACK
                    """))
        #expect(
            session.step(
                """
                "IHAVEOPT"
                00000007           # NBD_OPT_GO
                0000000e           # 14 bytes
                00000004 "disk"
                0002               # two information requests
                0003               # NBD_INFO_BLOCK_SIZE
                0002               # NBD_INFO_DESCRIPTION
                """) == .find(ExportQuestion(name: "disk", purpose: .enter)))
        guard case .enter(let agreement, let bytes) = session.answer(.found(.sample)) else {
            Issue.record("not entered")
            return
        }
        #expect(
            bytes
                == hex(
                    """
                    0003e889045565a9 00000007
                    00000003 0000000c  # NBD_REP_INFO, 12 bytes
                    0000               # NBD_INFO_EXPORT
                    0000000000100000   # 1 MiB
                    0ded               # HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, DF, MULTI_CONN, CACHE, FAST_ZERO
                    0003e889045565a9 00000007
                    00000003 00000008
                    0002 "a disk"      # NBD_INFO_DESCRIPTION
                    0003e889045565a9 00000007
                    00000003 0000000e
                    0003               # NBD_INFO_BLOCK_SIZE
                    00000001 00001000 02000000
                    0003e889045565a9 00000007
                    00000001 00000000  # NBD_REP_ACK
                    """))
        #expect(agreement.style == .structured && agreement.size == .mebibytes(1))
        #expect(agreement.contexts == [ChosenContext(id: 1, context: .allocation)])
    }

    @Test(arguments: [("00000003", 0), ("00000001", 124)])
    func `EXPORT_NAME ends with zeroes, unless the client wants none`(flags: String, zeroes: Int) {
        var session = ServerSession(ServerPolicy(tls: .off))
        #expect(
            session.step("\(flags) \"IHAVEOPT\" 00000001 00000004 \"disk\"")
                == .find(ExportQuestion(name: "disk", purpose: .enter)))
        guard case .enter(let agreement, let bytes) = session.answer(.found(.sample)) else {
            Issue.record("not entered")
            return
        }
        #expect(bytes == hex("0000000000100000 0d6d" + (zeroes > 0 ? " 00*\(zeroes)" : "")))
        #expect(agreement.style == .simple && agreement.contexts == [])
    }

    @Test func `what exports there are`() {
        var session = ServerSession.haggling()
        #expect(session.step("\"IHAVEOPT\" 00000003 00000000") == .list)
        #expect(
            session.exports([ListedExport(name: "a"), ListedExport(name: "b", description: "two")]).sent
                == hex(
                    """
                    0003e889045565a9 00000003
                    00000002 00000005  # NBD_REP_SERVER
                    00000001 "a"
                    0003e889045565a9 00000003
                    00000002 00000008
                    00000001 "b" "two"
                    0003e889045565a9 00000003
                    00000001 00000000  # NBD_REP_ACK
                    """))
        var silent = ServerSession.haggling(ServerPolicy(tls: .off, showsExports: false))
        #expect(silent.step("\"IHAVEOPT\" 00000003 00000000")?.refused == .policy)
    }

    @Test func `ABORT is acknowledged, whatever comes with it`() {
        var session = ServerSession.haggling()
        #expect(
            session.step("\"IHAVEOPT\" 00000002 00000003 \"bye\"")
                == .close(.init(reason: .agreed, last: hex("0003e889045565a9 00000002 00000001 00000000"))))
        #expect(session.isClosed)
    }

    @Test(arguments: [
        ("0000000b 00000001 00", OptionReplyType.invalid), ("00000008 00000001 00", .invalid),
        ("00000003 00000001 00", .invalid), ("00000005 00000000", .policy), ("00000004 00000000", .unsupported),
        ("00000063 00000003 \"abc\"", .unsupported), ("00000063 00020000 00*131072", .unsupported),
        ("00000007 00020000 00*131072", .tooBig), ("00000007 00000000", .invalid),
        // A name longer than the data, by the two bytes of the count.
        ("00000007 00000008 00000004 \"disk\"", .invalid), ("00000006 00000009 00000004 \"disk\" 00", .invalid),
        ("00000007 0000000a 00000004 \"d\" 00 \"sk\" 0000", .invalid),
        ("00000007 0000000a 00000004 ff \"isk\" 0000", .invalid),
        // Contexts before structured replies; queries that aren't there; a query without a namespace.
        ("0000000a 0000000c 00000004 \"disk\" 00000000", .invalid),
        ("00000009 0000000c 00000004 \"disk\" 00000000", .invalid),
        ("0000000a 0000000c 00000004 \"disk\" 40000000", .invalid),
        ("0000000a 00000014 00000004 \"disk\" 00000001 00000004 \"base\"", .invalid),
    ])
    func `an option that can't be is refused, and the next is taken`(option: String, answer: OptionReplyType) {
        var session = ServerSession.haggling()
        #expect(session.step("\"IHAVEOPT\" \(option)")?.refused == answer)
        #expect(session.step("\"IHAVEOPT\" 00000003 00000000") == .list)
    }

    @Test func `more queries than are taken`() {
        var session = ServerSession.haggling()
        _ = session.steps(OptionHeader.option(.structuredReply))
        let request = MetaContextRequest(name: "disk", queries: .init(repeating: "a:b", count: Bounds.queries + 1))
        #expect(session.steps(OptionHeader.option(.setMetaContext, data: request.data))[0].refused == .tooBig)
    }

    @Test(arguments: [
        ("\"IHAVEOPS\" 00000003 00000000", Violation.magic(found: 0x4948_4156_454f_5053)),
        ("\"IHAVEOPT\" 00000001 00001001", .tooLong("an export's name", announced: 4097, most: 4096)),
        ("\"IHAVEOPT\" 00000007 ffffffff", .tooLong("an option", announced: 0xffff_ffff, most: 1 << 20)),
        ("\"IHAVEOPT\" 00000063 80000000", .tooLong("an option", announced: 0x8000_0000, most: 1 << 20)),
        ("\"IHAVEOPT\" 00000001 00000001 00", .malformed("an export's name is UTF-8 without NUL")),
    ])
    func `what there is no way to go on from`(bytes: String, violation: Violation) {
        var session = ServerSession.haggling()
        #expect(session.step(bytes)?.violation == violation)
        #expect(session.isClosed && session.heldBytes == 0)
    }

    @Test func `flags that were not offered`() {
        var session = ServerSession(ServerPolicy(tls: .off))
        #expect(session.step("00000007")?.violation == .clientFlags(7))
    }

    @Test func `extended headers come before structured replies and without EXPORT_NAME`() {
        var session = ServerSession.haggling()
        #expect(session.step("\"IHAVEOPT\" 0000000b 00000000")?.refused == nil)
        #expect(session.step("\"IHAVEOPT\" 00000008 00000000")?.refused == .extendedHeadersRequired)
        #expect(
            session.step("\"IHAVEOPT\" 00000001 00000000")?.violation
                == .unexpected("NBD_OPT_EXPORT_NAME after NBD_OPT_EXTENDED_HEADERS"))
        var plain = ServerSession.haggling(
            ServerPolicy(tls: .off, offersStructuredReplies: false, offersExtendedHeaders: false))
        #expect(plain.step("\"IHAVEOPT\" 0000000b 00000000")?.refused == .unsupported)
        #expect(plain.step("\"IHAVEOPT\" 00000008 00000000")?.refused == .unsupported)
    }

    @Test func `no export of that name`() {
        for (answer, reply) in [(ExportAnswer.missing, OptionReplyType.unknown), (.refused("no"), .policy)] {
            var session = ServerSession.haggling()
            _ = session.steps(OptionHeader.option(.go, data: ExportRequest(name: "x", wishes: []).data))
            #expect(session.answer(answer).refused == reply)
            _ = session.steps(OptionHeader.option(.exportName, data: ByteBuffer(string: "x")))
            #expect(session.answer(answer) == .close(.init(reason: .noExport, last: ByteBuffer())))
        }
    }

    // MARK: Contexts

    private func contexts(_ type: OptionType, _ queries: [String], in session: inout ServerSession) -> [String] {
        let request = MetaContextRequest(name: "disk", queries: queries)
        _ = session.steps(OptionHeader.option(type, data: request.data))
        guard var bytes = session.answer(.found(.sample)).sent else { return ["nothing"] }
        var names: [String] = []
        while let header = try? OptionReplyHeader(from: &bytes), header.type == .metaContext {
            let id = bytes.readInteger(as: UInt32.self)!
            names.append("\(bytes.readString(length: Int(header.length) - 4)!) \(id)")
        }
        return names
    }

    @Test(
        arguments: [
            (OptionType.listMetaContext, [], ["base:allocation 0", "x-godwit:dirty 0"]),
            (.listMetaContext, ["base:"], ["base:allocation 0"]),
            (.listMetaContext, ["x-godwit:"], ["x-godwit:dirty 0"]),
            (.listMetaContext, ["base:other", "qemu:"], []), (.setMetaContext, [], []),
            (.setMetaContext, ["base:", "x-godwit:"], []), (.setMetaContext, ["x-godwit:dirty"], ["x-godwit:dirty 2"]),
            (
                .setMetaContext, ["x-godwit:dirty", "base:allocation", "base:allocation"],
                ["base:allocation 1", "x-godwit:dirty 2"]
            ),
        ] as [(OptionType, [String], [String])])
    func `queries find these contexts`(type: OptionType, queries: [String], found: [String]) {
        for option in [OptionType.structuredReply, .extendedHeaders] {
            var session = ServerSession.haggling()
            _ = session.steps(OptionHeader.option(option))
            #expect(contexts(type, queries, in: &session) == found)
        }
    }

    private func agreed(_ session: inout ServerSession, _ name: String = "disk") -> Agreement? {
        _ = session.steps(OptionHeader.option(.go, data: ExportRequest(name: name, wishes: []).data))
        guard case .enter(let agreement, _) = session.answer(.found(.sample)) else { return nil }
        return agreement
    }

    @Test func `the last choice of contexts counts, for its export, even if it failed`() {
        var session = ServerSession.haggling()
        _ = session.steps(OptionHeader.option(.structuredReply))
        #expect(contexts(.setMetaContext, ["base:allocation"], in: &session).count == 1)
        var same = session
        #expect(agreed(&same)?.contexts.map(\.context) == [.allocation])
        var other = session
        #expect(agreed(&other, "another")?.contexts == [])
        var failed = session
        _ = failed.step("\"IHAVEOPT\" 0000000a 00000000")
        #expect(agreed(&failed)?.contexts == [])
        var long = session
        _ = long.step("\"IHAVEOPT\" 0000000a 00020000 00*131072")
        #expect(agreed(&long)?.contexts == [])
        var unknown = session
        let request = MetaContextRequest(name: "disk", queries: ["base:allocation"])
        _ = unknown.steps(OptionHeader.option(.setMetaContext, data: request.data))
        _ = unknown.answer(.missing)
        #expect(agreed(&unknown)?.contexts == [])
        var gone = session
        _ = gone.steps(OptionHeader.option(.go, data: ExportRequest(name: "disk", wishes: []).data))
        var info = ExportInfo.sample
        info.contexts = []
        #expect(gone.answer(.found(info)).refused == .unknown)
    }

    @Test func `more options than anybody needs`() {
        var session = ServerSession.haggling()
        for _ in 0..<Bounds.options { #expect(session.step("\"IHAVEOPT\" 00000063 00000000")?.refused != nil) }
        #expect(session.step("\"IHAVEOPT\" 00000063 00000000")?.violation == .tooMany("options", most: Bounds.options))
    }

    @Test func `a server about to stop`() {
        var session = ServerSession.haggling()
        session.shutDown()
        #expect(session.step("\"IHAVEOPT\" 00000003 00000000")?.refused == .shutdown)
        #expect(session.step("\"IHAVEOPT\" 00000063 00000000")?.refused == .shutdown)
        var abort = session
        guard case .close(let closing)? = abort.step("\"IHAVEOPT\" 00000002 00000000") else {
            Issue.record("not closed")
            return
        }
        #expect(closing.reason == .agreed)
        guard case .close(let other)? = session.step("\"IHAVEOPT\" 00000001 00000000") else {
            Issue.record("not closed")
            return
        }
        #expect(other.reason == .noExport)
    }
}
