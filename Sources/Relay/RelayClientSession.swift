package import NIOCore
internal import Volumes

/// One connection of a relay, seen by the near side: requests go, replies come in any order. A value, as
/// `ClientSession` is.
package struct RelayClientSession: Sendable {
    package enum Step: Sendable, Equatable {
        case reply(id: UInt64, RelayReply)
        /// The far side is at work still.
        case alive
        /// Close: there is no going on.
        case close(RelayViolation)
    }

    private var intake = FrameIntake()
    private var pending: [UInt64: RelayKind] = [:]
    private var last: UInt64 = 0
    package private(set) var isClosed = false

    package init() {}

    /// Requests whose replies aren't there.
    package var pendingCount: Int { pending.count }

    /// Bytes of an unfinished frame.
    package var heldBytes: Int { intake.count }

    /// A request, in pieces, and the number that its reply will have.
    package mutating func request(_ request: RelayRequest) -> (id: UInt64, pieces: [ByteBuffer]) {
        last += 1
        pending[last] = request.kind
        return (last, RelayFrame.pieces(RelayFrame.request, request.kind.rawValue, id: last, body: request.body))
    }

    /// Bytes came, or are still there. Nothing if more are needed.
    package mutating func receive(_ input: inout ByteBuffer) -> Step? {
        guard !isClosed else {
            input.moveReaderIndex(to: input.writerIndex)
            return nil
        }
        do throws(RelayViolation) {
            let pending = pending
            let frame = try intake.take(from: &input, expecting: RelayFrame.reply) { header throws(RelayViolation) in
                try Self.check(header, pending)
            }
            guard case (let header, var body)? = frame else { return nil }
            if header.code == RelayFrame.alive { return .alive }
            guard let kind = self.pending.removeValue(forKey: header.id) else { throw .unknownID(header.id) }
            if let failure = VolumeError.Kind(status: header.code) {
                guard let error = body.readFailure(failure) else { throw .malformed("a failure") }
                return .reply(id: header.id, .failed(error))
            }
            guard let reply = RelayReply(to: kind, from: &body) else { throw .malformed("a reply to \(kind)") }
            return .reply(id: header.id, reply)
        } catch {
            isClosed = true
            return .close(error)
        }
    }

    /// What a header says, before its body is waited for.
    private static func check(_ header: RelayFrame, _ pending: [UInt64: RelayKind]) throws(RelayViolation) {
        let most: Int
        if header.code == RelayFrame.alive {
            guard header.id == 0 else { throw .unknownID(header.id) }
            most = 0
        } else {
            guard let kind = pending[header.id] else { throw .unknownID(header.id) }
            guard header.code == 0 || VolumeError.Kind(status: header.code) != nil else {
                throw .unknown("status", header.code)
            }
            // Four messages, their lengths, and whether there is an advice.
            most = header.code == 0 ? kind.mostReply : 4 * (4 + RelayBounds.message) + 1
        }
        guard header.bodyLength <= most else {
            throw .tooLong("a reply", announced: header.bodyLength, most: most)
        }
    }
}
