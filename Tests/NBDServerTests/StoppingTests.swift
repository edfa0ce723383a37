import Glibc
import NBDProtocol
import NBDServer
import Testing
import Volumes

/// How a server ends.
struct StoppingTests {
    @Test func `what is under way is answered, what comes is refused, all is flushed`() async throws {
        let disk = try await TestDisk()
        let site = try Site(disk)
        let (stopping, stop) = AsyncStream.makeStream(of: (busy: Client, idle: Client).self)
        let socket = site.socket
        async let clientsEnd: Void = {
            for await (busy, idle) in stopping {
                try await onThread {
                    // Nobody is let in any more, and who has nothing under way is let go.
                    try waitUntil { unsafe access(socket, F_OK) != 0 }
                    try idle.raw.waitForEnd()
                    let late = try busy.ask(.flush)
                    #expect(try busy.reply(to: late).failure?.error == .shutdown)
                    disk.release()
                    #expect(try busy.reply(to: 1).failure == nil)
                    try busy.raw.waitForEnd()
                }.get()
            }
        }()
        try await site.serve { socket throws in
            let (busy, idle) = (try Client(socket), try Client(socket))
            disk.hold()
            _ = try busy.ask(.write((0..<4).extent), payload: [1, 2, 3, 4])
            try waitUntil { disk.running == 1 }
            stop.yield((busy, idle))
            stop.finish()
        }
        try await clientsEnd
        #expect(disk.log == ["write 0+4", "flush"])
    }

    @Test func `a client that takes no replies holds up the end for a while only`() async throws {
        let disk = try await TestDisk()
        var site = try Site(disk)
        site.limits.grace = .milliseconds(100)
        let client = try await site.serve { socket throws in
            let client = try Client(socket, "", .simple)
            for _ in 0..<40 { _ = try client.ask(.read((0..<1 << 20).extent)) }
            try waitUntil { disk.log.count >= 8 }
            return client
        }
        // Whatever the kernel held is read, then there is an end.
        try await onThread { try client.raw.waitForEnd() }.get()
    }

    @Test func `a disk that can't be flushed in the end is told`() async throws {
        let disk = try await TestDisk()
        let site = try Site(disk)
        await #expect(throws: VolumeError.self) {
            try await site.serve { socket throws in
                let client = try Client(socket)
                _ = try client.write([1], at: 0)
                disk.fail(.full)
            }
        }
    }
}
