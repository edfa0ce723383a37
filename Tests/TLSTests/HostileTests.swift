import Foundation
import NBDServer
import Synchronization
import Testing
import Volumes

@testable import Credentials
@testable import NBDVolumes

private enum Words {
    /// `NBDMAGIC`, `IHAVEOPT`, `NBD_FLAG_FIXED_NEWSTYLE` and `NBD_FLAG_NO_ZEROES`.
    static let greeting = hex("4e42444d41474943 49484156454f5054 0003")
    static let clientFlags = hex("00000003")
    /// `NBD_OPT_STARTTLS`, `NBD_OPT_STRUCTURED_REPLY`
    static let startTLS = hex("49484156454f5054 00000005 00000000")
    static let structured = hex("49484156454f5054 00000008 00000000")
    static let ack = hex("0003e889045565a9 00000005 00000001 00000000")
    /// `NBD_REP_ERR_UNSUP`
    static let unsupported = hex("0003e889045565a9 00000005 80000001 00000000")
    /// What a client has said when it waits for the answer to `NBD_OPT_STARTTLS`.
    static let asked = clientFlags.count + startTLS.count
}

/// What a client that breaks the rules of TLS can do: nothing to anybody else.
struct HostileClientTests {
    /// Runs a bad client beside a good one.
    private func against(
        _ notice: String, _ body: @escaping @Sendable (Raw) throws -> Void
    ) async throws {
        let site = try await Site.strict()
        let good = try Authority.shared.get().copy(of: "client")
        try await site.serve { _ in
            let export = try await NBDExport.connect(to: site.address(good))
            try await onThread {
                let raw = try Raw(connectingTo: site.socket)
                #expect(try raw.receive(Words.greeting.count) == Words.greeting)
                try raw.send(Words.clientFlags)
                try body(raw)
                try raw.waitForEnd()
            }
            try await site.notices.expect(notice)
            try await export.flush()
            try await expectUse(of: site.address(good))
        }
    }

    @Test func `an option pushed in behind STARTTLS ends the connection`() async throws {
        try await against("bytes in clear after NBD_OPT_STARTTLS") { raw in
            try raw.send(Words.startTLS + Words.structured)
        }
    }

    @Test func `an option in clear instead of a ClientHello ends the connection`() async throws {
        try await against("is no TLS") { raw in
            try raw.send(Words.startTLS)
            #expect(try raw.receive(Words.ack.count) == Words.ack)
            try raw.send(Words.structured)
        }
    }

    @Test func `junk instead of a ClientHello ends the connection`() async throws {
        for junk in ["GET / HTTP/1.1\r\n\r\n", String(repeating: "x", count: 4000), "\u{16}\u{3}\u{1}zzzzzzzzzzzzzzz"] {
            try await against("a client was dropped: ") { raw in
                try raw.send(Words.startTLS)
                #expect(try raw.receive(Words.ack.count) == Words.ack)
                try raw.send(Array(junk.utf8) + [UInt8](repeating: 0, count: 20_000))
            }
        }
    }

    @Test func `who stalls in the handshake is dropped in time`() async throws {
        var site = try await Site.strict()
        site.limits.handshake = .seconds(2)
        try await site.serve { [site] _ in
            try await onThread {
                let raw = try Raw(connectingTo: site.socket)
                _ = try raw.receive(Words.greeting.count)
                try raw.send(Words.clientFlags + Words.startTLS)
                #expect(try raw.receive(Words.ack.count) == Words.ack)
                // The first bytes of a record that never ends.
                try raw.send(hex("16 0301 0200 01"))
                try raw.waitForEnd()
            }
            try await site.notices.expect("no handshake within")
        }
    }

    @Test func `who leaves in the handshake is forgotten`() async throws {
        let site = try await Site.strict()
        try await site.serve { _ in
            try await onThread {
                for rest in [[], hex("16 0301 0200 01")] {
                    let raw = try Raw(connectingTo: site.socket)
                    _ = try raw.receive(Words.greeting.count)
                    try raw.send(Words.clientFlags + Words.startTLS)
                    _ = try raw.receive(Words.ack.count)
                    try raw.send(rest)
                }
            }
            try await site.notices.expect("it ended the connection during the handshake")
        }
    }

