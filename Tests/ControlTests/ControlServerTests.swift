import Foundation
import Glibc
import Sockets
import Testing
import Volumes

@testable import Control

/// What a client can and can't do to a move.
@Suite(.serialized) struct ControlServerTests {
    private let question = #"{"order":"status"}"# + "\n"

    private func refusal(_ text: String?) -> String? {
        guard let text, case .refused(let why) = controlValue(ControlReply.self, of: Array(text.utf8)) else {
            return nil
        }
        return why
    }

    @Test func `a move is asked and told while it runs`() async throws {
        let (site, move) = (Site(), FakeMove())
        let orders: [MoveOrder] = [
            .pause, .resume, .cancel, .throttle(.auto), .throttle(.off),
            .throttle(.limit(ByteRate(bytesPerSecond: 20 << 20))), .bandwidth(nil),
            .bandwidth(ByteRate(bytesPerSecond: 1)),
        ]
        try await site.serving(move) {
            let moves = await site.client().moves()
            #expect(await moves.answering.map(\.status) == [move.status()])
            #expect(moves.silent.isEmpty && moves.problems.isEmpty)
            for order in orders {
                let (target, answer) = try await site.client().give(order, to: nil)
                #expect(target == "rbd:slow/v" && answer == "noted")
            }
            #expect(move.taken == orders)
            let refused = await #expect(throws: ControlError.self) { try await site.client().give(.cutover, to: nil) }
            #expect(refused == ControlError(.refused, ["rbd:slow/v: nothing is copied yet"]))
        }
        #expect(await site.client().moves().isEmpty)
    }

    @Test func `only its user can talk to a move, whatever the umask`() async throws {
        let site = Site()
        let before = umask(0)
        defer { umask(before) }
        try await site.serving {
            for (path, mode) in [(site.directory.path, S_IFDIR | 0o700), (site.ownSocket, S_IFSOCK | 0o600)] {
                var status = stat()
                #expect(unsafe lstat(path, &status) == 0)
                #expect(status.st_mode == mode)
            }
            #expect(site.names == ["\(getpid()).sock"])
        }
    }

    @Test func `the socket is gone when the move is over, however it ended`() async throws {
        struct Mishap: Error {}
        let site = Site()
        #expect(try await site.serving { 7 } == 7)
        #expect(site.names.isEmpty)
        await #expect(throws: Mishap.self) { try await site.serving { throw Mishap() } }
        #expect(site.names.isEmpty)
        let directory = site.directory
        let cancelled = Task {
            await ControlServer(in: directory, control: FakeMove()).serve(unheard: { Issue.record($0) }) {
                try? await Task.sleep(for: .seconds(60))
            }
        }
        try await eventually("it listens") { site.names.count == 1 }
        cancelled.cancel()
        await cancelled.value
        #expect(site.names.isEmpty)
    }

    @Test(arguments: [
        "\n", "{}\n", "status\n", "{\"order\":\"fly\"}\n", "{\"order\":\"throttle\"}\n",
        "{\"order\":\"throttle\",\"mode\":\"limit\",\"bytesPerSecond\":0}\n",
        "{\"order\":\"bandwidth\",\"bytesPerSecond\":-1}\n", "{\"order\":\"bandwidth\",\"bytesPerSecond\":1e99}\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\0\0\0\n", "\u{202e}\n",
    ])
    func `junk is refused, and harms nobody`(junk: String) async throws {
        let (site, move) = (Site(), FakeMove())
        try await site.serving(move) {
            let client = try RawClient(site.ownSocket)
            client.send(junk)
            #expect(refusal(try await client.received())?.contains("no order") == true)
            #expect(await site.client().moves().answering.count == 1)
            #expect(move.taken.isEmpty)
        }
    }

    @Test func `a line that is nested without end is refused`() async throws {
        let site = Site()
        try await site.serving {
            let client = try RawClient(site.ownSocket)
            client.send(String(repeating: "[", count: 60000) + "\n")
            #expect(refusal(try await client.received())?.contains("no order") == true)
        }
    }

    @Test func `a line that is too long is refused before its end comes`() async throws {
        let site = Site()
        try await site.serving {
            let client = try RawClient(site.ownSocket)
            var sent = 0
            while sent <= longestControlLine {
                sent += max(0, client.send(repeatElement(UInt8(ascii: " "), count: 4096)))
            }
            #expect(refusal(try await client.received())?.contains("at most 65536 bytes") == true)
            // All but as long is let through.
            let longest = try RawClient(site.ownSocket)
            let line = String(repeating: " ", count: longestControlLine - question.utf8.count + 1) + question
            var rest = Array(line.utf8)[...]
            while !rest.isEmpty { rest = rest.dropFirst(max(0, longest.send(rest))) }
            #expect(try await longest.received()?.contains("rbd:slow/v") == true)
        }
    }

    @Test(arguments: ["", "{\"order\":"])
    func `who says nothing, or not to the end, is shut out after a while`(beginning: String) async throws {
        let site = Site()
        site.limits.request = .milliseconds(300)
        try await site.serving {
            let client = try RawClient(site.ownSocket)
            client.send(beginning)
            #expect(refusal(try await client.received())?.contains("no order came within 0.3 seconds") == true)
        }
    }

