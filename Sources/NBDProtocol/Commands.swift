package import Volumes

/// NBD protocol, "Request types".
package enum CommandType: UInt16, Sendable, CaseIterable {
    /// `NBD_CMD_READ`
    case read = 0
    /// `NBD_CMD_WRITE`
    case write = 1
    /// `NBD_CMD_DISC`
    case disconnect = 2
    /// `NBD_CMD_FLUSH`
    case flush = 3
    /// `NBD_CMD_TRIM`
    case trim = 4
    /// `NBD_CMD_CACHE`
    case cache = 5
    /// `NBD_CMD_WRITE_ZEROES`
    case writeZeroes = 6
    /// `NBD_CMD_BLOCK_STATUS`
    case blockStatus = 7
}

/// NBD protocol, "Structured reply types". Raw, so that errors of unknown types can be told.
struct ChunkType: RawRepresentable, Sendable, Hashable {
    let rawValue: UInt16
    /// `NBD_REPLY_TYPE_NONE`
    static let none = Self(rawValue: 0)
    /// `NBD_REPLY_TYPE_OFFSET_DATA`
    static let offsetData = Self(rawValue: 1)
    /// `NBD_REPLY_TYPE_OFFSET_HOLE`
    static let offsetHole = Self(rawValue: 2)
    /// `NBD_REPLY_TYPE_BLOCK_STATUS`
    static let blockStatus = Self(rawValue: 5)
    /// `NBD_REPLY_TYPE_BLOCK_STATUS_EXT`, extension EXTENDED_HEADERS.
    static let blockStatusExt = Self(rawValue: 6)
    /// `NBD_REPLY_TYPE_ERROR`
    static let error = Self(rawValue: 1 << 15 + 1)
    /// `NBD_REPLY_TYPE_ERROR_OFFSET`
    static let errorOffset = Self(rawValue: 1 << 15 + 2)

    var isError: Bool { rawValue & 1 << 15 != 0 }
}

/// NBD protocol, "Error values".
package enum ErrorValue: UInt32, Sendable, CaseIterable {
    /// `NBD_EPERM`
    case notPermitted = 1
    /// `NBD_EIO`
    case io = 5
    /// `NBD_ENOMEM`
    case noMemory = 12
    /// `NBD_EINVAL`
    case invalid = 22
    /// `NBD_ENOSPC`
    case noSpace = 28
    /// `NBD_EOVERFLOW`
    case overflow = 75
    /// `NBD_ENOTSUP`
    case notSupported = 95
    /// `NBD_ESHUTDOWN`
    case shutdown = 108

    /// An unexpected value is taken for `NBD_EINVAL`, as the specification asks of clients.
    init(wire: UInt32) { self = Self(rawValue: wire) ?? .invalid }

    /// What a client is told of a volume's error. `NBD_ENOTSUP` is for fast zeroing alone, so what a volume can't do is
    /// invalid.
    package init(_ kind: VolumeError.Kind) {
        self =
            switch kind {
            case .forbidden: .notPermitted
            case .full: .noSpace
            case .unsupported, .exists: .invalid
            case .missing, .unreachable, .busy, .damaged, .failed: .io
            }
    }

    /// What it means to whoever uses the export as a volume.
    package var kind: VolumeError.Kind {
        switch self {
        case .notPermitted: .forbidden
        case .io, .noMemory: .failed
        case .invalid, .overflow, .notSupported: .unsupported
        case .noSpace: .full
        case .shutdown: .unreachable
        }
    }
}
