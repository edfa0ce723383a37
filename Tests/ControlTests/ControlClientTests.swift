import Foundation
import Glibc
import Sockets
import Testing
import Volumes

@testable import Control

/// Which move is meant, and what is said of those that can't be understood.
struct ControlClientTests {
    private func failure(_ client: ControlClient, _ order: MoveOrder = .pause, to target: String?) async
        -> ControlError?
    {
        do throws(ControlError) {
            _ = try await client.give(order, to: target)
            return nil
        } catch {
            return error
        }
    }

    @Test func `where no move runs, that is said`() async throws {
        let site = Site()
        let error = await failure(site.client(), to: nil)
        #expect(error?.kind == .noMove)
        #expect(error?.lines == ["no move is running on this host"])
        #expect(error?.advice?.contains(site.directory.path) == true)
        #expect(await failure(site.client(), to: "v")?.lines == ["no move to 'v' is running on this host"])
    }

    @Test func `of two moves one must be named`() async throws {
        let site = Site()
        let (slow, ssd) = (FakeMove(to: "rbd:slow/v"), FakeMove(to: "rbd:ssd/v"))
        try await site.serving(slow) {
            try await site.serving(ssd) {
                #expect(site.names == ["\(getpid())-2.sock", "\(getpid()).sock"])
                let client = site.client()
                #expect(await client.moves().answering.count == 2)
                var error = await failure(client, to: nil)
                #expect(error?.kind == .ambiguous)
                #expect(error?.lines.first == "two moves are running on this host: name the target")
                #expect(error?.lines.count == 3)
                error = await failure(client, to: "v")
                #expect(error?.kind == .ambiguous)
                #expect(error?.lines.first == "two moves fit 'v': name the target")
                error = await failure(client, to: "w")
                #expect(error?.kind == .noMove)
                #expect(error?.lines.count == 3)
                #expect(error?.advice == nil)
                let target = try await client.give(.pause, to: "ssd/v").target
                #expect(target == "rbd:ssd/v" && slow.taken == [] && ssd.taken == [.pause])
                let both = try await client.moves(to: "v")
                #expect(both.answering.count == 2)
            }
            let target = try await site.client().give(.pause, to: nil).target
            #expect(target == "rbd:slow/v")
        }
    }

    /// A listener that a client meets in the place of a move.
    private func meeting(
        _ reply: String?, in site: Site, _ body: (ControlClient) async throws -> Void
    ) async throws {
        try site.directory.make()
        let listener = try UnixSocket.listening(at: site.directory.path + "/4242.sock")
        defer { close(listener) }
        async let answering: Void = {
            guard let reply else { return }
            while true {
                let descriptor = accept(listener, nil, nil)
                if descriptor >= 0 {
                    RawClient(descriptor: descriptor).send(reply)
                    return
                }
                try await Task.sleep(for: .milliseconds(2))
            }
        }()
        try await body(site.client(patience: reply == nil ? .milliseconds(500) : .seconds(60)))
        try await answering
    }

    @Test(arguments: [
        ("", "went away"), ("no JSON\n", "doesn't understand"), ("{\"status\":", "went away"),
        ("{}\n", "doesn't understand"),
        ("{\"status\":{\"phase\":\"flying\"}}\n", "doesn't understand"), ("{\"accepted\":\"yes\"}\n", "is no status"),
        ("{\"refused\":\"busy\"}\n", "busy"), (String(repeating: "x", count: 70000), "went away"),
    ])
    func `what can't be understood is no answer`(reply: String, complaint: String) async throws {
        let site = Site()
        try await meeting(reply, in: site) { client in
            let moves = await client.moves()
            #expect(moves.answering.isEmpty)
            #expect(moves.silent.map(\.process) == [4242])
            #expect(moves.silent[0].reason.contains(complaint), "\(moves.silent)")
        }
    }

    @Test func `a move that doesn't answer is told apart from none`() async throws {
        let site = Site()
        try await meeting(nil, in: site) { client in
            for target in [nil, "v"] {
                let error = await failure(client, to: target)
                #expect(error?.kind == .unanswered)
                #expect(error?.lines.last == "process 4242 doesn't answer within 0.5 seconds")
            }
        }
    }

    @Test func `a move that lets nobody in is waited for no longer than any other`() async throws {
        let site = Site()
        try site.directory.make()
        let path = site.directory.path + "/4242.sock"
        let listener = try UnixSocket.listening(at: path)
        var waiting: [Int32] = []
        defer { for descriptor in waiting + [listener] { close(descriptor) } }
        while let descriptor = try? UnixSocket.connected(to: path) { waiting.append(descriptor) }
        #expect(waiting.count < 100)
        let error = await failure(site.client(patience: .milliseconds(300)), to: nil)
        #expect(error?.lines.last?.contains("too many are waiting") == true)
        #expect(site.names == ["4242.sock"])
    }

    @Test func `a full queue is no refusal`() async throws {
        let site = Site()
        try site.directory.make()
        let path = site.directory.path + "/4242.sock"
        let listener = try UnixSocket.listening(at: path)
        defer { close(listener) }
        var waiting: [RawClient] = []
        while let descriptor = try? UnixSocket.connected(to: path) { waiting.append(RawClient(descriptor: descriptor)) }
        async let found = site.client().moves()
        // Long enough for the client to find it full.
        try await Task.sleep(for: .milliseconds(100))
        var admitted: [RawClient] = []
        for _ in 0..<2000 where admitted.count <= waiting.count {
            let descriptor = accept(listener, nil, nil)
            if descriptor >= 0 {
                admitted.append(RawClient(descriptor: descriptor))
                admitted[admitted.count - 1].send("{\"refused\":\"not now\"}\n")
            } else {
                try await Task.sleep(for: .milliseconds(2))
            }
        }
        #expect(await found.silent.map(\.reason) == ["not now"])
    }

    @Test(arguments: [
        ("rbd:slow/v", [0]), ("slow/v", [0]), ("v", [0, 2, 3]), ("ns/v", [2]), ("slow/ns/v", [2]),
        ("rbd:slow/ns/v", [2]),
        ("rbd:ssd/v", [3]), ("rbd:ssd/v:conf=west.conf", [3]), ("ssd/v:conf=east.conf", []), ("v:conf=west.conf", [3]),
        ("slow", []), ("", []), ("/", []), ("rbd:", []), ("rbd:v", []), ("low/v", []), ("w", [1]), ("a:b", [4]),
        ("a\\:b", [4]), ("rbd:slow/a\\:b", [4]), ("/srv/disks/d.raw", [5]), ("file:/srv/disks/d.raw", [5]),
        ("d.raw", [5, 6]), ("srv/disks/d.raw", [5]), ("disks/d.raw", [6]), ("file:disks/d.raw", [6]), ("/d.raw", []),
        ("rbd:slow/w@s", []),
    ])
    func `a target is named by its end`(wanted: String, indexes: [Int]) {
        let targets = [
            "rbd:slow/v", "rbd:slow/w", "rbd:slow/ns/v", "rbd:ssd/v:conf=west.conf", "rbd:slow/a\\:b",
            "/srv/disks/d.raw",
            "disks/d.raw",
        ]
        #expect(MoveSelection.fitting(wanted, among: targets) == indexes)
    }
}
