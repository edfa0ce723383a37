internal import NIOCore

/// What is to be sent, until it goes out with all else of the same turn of the event loop.
struct Outbox {
    /// Small pieces are put together up to this: the kernel takes one long piece sooner than many short ones.
    private static let smallPiece = 512
    private static let joinedPiece = 8192

    /// The last piece, which carries the promise for all of its turn.
    private var tail: ByteBuffer?
    /// What goes out with the next flush.
    private var requests = 0
    private var bytes = 0

    var isEmpty: Bool { tail == nil }

    /// - Parameter write: Hands a piece to the network.
    mutating func add(_ piece: ByteBuffer, _ write: (ByteBuffer) -> Void) {
        guard piece.readableBytes > 0 else { return }
        bytes += piece.readableBytes
        guard let last = tail else {
            tail = piece
            return
        }
        if piece.readableBytes <= Self.smallPiece, last.readableBytes + piece.readableBytes <= Self.joinedPiece {
            tail?.writeImmutableBuffer(piece)
        } else {
            write(last)
            tail = piece
        }
    }

    /// A request's reply is complete.
    mutating func endReply() { requests += 1 }

    /// What is left to be written, and what is over when it was.
    mutating func take() -> (last: ByteBuffer, requests: Int, bytes: Int)? {
        guard let last = tail else { return nil }
        defer { self = Outbox() }
        return (last, requests, bytes)
    }
}
