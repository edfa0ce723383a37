/// Sent by the server after its magic. NBD protocol, "Handshake flags".
struct HandshakeFlags: OptionSet, Sendable {
    let rawValue: UInt16
    /// `NBD_FLAG_FIXED_NEWSTYLE`
    static let fixedNewstyle = Self(rawValue: 1 << 0)
    /// `NBD_FLAG_NO_ZEROES`
    static let noZeroes = Self(rawValue: 1 << 1)
}

/// The client's answer to them. NBD protocol, "Client flags".
struct ClientFlags: OptionSet, Sendable {
    let rawValue: UInt32
    /// `NBD_FLAG_C_FIXED_NEWSTYLE`
    static let fixedNewstyle = Self(rawValue: 1 << 0)
    /// `NBD_FLAG_C_NO_ZEROES`
    static let noZeroes = Self(rawValue: 1 << 1)
    static let known: Self = [.fixedNewstyle, .noZeroes]
}

/// What an export is able to. NBD protocol, "Transmission flags".
package struct TransmissionFlags: OptionSet, Sendable, Hashable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// `NBD_FLAG_HAS_FLAGS`
    package static let hasFlags = Self(rawValue: 1 << 0)
    /// `NBD_FLAG_READ_ONLY`
    package static let readOnly = Self(rawValue: 1 << 1)
    /// `NBD_FLAG_SEND_FLUSH`
    package static let flush = Self(rawValue: 1 << 2)
    /// `NBD_FLAG_SEND_FUA`
    package static let fua = Self(rawValue: 1 << 3)
    /// `NBD_FLAG_ROTATIONAL`
    package static let rotational = Self(rawValue: 1 << 4)
    /// `NBD_FLAG_SEND_TRIM`
    package static let trim = Self(rawValue: 1 << 5)
    /// `NBD_FLAG_SEND_WRITE_ZEROES`
    package static let writeZeroes = Self(rawValue: 1 << 6)
    /// `NBD_FLAG_SEND_DF`
    package static let df = Self(rawValue: 1 << 7)
    /// `NBD_FLAG_CAN_MULTI_CONN`
    package static let multiConn = Self(rawValue: 1 << 8)
    /// `NBD_FLAG_SEND_CACHE`
    package static let cache = Self(rawValue: 1 << 10)
    /// `NBD_FLAG_SEND_FAST_ZERO`
    package static let fastZero = Self(rawValue: 1 << 11)
    /// `NBD_FLAG_BLOCK_STATUS_PAYLOAD`, extension EXTENDED_HEADERS.
    package static let blockStatusPayload = Self(rawValue: 1 << 12)
}

/// NBD protocol, "Command flags".
package struct CommandFlags: OptionSet, Sendable, Hashable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// `NBD_CMD_FLAG_FUA`
    package static let fua = Self(rawValue: 1 << 0)
    /// `NBD_CMD_FLAG_NO_HOLE`
    package static let noHole = Self(rawValue: 1 << 1)
    /// `NBD_CMD_FLAG_DF`
    package static let df = Self(rawValue: 1 << 2)
    /// `NBD_CMD_FLAG_REQ_ONE`
    package static let reqOne = Self(rawValue: 1 << 3)
    /// `NBD_CMD_FLAG_FAST_ZERO`
    package static let fastZero = Self(rawValue: 1 << 4)
    /// `NBD_CMD_FLAG_PAYLOAD_LEN`, extension EXTENDED_HEADERS.
    package static let payloadLen = Self(rawValue: 1 << 5)
}

/// NBD protocol, "Structured reply flags".
struct ReplyFlags: OptionSet, Sendable {
    let rawValue: UInt16
    /// `NBD_REPLY_FLAG_DONE`
    static let done = Self(rawValue: 1 << 0)
}
