import Conformance
import Foundation
import NIOCore
import Testing
import Volumes

@testable import Relay

/// Bytes that no honest peer sends. Whatever comes: no trap, no more held than is bounded, and in the end a session that
/// waits or has closed.
///
/// `GODWIT_FUZZ` is how many inputs each end is given; `GODWIT_FUZZ_SEED` the first seed.
struct FuzzTests {
    static let inputs = ProcessInfo.processInfo.environment["GODWIT_FUZZ"].flatMap { Int($0) } ?? 10_000
    static let first = ProcessInfo.processInfo.environment["GODWIT_FUZZ_SEED"].flatMap { UInt64($0) } ?? 1
    static let seeds = first..<first + UInt64(inputs)

    @Test func `the far side outlives every input`() {
        var (closed, requests) = (0, 0)
        for seed in Self.seeds {
            var samples = Samples(seed: seed)
            var (client, session, most) = (RelayClientSession(), RelayServerSession(), 0)
            let messages = (0..<Int.random(in: 1...5, using: &samples.random)).map { _ in
                client.request(samples.request(RelayKind.allCases.randomElement(using: &samples.random)!)).pieces.joined
            }
            Self.feed(Self.spoil(messages, &samples.random), &samples.random) { input in
                while let step = session.receive(&input) {
                    if case .request(_, let request) = step {
                        requests += 1
                        if let what = Self.fault(of: request) {
                            Issue.record("\(what): GODWIT_FUZZ=1 GODWIT_FUZZ_SEED=\(seed)")
                        }
                    }
                }
                most = max(most, session.heldBytes)
            }
            if most > RelayKind.save.mostBody {
                Issue.record("\(most) bytes held: GODWIT_FUZZ=1 GODWIT_FUZZ_SEED=\(seed)")
            }
            if session.isClosed { closed += 1 }
        }
        // Inputs that get nowhere, or that break nothing, would find nothing.
        if Self.inputs >= 1000 { #expect(closed > Self.inputs / 8 && requests > Self.inputs / 2) }
    }

    @Test func `the near side outlives every input`() {
        var (closed, replies) = (0, 0)
        for seed in Self.seeds {
            var samples = Samples(seed: seed)
            var session = RelayClientSession()
            let messages = (0..<Int.random(in: 1...5, using: &samples.random)).map { _ in
                let kind = RelayKind.allCases.randomElement(using: &samples.random)!
                let (id, _) = session.request(samples.request(kind))
                return RelayServerSession.reply(samples.reply(to: kind), to: id).joined
            }
            Self.feed(Self.spoil(messages, &samples.random), &samples.random) { input in
                while let step = session.receive(&input) { if case .reply = step { replies += 1 } }
                if session.heldBytes > RelayKind.state.mostReply {
                    Issue.record("held: GODWIT_FUZZ=1 GODWIT_FUZZ_SEED=\(seed)")
                }
            }
            if session.isClosed { closed += 1 }
        }
        if Self.inputs >= 1000 { #expect(closed > Self.inputs / 8 && replies > Self.inputs / 2) }
    }

    @Test func `offers and grants outlive every input`() {
        for seed in Self.seeds {
            var samples = Samples(seed: seed)
            let wishes = LayoutWishes(objectSize: .mebibytes(4), dataPool: "p", features: ["layering"])
            let offer = RelayOffer(.begin(address: "rbd:slow/v", wishes: wishes)).data
            let grant = RelayGrant(
                features: .all, holdsMetadata: true, connections: 1, requests: 1, token: .random()
            ).data
            for message in [offer, grant] {
                let bytes = Self.spoil([message], &samples.random)
                var (first, second) = (ByteBuffer(bytes: bytes), ByteBuffer(bytes: bytes))
                _ = try? RelayOffer(from: &first)
                _ = RelayGrant(from: &second)
            }
        }
    }

    @Test(arguments: [1, 1 << 20])
    func `the corpus ends as it did`(piece: Int) {
        for line in Corpus.far {
            var (session, last) = (RelayServerSession(), RelayServerSession.Step?.none)
            Self.feed(Self.bytes(line), in: piece) { input in
                while let step = session.receive(&input) { last = step }
            }
            guard case .close = last, session.isClosed else {
                Issue.record("\(line)")
                continue
            }
        }
        for (asked, line) in Corpus.near {
            var (session, last) = (RelayClientSession(), RelayClientSession.Step?.none)
            _ = session.request(asked)
            Self.feed(Self.bytes(line), in: piece) { input in
                while let step = session.receive(&input) { last = step }
            }
            guard case .close = last, session.isClosed else {
                Issue.record("\(line)")
                continue
            }
        }
    }

    private static func bytes(_ line: String) -> ArraySlice<UInt8> { TranscriptTests.bytes(line[...])[...] }

    private static func feed(_ bytes: ArraySlice<UInt8>, in piece: Int, _ body: (inout ByteBuffer) -> Void) {
        var (rest, input) = (bytes, ByteBuffer())
        while !rest.isEmpty {
            input.writeBytes(rest.prefix(piece))
            rest = rest.dropFirst(piece)
            body(&input)
        }
    }

    /// What a request must not be that was let through.
    private static func fault(of request: RelayRequest) -> String? {
        switch request {
        case .change(let changes):
            if changes.isEmpty || changes.count > RelayBounds.changes { return "\(changes.count) changes" }
            if changes.contains(where: \.extent.isEmpty) { return "an empty change" }
            if changes.reduce(0, { $0 + $1.plainBytes }) > RelayBounds.plain { return "too much to unpack" }
            for case .write(_, let payload) in changes {
                // Refused or right: never past its buffer.
                var bytes = [UInt8](repeating: 0, count: payload.length)
                _ = unsafe bytes.withUnsafeMutableBytes { unsafe payload.unpack(into: $0) }
            }
        case .read(_, let extent):
            if extent.isEmpty || extent.length.bytes > UInt64(RelayBounds.payload) { return "a read of \(extent)" }
        case .digest(_, let extent, let chunk):
            if extent.length > RelayBounds.digested || chunk < RelayBounds.digestChunk {
                return "a digest of \(extent)"
            }
        default: break
        }
        return nil
    }

    // MARK: Spoiling

    /// Bits, numbers, places, lengths; or as they are.
    static func spoil(_ messages: [ByteBuffer], _ random: inout SplitMix64) -> [UInt8] {
        var messages = messages
        if messages.count > 1, Int.random(in: 0..<8, using: &random) == 0 { messages.shuffle(using: &random) }
        var bytes = messages.flatMap { Array($0.readableBytesView) }
        let numbers: [[UInt8]] = [
            [0, 0, 0, 0], [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 1], [0x7f, 0xff, 0xff, 0xff], [0, 0x80, 0, 1],
            [UInt8](repeating: 0xff, count: 8), [0x7f] + [UInt8](repeating: 0xff, count: 7),
        ]
        // Near the front stand the numbers.
        let place = Int.random(
            in: 0..<(Bool.random(using: &random) ? min(80, bytes.count) : bytes.count), using: &random)
        switch Int.random(in: 0..<7, using: &random) {
        case 0...1: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 2...3:
            let number = numbers.randomElement(using: &random)!
            bytes.replaceSubrange(place..<min(bytes.count, place + number.count), with: number)
        case 4: bytes.insert(contentsOf: random.bytes(Int.random(in: 1...30, using: &random)), at: place)
        case 5: bytes.removeSubrange(place..<min(bytes.count, place + 5))
        default: break
        }
        return bytes
    }

    static func feed(_ bytes: [UInt8], _ random: inout SplitMix64, _ body: (inout ByteBuffer) -> Void) {
        var (rest, input) = (bytes[...], ByteBuffer())
        while !rest.isEmpty {
            let count = min(rest.count, [1, 20, 400, 1 << 20].randomElement(using: &random)!)
            input.writeBytes(rest.prefix(count))
            rest = rest.dropFirst(count)
            body(&input)
            input.discardReadBytes()
        }
    }
}
