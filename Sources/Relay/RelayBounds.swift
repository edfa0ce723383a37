package import Volumes

/// What neither end gets past, whatever it announces (Docs/Protocol.md, "Bounds").
package enum RelayBounds {
    /// Of the protocol; both ends must have the same.
    package static let version: UInt16 = 1
    /// Bytes of one payload as it is in the volume.
    package static let payload = 4 << 20
    /// Bytes of all payloads of one frame as they go over the wire. One that is alone may be `payload` long.
    package static let stored = 8 << 20
    /// Bytes of all payloads of one frame as they are in the volume: what their decompression may take.
    package static let plain = 32 << 20
    /// Extents in one frame.
    package static let changes = 1024
    /// Bytes of a body that holds no payloads: records, descriptions, lists.
    package static let control = 16 << 20
    /// Bytes of a body that holds a few numbers and names.
    package static let small = 16 << 10
    /// What extents, digests and reads are asked for at once.
    package static let window = ByteCount.gibibytes(1)
    package static let digested = ByteCount.mebibytes(16)
    /// Bytes that one digest is of, at least.
    package static let digestChunk = ByteCount.kibibytes(4)
    /// States that are open at a time.
    package static let readers = 64
    /// Connections of one session.
    package static let connections = 16
    /// Requests of one connection that are under way.
    package static let requests = 128
    /// Bytes of a session's token.
    package static let token = 16
    /// Bytes of an error's text; what is longer is cut by whoever sends it.
    package static let message = 4096
}

/// How the peer broke the protocol. There is no going on after it.
package enum RelayViolation: Error, Sendable, Equatable {
    /// A frame doesn't begin as it must: junk, or the place in the stream is lost.
    case magic(UInt32)
    /// A kind or a status that doesn't exist.
    case unknown(String, UInt16)
    /// More was announced than is waited for.
    case tooLong(String, announced: Int, most: Int)
    /// A frame contradicts itself.
    case malformed(String)
    /// No request in flight has this number.
    case unknownID(UInt64)
}

extension RelayViolation: CustomStringConvertible {
    package var description: String {
        switch self {
        case .magic(let found): "a frame begins with 0x\(String(found, radix: 16)), which has no place there"
        case .unknown(let what, let number): "no \(what) has the number \(number)"
        case .tooLong(let what, let announced, let most):
            "\(what) of \(announced) bytes, when at most \(most) are taken"
        case .malformed(let what): "\(what) of no shape"
        case .unknownID(let id): "a reply to request \(id), which nobody waits for"
        }
    }
}
