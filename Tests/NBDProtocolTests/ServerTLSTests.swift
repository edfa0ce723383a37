import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// That nobody who can write into the clear stream has a say in what is agreed under TLS. NBD protocol, "TLS support".
struct ServerTLSTests {
    static let ack = hex("0003e889045565a9 00000005 00000001 00000000")

    @Test(arguments: [
        OptionType.list, .info, .go, .structuredReply, .listMetaContext, .setMetaContext, .extendedHeaders,
    ])
    func `where TLS is required, nothing goes before it`(type: OptionType) {
        var session = ServerSession.haggling(ServerPolicy(tls: .required))
        let data = ByteBuffer(repeating: 0, count: type == .list ? 0 : 40)
        #expect(session.steps(OptionHeader.option(type, data: data)).map(\.refused) == [.tlsRequired])
        #expect(session.step("\"IHAVEOPT\" 00000063 00000001 00")?.refused == .tlsRequired)
        #expect(session.step("\"IHAVEOPT\" 00000005 00000001 00")?.refused == .invalid)
        #expect(session.step("\"IHAVEOPT\" 00000005 00000000") == .startTLS(Self.ack))
    }

    @Test func `where TLS is required, EXPORT_NAME before it is the end`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .required))
        #expect(session.step("\"IHAVEOPT\" 00000001 00000000")?.violation == .tlsRequired)
    }

    @Test func `a client that isn't fixed newstyle can't have TLS`() {
        var required = ServerSession(ServerPolicy(tls: .required))
        #expect(required.step("00000002")?.violation == .notFixedNewstyle)
        var offered = ServerSession(ServerPolicy(tls: .offered))
        #expect(offered.step("00000002 \"IHAVEOPT\" 00000005 00000000")?.refused == .policy)
    }

    @Test func `what came in clear doesn't count under TLS`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .offered))
        _ = session.steps(OptionHeader.option(.extendedHeaders))
        let request = MetaContextRequest(name: "disk", queries: ["base:allocation"])
        _ = session.steps(OptionHeader.option(.setMetaContext, data: request.data))
        _ = session.answer(.found(.sample))
        #expect(session.step("\"IHAVEOPT\" 00000005 00000000") == .startTLS(Self.ack))
        session.tlsStarted()
        #expect(session.step("\"IHAVEOPT\" 00000005 00000000")?.refused == .invalid)
        var structured = session
        _ = structured.steps(OptionHeader.option(.structuredReply))
        for (style, session) in [(ReplyStyle.simple, session), (.structured, structured)] {
            var session = session
            _ = session.steps(OptionHeader.option(.go, data: ExportRequest(name: "disk", wishes: []).data))
            guard case .enter(let agreement, _) = session.answer(.found(.sample)) else {
                Issue.record("not entered")
                return
            }
            #expect(agreement.isUnderTLS && agreement.style == style && agreement.contexts == [])
            #expect(agreement.flags.contains(.df) == (style == .structured))
        }
    }

    @Test func `an option pushed in behind STARTTLS ends the connection`() {
        for policy in [ServerPolicy(tls: .offered), ServerPolicy(tls: .required)] {
            var together = ServerSession.haggling(policy)
            #expect(
                together.step("\"IHAVEOPT\" 00000005 00000000 \"IHAVEOPT\" 00000008 00000000")?.violation
                    == .clearAfterStartTLS)
            var later = ServerSession.haggling(policy)
            #expect(later.step("\"IHAVEOPT\" 00000005 00000000") == .startTLS(Self.ack))
            #expect(later.step("\"I\"")?.violation == .clearAfterStartTLS)
        }
    }

    @Test func `an export that needs TLS`() {
        var session = ServerSession.haggling(ServerPolicy(tls: .offered))
        _ = session.steps(OptionHeader.option(.info, data: ExportRequest(name: "x", wishes: []).data))
        #expect(session.answer(.needsTLS).refused == .tlsRequired)
        // To no other option may this be said.
        _ = session.steps(OptionHeader.option(.structuredReply))
        let request = MetaContextRequest(name: "x", queries: [])
        _ = session.steps(OptionHeader.option(.listMetaContext, data: request.data))
        #expect(session.answer(.needsTLS).refused == .unknown)
        _ = session.steps(OptionHeader.option(.exportName, data: ByteBuffer(string: "x")))
        #expect(session.answer(.needsTLS) == .close(.init(reason: .noExport, last: ByteBuffer())))
    }
}
