package import NIOCore
internal import Volumes

/// One connection of a relay, seen by the far side: requests come, replies go. A value, as `ServerSession` is.
///
/// It holds at most one frame. How many requests may be under way is kept by not calling it.
package struct RelayServerSession: Sendable {
    package enum Step: Sendable, Equatable {
        /// Carry it out, and reply.
        case request(id: UInt64, RelayRequest)
        /// Close: there is no going on.
        case close(RelayViolation)
    }

    private var intake = FrameIntake()
    package private(set) var isClosed = false

    package init() {}

    /// Bytes of an unfinished frame.
    package var heldBytes: Int { intake.count }

    /// Bytes came, or are still there. Nothing if more are needed.
    package mutating func receive(_ input: inout ByteBuffer) -> Step? {
        guard !isClosed else {
            input.moveReaderIndex(to: input.writerIndex)
            return nil
        }
        do throws(RelayViolation) {
            let frame = try intake.take(from: &input, expecting: RelayFrame.request) { header throws(RelayViolation) in
                guard let kind = RelayKind(rawValue: header.code) else { throw .unknown("request", header.code) }
                guard header.bodyLength <= kind.mostBody else {
                    throw .tooLong("a request to \(kind)", announced: header.bodyLength, most: kind.mostBody)
                }
            }
            guard case (let header, var body)? = frame, let kind = RelayKind(rawValue: header.code) else { return nil }
            guard let request = RelayRequest(kind, from: &body) else { throw .malformed("a request to \(kind)") }
            return .request(id: header.id, request)
        } catch {
            isClosed = true
            return .close(error)
        }
    }

    /// A reply, in pieces.
    package static func reply(_ reply: RelayReply, to id: UInt64) -> [ByteBuffer] {
        RelayFrame.pieces(RelayFrame.reply, reply.status, id: id, body: reply.body)
    }

    /// What is sent now and then while nothing else is, and something is under way.
    package static let alive = RelayFrame.pieces(RelayFrame.reply, RelayFrame.alive, id: 0, body: [])[0]
}
