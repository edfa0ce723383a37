import NIOCore
import Volumes

@testable import NBDProtocol

// The server of the two: a volume in memory, replies in a random order and random chunks.
extension Joined {
    static let info = ExportInfo(
        name: "disk", size: ByteCount(UInt64(size)), flags: [.flush, .fua, .trim, .writeZeroes, .cache],
        contexts: contexts)

    mutating func serve(_ step: ServerSession.Step) {
        switch step {
        case .send(let bytes): toClient.writeImmutableBuffer(bytes)
        case .find: serve(server.answer(.found(Self.info)))
        case .enter(_, let bytes): toClient.writeImmutableBuffer(bytes)
        case .request(let request):
            if case .write = request.command { writing = (request, []) } else { carryOut(request, []) }
        case .payload(let piece, let remaining):
            writing?.bytes += Array(piece.readableBytesView)
            guard remaining == 0, let writing else { return }
            self.writing = nil
            carryOut(writing.request, writing.bytes)
        case .close(let closing):
            isOver = true
            if closing.reason != .agreed || !client.isLeaving { faults.append("\(closing)") }
        case .startTLS, .list, .relay, .relayed: faults.append("\(step)")
        }
    }

    private mutating func carryOut(_ request: Request, _ payload: [UInt8]) {
        let encoder = ReplyEncoder(server.agreement!)
        var expectation = Expectation()
        if Int.random(in: 0..<8, using: &random) == 0 {
            let place = Bool.random(using: &random) ? request.extent?.offset : nil
            expectation.failure = RequestFailure(
                error: .io, message: style == .simple ? "" : "as the dice will",
                offset: style == .simple ? nil : place)
            expected[request.cookie] = expectation
            return replies.append([encoder.failed(request, .io, "as the dice will", at: place)])
        }
        let range = request.extent.map { Int($0.offset.bytes)..<Int($0.end.bytes) } ?? 0..<0
        switch request.command {
        case .read(let extent):
            expectation.bytes = Array(bytes[range])
            replies.append(chunks(of: request, extent, encoder))
        case .write:
            bytes.replaceSubrange(range, with: payload)
            for index in range { dirty[index] = true }
        case .trim, .writeZeroes:
            for index in range { (bytes[index], dirty[index]) = (0, true) }
        case .blockStatus(_, let contexts):
            var statuses: [UInt32: [BlockStatus]] = [:]
            for context in contexts {
                let flags: [UInt64] = range.map {
                    context.context == .dirty ? (dirty[$0] ? 1 : 0) : bytes[$0] == 0 ? 3 : 0
                }
                expectation.statuses[context.id] = flags
                statuses[context.id] = flags.prefix(.random(in: 1...flags.count, using: &random))
                    .map { BlockStatus(length: ByteCount(1), flags: $0) }
            }
            replies.append([encoder.status(request, statuses)])
        case .flush, .cache: break
        }
        switch request.command {
        case .read, .blockStatus: break
        case .write, .trim, .writeZeroes, .flush, .cache: replies.append([encoder.done(request)])
        }
        expected[request.cookie] = expectation
    }

    /// A read in parts of any length, in any order, zeros as holes.
    private mutating func chunks(of request: Request, _ extent: Extent, _ encoder: ReplyEncoder) -> [ByteBuffer] {
        var reply = ReadReply(to: request, encoder)
        var parts: [Extent] = []
        var rest = extent
        while !rest.isEmpty {
            let most = reply.mayFragment ? UInt64.random(in: 1...1000, using: &random) : .max
            let part = Extent(offset: rest.offset, length: min(rest.length, ByteCount(most)))
            parts.append(part)
            rest = Extent(from: part.end, to: rest.end)
        }
        return parts.shuffled(using: &random).map { part in
            let data = bytes[Int(part.offset.bytes)..<Int(part.end.bytes)]
            if reply.mayFragment, data.allSatisfy({ $0 == 0 }) { return reply.hole(part) }
            var chunk = reply.data(part)
            chunk.writeBytes(data.dropLast())
            chunk.writeInteger(plantsFault ? data[data.endIndex - 1] ^ 1 : data[data.endIndex - 1])
            return chunk
        }
    }

    /// One piece of any reply that is ready goes out.
    mutating func reply() {
        guard let index = replies.indices.randomElement(using: &random) else { return }
        toClient.writeImmutableBuffer(replies[index].removeFirst())
        if replies[index].isEmpty { replies.remove(at: index) }
    }
}
