import Conformance
import Glibc
import NBDProtocol
import NBDServer
import NIOCore
import Testing
import Volumes

/// What a client that breaks the rules can do: nothing to anybody else.
struct HostileClientTests {
    /// `NBD_FLAG_C_FIXED_NEWSTYLE`, `NBD_FLAG_C_NO_ZEROES`, then `NBD_OPT_GO` for the default export.
    private static let entry = hex("00000003 49484156454f5054 00000007 00000006 00000000 0000")
    private static let entryReply = 18 + 20 + 12 + 20

    /// A client that speaks in bytes, and has entered.
    private static func entered(_ socket: String) throws -> RawClient {
        let raw = try RawClient(socket)
        try raw.send(entry)
        var count = 0
        while count < entryReply { count += try raw.receive().readableBytes }
        return raw
    }

    @Test func `junk ends the connection that it came on`() async throws {
        let site = try Site(try await TestDisk())
        try await site.serve { socket throws in
            let good = try Client(socket)
            var random = SplitMix64(seed: 3)
            for _ in 0..<50 {
                let junk = ByteBuffer(bytes: random.bytes(.random(in: 64...4096, using: &random)))
                let raw = try RawClient(socket)
                try? raw.send(junk)
                try raw.waitForEnd()
                let later = try Self.entered(socket)
                try? later.send(junk)
                try later.waitForEnd()
            }
            // A length that nobody waits for.
            let greedy = try Self.entered(socket)
            try greedy.send(hex("25609513 0000 0001 0000000000000001 0000000000000000 ffffffff"))
            try greedy.waitForEnd()
            #expect(try good.write([1, 2, 3], at: 0) == nil)
            #expect(try good.read(0..<3).bytes == [1, 2, 3])
        }
    }

    @Test func `a handshake has its time, and what follows has not`() async throws {
        var site = try Site(try await TestDisk())
        site.limits.handshake = .milliseconds(1500)
        try await site.serve { socket throws in
            let entered = try Client(socket)
            let (silent, slow) = (try RawClient(socket), try RawClient(socket))
            try slow.send(hex("00000003 49484156454f5054"))
            try silent.waitForEnd()
            try slow.waitForEnd()
            // Half a request, for longer than that.
            let half = try Self.entered(socket)
            try half.send(hex("25609513 0000 0001"))
            usleep(1_700_000)
            try half.send(hex("0000000000000001 0000000000000000 00000002 0506"))
            #expect(try half.receive() == hex("67446698 00000000 0000000000000001"))
            #expect(try entered.read(0..<2).bytes == [5, 6])
        }
    }

    @Test func `no more than so many connections`() async throws {
        var site = try Site(try await TestDisk())
        site.limits.connections = 3
        try await site.serve { socket throws in
            var clients = try (0..<3).map { _ in try Client(socket) }
            #expect(throws: RawClient.Gone.self) { try Client(socket) }
            #expect(try clients[0].read(0..<4).failure == nil)
            clients.removeLast().raw.close()
            // Its place is free as soon as the server knows.
            try waitUntil { (try? Client(socket)) != nil }
        }
    }

    @Test func `no more than so many requests are under way, and the others wait`() async throws {
        let disk = try await TestDisk()
        var site = try Site(disk)
        site.limits.requests = 4
        try await site.serve { socket throws in
            let (client, other) = (try Client(socket), try Client(socket))
            disk.hold()
            let cookies = try (0..<50).map { try client.ask(.read((UInt64($0)..<UInt64($0) + 1).extent)) }
            try waitUntil { disk.running == 4 }
            usleep(50_000)
            #expect(disk.mostRunning == 4)
            let more = try other.ask(.flush)
            try waitUntil { disk.running == 5 }
            disk.release()
            #expect(try other.reply(to: more).failure == nil)
            for cookie in cookies { #expect(try client.reply(to: cookie).failure == nil) }
            #expect(disk.mostRunning == 5)
        }
    }

    @Test func `who takes no replies is not read from`() async throws {
        let disk = try await TestDisk()
        var site = try Site(disk)
        site.limits.heldBytes = .mebibytes(4)
        try await site.serve { socket throws in
            let (flood, good) = (try Client(socket, "", .simple), try Client(socket))
            let cookies = try (0..<200).map { _ in try flood.ask(.read((0..<1 << 20).extent)) }
            func reads() -> Int { disk.log.count { $0 == "read 0+1048576" } }
            try waitUntil { reads() >= 4 }
            usleep(100_000)
            // What is held, and what the kernel holds for the client.
            #expect(reads() <= 8)
            #expect(try good.read(0..<4).failure == nil)
            for cookie in cookies { #expect(try flood.reply(to: cookie).failure == nil) }
            #expect(reads() == 200)
        }
    }

    @Test func `refusals that nobody takes are bounded, too`() async throws {
        var site = try Site(try await TestDisk())
        site.limits.heldBytes = .kibibytes(64)
        try await site.serve { socket throws in
            let raw = try Self.entered(socket)
            // Reads beyond the end; each is refused.
            var requests = ByteBuffer()
            for _ in 0..<4096 {
                requests.writeImmutableBuffer(
                    hex("25609513 0000 0000 0000000000000001 00ffffffffffffff 00000001"))
            }
            var sent = 0
            while true {
                let more = raw.sendSome(requests)
                if more > 0 {
                    sent += more
                } else {
                    usleep(20_000)
                    if raw.sendSome(requests) <= 0 { break }
                }
                // Far more than all buffers between take: the server would take without end.
                try #require(sent < 1 << 26)
            }
            #expect(try Client(socket).read(0..<4).failure == nil)
        }
    }

    @Test func `who dies leaves nothing behind`() async throws {
        let disk = try await TestDisk()
        let site = try Site(disk)
        try await site.serve { socket throws in
            let good = try Client(socket)
            for turn in 0..<20 {
                let client = try Client(socket)
                disk.hold()
                _ = try client.ask(.read((0..<4096).extent))
                try waitUntil { disk.running == 1 }
                // Half a write.
                try client.raw.send(
                    hex("21e41c71 0020 0001 0000000000000009 0000000000000000 0000000000001000 0102030405"))
                client.raw.close()
                if turn % 2 == 0 { usleep(2000) }
                disk.release()
                try waitUntil { disk.running == 0 }
            }
            #expect(try good.read(0..<8).bytes == [UInt8](repeating: 0, count: 8))
            #expect(!disk.log.contains { $0.hasPrefix("write") })
        }
    }
}