    @Test func `nothing but STARTTLS is taken in clear`() async throws {
        let site = try await Site.strict()
        try await site.serve { _ in
            try await onThread {
                let raw = try Raw(connectingTo: site.socket)
                _ = try raw.receive(Words.greeting.count)
                try raw.send(Words.clientFlags + Words.structured)
                // `NBD_REP_ERR_TLS_REQD`
                #expect(try raw.receive(20).prefix(16) == hex("0003e889045565a9 00000008 80000005")[...])
            }
        }
    }
}

/// What whoever sits between can do to a client: keep it out, and no more.
struct HostileServerTests {
    private func expect(
        _ kind: VolumeError.Kind, _ words: String, patience: Patience = .standard,
        sourceLocation: SourceLocation = #_sourceLocation, _ serve: @escaping @Sendable (Raw) throws -> Void
    ) async throws {
        let inClear = Mutex<[UInt8]>([])
        let server = try ScriptedServer { raw in
            try raw.send(Words.greeting)
            let said = try raw.receive(Words.asked)
            inClear.withLock { $0 = said }
            try serve(raw)
        }
        let client = try Authority.shared.get().copy(of: "client")
        await expectRefusal(
            kind, words, of: server.address(client), patience: patience, sourceLocation: sourceLocation)
        server.end()
        // And nothing of what it wanted was said before.
        #expect(inClear.withLock(\.self) == Words.clientFlags + Words.startTLS, sourceLocation: sourceLocation)
    }

    @Test func `a server that refuses STARTTLS is left`() async throws {
        try await expect(.unsupported, "refused TLS") { raw in
            try raw.send(Words.unsupported)
            // NBD_OPT_ABORT, and the end: no other option.
            #expect(try raw.receive(16) == hex("49484156454f5054 00000002 00000000"))
            #expect(throws: Raw.Gone.self) { try raw.receive(1) }
        }
    }

    @Test func `a server that closes at STARTTLS is left`() async throws {
        try await expect(.unreachable, "closed the connection during the handshake") { _ in }
    }

    @Test func `a server that closes in the handshake is left`() async throws {
        try await expect(.unreachable, "during the handshake of TLS") { raw in
            try raw.send(Words.ack)
            _ = try raw.receive(5)
        }
    }

    @Test func `a reply pushed in behind the answer to STARTTLS ends the connection`() async throws {
        let list = hex("0003e889045565a9 00000008 00000001 00000000")
        try await expect(.damaged, "in clear after NBD_OPT_STARTTLS") { raw in
            try raw.send(Words.ack + list)
            try raw.waitForEnd()
        }
    }

    @Test func `a server that speaks on in clear is left`() async throws {
        try await expect(.unsupported, "is no TLS") { raw in
            try raw.send(Words.ack)
            _ = try raw.receive(5)
            try raw.send(hex("0003e889045565a9 00000008 00000001 00000000"))
            try raw.waitForEnd()
        }
    }

    @Test func `a server that stalls in the handshake is left in time`() async throws {
        let patience = Patience(handshake: .seconds(4), silence: .seconds(20), another: .seconds(1))
        try await expect(.unreachable, "no end of the handshake", patience: patience) { raw in
            try raw.send(Words.ack)
            try raw.waitForEnd()
        }
    }

    @Test func `a server of a form too old for TLS is left before anything is said`() async throws {
        let server = try ScriptedServer { raw in
            // Neither fixed newstyle nor anything else.
            try raw.send(Words.greeting.dropLast(2) + [0, 0])
            #expect(throws: Raw.Gone.self) { try raw.receive(1) }
        }
        let client = try Authority.shared.get().copy(of: "client")
        await expectRefusal(.unsupported, "too old", of: server.address(client))
        server.end()
    }
}