    @Test func `many silent clients don't keep others out`() async throws {
        let site = Site()
        try await site.serving {
            var crowd: [Int32] = []
            defer { for descriptor in crowd { close(descriptor) } }
            for _ in 0..<200 {
                // The queue of those who wait to be let in is bounded, too.
                var descriptor: Int32?
                try await eventually("there is room") {
                    descriptor = try? UnixSocket.connected(to: site.ownSocket)
                    return descriptor != nil
                }
                crowd.append(try #require(descriptor))
            }
            for _ in 0..<10 { #expect(await site.client().moves().answering.count == 1) }
            // The connections of those who had to make room have ended: not even nothing can be sent over them.
            try await eventually("only as many as have a place are left") {
                crowd.count { send($0, nil, 0, Int32(MSG_NOSIGNAL)) == 0 } <= site.limits.connections
            }
        }
    }

    @Test func `who sends no more still gets the reply`() async throws {
        let site = Site()
        try await site.serving {
            let client = try RawClient(site.ownSocket)
            client.send(question)
            client.sendNoMore()
            #expect(try await client.received()?.hasPrefix("{\"status\":{") == true)

            let half = try RawClient(site.ownSocket)
            half.send("{\"order\"")
            half.sendNoMore()
            #expect(refusal(try await half.received()) == "an order ends with a newline")

            let mute = try RawClient(site.ownSocket)
            mute.sendNoMore()
            #expect(try await mute.received() == "")
        }
    }

    @Test func `what comes after the line is nobody's`() async throws {
        let (site, move) = (Site(), FakeMove())
        try await site.serving(move) {
            let client = try RawClient(site.ownSocket)
            client.send(#"{"order":"pause"}"# + "\n" + #"{"order":"cancel"}"# + "\n")
            #expect(try await client.received() == "{\"accepted\":\"noted\"}\n")
            #expect(move.taken == [.pause])
        }
    }

    @Test func `clients that flood, don't read or die harm only themselves`() async throws {
        let site = Site()
        try await site.serving {
            for _ in 0..<50 {
                let flood = try RawClient(site.ownSocket)
                for _ in 0..<100 where flood.send(Array(question.utf8)) < 0 { break }
                let dead = try RawClient(site.ownSocket)
                dead.send("{\"order\":\"sta")
            }
            #expect(await site.client().moves().answering.count == 1)
        }
    }

    @Test func `a move that answers late holds up neither its clients nor its end`() async throws {
        let (site, move) = (Site(), StuckMove())
        site.limits.answer = .milliseconds(300)
        try await site.serving(move) {
            let client = try RawClient(site.ownSocket)
            client.send(question)
            #expect(refusal(try await client.received())?.contains("didn't answer within 0.3 seconds") == true)
            let last = try RawClient(site.ownSocket)
            last.send(question)
            try await eventually("it was asked") { move.asked == 2 }
        }
        // It is over although the move still hasn't answered.
        #expect(site.names.isEmpty)
        move.letGo()
    }

    @Test func `a move is asked by a bounded number at a time`() async throws {
        let (site, move) = (Site(), StuckMove())
        try await site.serving(move) {
            // Each leaves at once, and its question stays.
            for count in 1...site.limits.connections {
                let client = try RawClient(site.ownSocket)
                client.send(question)
                try await eventually("it was asked") { move.asked == count }
            }
            let late = try RawClient(site.ownSocket)
            late.send(question)
            #expect(refusal(try await late.received())?.contains("more orders than it can take") == true)
            #expect(move.asked == site.limits.connections)
            move.letGo()
            var hasRoom = false
            for _ in 0..<1000 where !hasRoom {
                hasRoom = await site.client().moves().answering.count == 1
                try await Task.sleep(for: .milliseconds(5))
            }
            #expect(hasRoom)
        }
    }

    @Test func `the order that ended a move is answered`() async throws {
        /// Ends when it is told, and answers a little later.
        final class Ending: MoveControl {
            let (ended, end) = AsyncStream<Void>.makeStream()
            func status() async -> MoveStatus { await FakeMove().status() }
            func take(_ order: MoveOrder) async -> OrderAnswer {
                end.finish()
                try? await Task.sleep(for: .milliseconds(20))
                return .accepted("it ends")
            }
        }
        let site = Site()
        site.limits.grace = .seconds(60)
        let (move, client) = (Ending(), site.client())
        async let answer = {
            var answer: String?
            for _ in 0..<1000 where answer == nil {
                answer = try? await client.give(.cancel, to: nil).answer
                try? await Task.sleep(for: .milliseconds(5))
            }
            return answer
        }()
        try await site.serving(move) { for await _ in move.ended {} }
        #expect(await answer == "it ends")
    }

    @Test func `a move goes on where nobody can listen`() async throws {
        let site = Site()
        let long = RuntimeDirectory(path: site.directory.path + String(repeating: "x", count: 90))
        defer { try? FileManager.default.removeItem(atPath: long.path) }
        var reasons: [String] = []
        let value = await ControlServer(in: long, control: FakeMove()).serve(unheard: { reasons.append($0.reason) }) {
            7
        }
        #expect(value == 7)
        #expect(reasons.count == 1 && reasons[0].contains("a socket's can have 107"))
    }
}
