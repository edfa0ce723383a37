import Foundation
import NBDProtocol
import NIOCore
import Testing
import Volumes

@testable import Relay

/// Docs/Protocol.md's transcript, byte by byte as the code has it.
struct TranscriptTests {
    private static let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Docs/Protocol.md")

    /// Hexadecimal digits, words in quotation marks as ASCII, and after a `#` what they are.
    static func bytes(_ line: Substring) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = line.prefix { $0 != "#" }
        while let first = rest.first {
            if first == "\"" {
                let word = rest.dropFirst().prefix { $0 != "\"" }
                bytes += Array(word.utf8)
                rest = rest.dropFirst(word.count + 2)
            } else if first == " " {
                rest = rest.dropFirst()
            } else {
                let digits = String(rest.prefix { $0 != " " })
                for index in stride(from: 0, to: digits.count, by: 2) {
                    bytes.append(UInt8(digits.dropFirst(index).prefix(2), radix: 16)!)
                }
                rest = rest.dropFirst(digits.count)
            }
        }
        return bytes
    }

    /// What each side says, one after the other.
    private static func turns() throws -> [(isNear: Bool, bytes: [UInt8])] {
        let text = try String(contentsOf: page, encoding: .utf8)
        let start = try #require(text.range(of: "```transcript\n")?.upperBound)
        let end = try #require(text.range(of: "```", range: start..<text.endIndex)?.lowerBound)
        var turns: [(isNear: Bool, bytes: [UInt8])] = []
        for line in text[start..<end].split(separator: "\n") {
            let isNear = line.hasPrefix(">")
            if turns.last?.isNear != isNear { turns.append((isNear, [])) }
            turns[turns.count - 1].bytes += bytes(line.dropFirst())
        }
        return turns
    }

    @Test func `the transcript is what the code says`() throws {
        let turns = try Self.turns()
        let token = try #require(RelayToken(Array(0...15)))
        let offer = RelayOffer(.begin(address: "rbd:slow/image", wishes: LayoutWishes()))
        let grant = RelayGrant(features: .all, holdsMetadata: true, connections: 16, requests: 128, token: token)
        // The handshake, by NBD's own sessions.
        var server = ServerSession(ServerPolicy(tls: .off, offersRelay: true))
        var client = ClientSession(ClientPlan(.relay(offer.data), tls: .off))
        var said = [Array(server.greeting.readableBytesView)]
        var input = server.greeting
        guard case .send(var asked) = client.receive(&input) else {
            Issue.record("no answer to the greeting")
            return
        }
        said.append(Array(asked.readableBytesView))
        guard case .relay = server.receive(&asked) else {
            Issue.record("no offer")
            return
        }
        guard case .relayed(let granted) = server.grantRelay(grant.data) else {
            Issue.record("no grant")
            return
        }
        said.append(Array(granted.readableBytesView))
        // Then the relay's.
        var near = RelayClientSession()
        func ask(_ request: RelayRequest) -> [UInt8] { Array(near.request(request).pieces.joined.readableBytesView) }
        func reply(_ reply: RelayReply, _ id: UInt64) -> [UInt8] {
            Array(RelayServerSession.reply(reply, to: id).joined.readableBytesView)
        }
        let nine = unsafe Array("123456789".utf8).withUnsafeBytes { unsafe Payload($0, acceleration: 1) }
        said.append(ask(.own))
        said.append(reply(.owned(false), 1))
        said.append(
            ask(
                .change([
                    .write(ByteOffset(4096), nine), .zero(Extent(offset: ByteOffset(1 << 20), length: .kibibytes(64))),
                ])) + ask(.flush))
        said.append(
            reply(.done, 2)
                + reply(.failed(VolumeError(.busy, "flush", on: "rbd:slow/image", reason: "taken")), 3))
        #expect(turns.map(\.bytes) == said)
    }

    @Test func `every kind of request is on the page, under its number`() throws {
        let text = try String(contentsOf: Self.page, encoding: .utf8)
        for kind in RelayKind.allCases { #expect(text.contains("\n| \(kind.rawValue) | \(kind) |"), "\(kind)") }
    }
}
