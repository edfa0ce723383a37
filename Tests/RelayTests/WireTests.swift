import Conformance
import NIOCore
import Testing
import Volumes

@testable import Relay

/// Requests and replies over the wire and back.
struct WireTests {
    static let pieces = [1, 7, 1000, 1 << 20]

    @Test(arguments: RelayKind.allCases, 1...UInt64(8))
    func `a request arrives as it was sent, however it is cut`(kind: RelayKind, seed: UInt64) {
        var samples = Samples(seed: seed)
        let request = samples.request(kind)
        var client = RelayClientSession()
        let (id, pieces) = client.request(request)
        var (server, rest) = (RelayServerSession(), pieces.joined)
        var input = ByteBuffer()
        var steps: [RelayServerSession.Step] = []
        let cut = Self.pieces[Int(seed) % Self.pieces.count]
        while rest.readableBytes > 0 {
            input.writeImmutableBuffer(rest.readSlice(length: min(cut, rest.readableBytes))!)
            while let step = server.receive(&input) { steps.append(step) }
        }
        #expect(steps == [.request(id: id, request)])
        #expect(server.heldBytes == 0)
    }

    @Test(arguments: RelayKind.allCases, 1...UInt64(8))
    func `a reply arrives as it was sent, among others`(kind: RelayKind, seed: UInt64) {
        var samples = Samples(seed: seed)
        var client = RelayClientSession()
        let (first, _) = client.request(.own)
        let (id, _) = client.request(samples.request(kind))
        let reply = samples.reply(to: kind)
        // In another order than they were asked for.
        var input = RelayServerSession.reply(reply, to: id).joined
        input.writeImmutableBuffer(RelayServerSession.alive)
        input.writeImmutableBuffer(RelayServerSession.reply(.owned(true), to: first).joined)
        var steps: [RelayClientSession.Step] = []
        while let step = client.receive(&input) { steps.append(step) }
        #expect(steps == [.reply(id: id, reply), .alive, .reply(id: first, .owned(true))])
        #expect(client.pendingCount == 0)
    }

    @Test(arguments: RelayKind.allCases)
    func `a body longer than its kind's is refused before it is waited for`(kind: RelayKind) {
        var session = RelayServerSession()
        var header = ByteBuffer()
        header.writeMultipleIntegers(
            RelayFrame.request, kind.rawValue, UInt16(0), UInt64(1), UInt32(kind.mostBody + 1))
        guard case .close(.tooLong) = session.receive(&header) else {
            Issue.record("\(kind) was let through")
            return
        }
        #expect(session.isClosed && session.heldBytes == 0)
    }

    @Test(arguments: RelayKind.allCases)
    func `a reply longer than its request's is refused before it is waited for`(kind: RelayKind) {
        var samples = Samples(seed: 1)
        var session = RelayClientSession()
        let (id, _) = session.request(samples.request(kind))
        var header = ByteBuffer()
        header.writeMultipleIntegers(RelayFrame.reply, UInt16(0), UInt16(0), id, UInt32(kind.mostReply + 1))
        guard case .close(.tooLong) = session.receive(&header) else {
            Issue.record("\(kind) was let through")
            return
        }
    }

    @Test func `the largest frame of changes is within its bound`() {
        let bytes = [UInt8](repeating: 1, count: RelayBounds.payload)
        let payload = unsafe bytes.withUnsafeBytes { unsafe Payload($0, acceleration: nil) }
        var client = RelayClientSession()
        let (_, pieces) = client.request(.change([.write(.zero, payload), .write(ByteOffset(4 << 20), payload)]))
        var (session, input) = (RelayServerSession(), pieces.joined)
        guard case .request(_, .change(let changes)) = session.receive(&input) else {
            Issue.record("it wasn't taken")
            return
        }
        #expect(changes.count == 2)
    }

    @Test func `nobody's reply, an answer given twice, and junk end the connection`() {
        for (id, again) in [(UInt64(9), false), (1, true)] {
            var session = RelayClientSession()
            _ = session.request(.flush)
            var input = RelayServerSession.reply(.done, to: id).joined
            if again { input.writeImmutableBuffer(RelayServerSession.reply(.done, to: id).joined) }
            var last: RelayClientSession.Step?
            while let step = session.receive(&input) { last = step }
            #expect(last == .close(.unknownID(id)))
        }
        var session = RelayServerSession()
        var junk = ByteBuffer(repeating: 0x47, count: 20)
        #expect(session.receive(&junk) == .close(.magic(0x4747_4747)))
        var more = ByteBuffer(repeating: 0x47, count: 20)
        #expect(session.receive(&more) == nil && more.readableBytes == 0)
    }

    @Test func `offers and grants arrive as they were sent`() throws {
        let token = RelayToken.random()
        let wishes = LayoutWishes(
            objectSize: .mebibytes(8), stripeUnit: nil, stripeCount: 2, dataPool: "ec", features: ["layering"])
        for purpose in [.begin(address: "rbd:slow/v", wishes: wishes), .join(token)] as [RelayOffer.Purpose] {
            let offer = RelayOffer(features: [.lz4], purpose)
            var data = offer.data
            #expect(try RelayOffer(from: &data) == offer)
            var short = offer.data.getSlice(at: 0, length: offer.data.readableBytes - 1)!
            #expect(throws: RelayOffer.Flaw.malformed) { try RelayOffer(from: &short) }
            var long = offer.data
            long.writeInteger(UInt8(0))
            #expect(throws: RelayOffer.Flaw.malformed) { try RelayOffer(from: &long) }
        }
        var other = ByteBuffer(integer: UInt16(2))
        #expect(throws: RelayOffer.Flaw.version(2)) { try RelayOffer(from: &other) }
        let grant = RelayGrant(features: .all, holdsMetadata: true, connections: 16, requests: 128, token: token)
        var data = grant.data
        #expect(RelayGrant(from: &data) == grant)
        var short = grant.data.getSlice(at: 0, length: grant.data.readableBytes - 1)!
        #expect(RelayGrant(from: &short) == nil)
    }

    @Test func `no two tokens are alike`() {
        #expect(Set((0..<100).map { _ in RelayToken.random() }).count == 100)
    }
}
