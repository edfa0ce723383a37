/// NBD protocol, "Option types".
package enum OptionType: UInt32, Sendable, CaseIterable {
    /// `NBD_OPT_EXPORT_NAME`
    case exportName = 1
    /// `NBD_OPT_ABORT`
    case abort = 2
    /// `NBD_OPT_LIST`
    case list = 3
    /// `NBD_OPT_STARTTLS`
    case startTLS = 5
    /// `NBD_OPT_INFO`
    case info = 6
    /// `NBD_OPT_GO`
    case go = 7
    /// `NBD_OPT_STRUCTURED_REPLY`
    case structuredReply = 8
    /// `NBD_OPT_LIST_META_CONTEXT`
    case listMetaContext = 9
    /// `NBD_OPT_SET_META_CONTEXT`
    case setMetaContext = 10
    /// `NBD_OPT_EXTENDED_HEADERS`, extension EXTENDED_HEADERS.
    case extendedHeaders = 11
    /// Godwit's own, "GODW": a move to another Godwit (Docs/Protocol.md). The specification leaves no numbers for private
    /// use; those of registered options are small, and whoever doesn't know one says `NBD_REP_ERR_UNSUP`.
    case relay = 0x474f_4457

    /// As the specification calls it.
    package var name: String {
        switch self {
        case .exportName: "NBD_OPT_EXPORT_NAME"
        case .abort: "NBD_OPT_ABORT"
        case .list: "NBD_OPT_LIST"
        case .startTLS: "NBD_OPT_STARTTLS"
        case .info: "NBD_OPT_INFO"
        case .go: "NBD_OPT_GO"
        case .structuredReply: "NBD_OPT_STRUCTURED_REPLY"
        case .listMetaContext: "NBD_OPT_LIST_META_CONTEXT"
        case .setMetaContext: "NBD_OPT_SET_META_CONTEXT"
        case .extendedHeaders: "NBD_OPT_EXTENDED_HEADERS"
        case .relay: "Godwit's relay option"
        }
    }
}

/// NBD protocol, "Option reply types". Raw, so that a client can tell errors that it doesn't know.
package struct OptionReplyType: RawRepresentable, Sendable, Hashable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    private init(error: UInt32) { rawValue = 1 << 31 + error }

    /// `NBD_REP_ACK`
    package static let ack = Self(rawValue: 1)
    /// `NBD_REP_SERVER`
    package static let server = Self(rawValue: 2)
    /// `NBD_REP_INFO`
    package static let info = Self(rawValue: 3)
    /// `NBD_REP_META_CONTEXT`
    package static let metaContext = Self(rawValue: 4)
    /// Godwit's own: what the server grants, before the `NBD_REP_ACK` to `OptionType.relay`.
    package static let relay = Self(rawValue: OptionType.relay.rawValue)
    /// `NBD_REP_ERR_UNSUP`
    package static let unsupported = Self(error: 1)
    /// `NBD_REP_ERR_POLICY`
    package static let policy = Self(error: 2)
    /// `NBD_REP_ERR_INVALID`
    package static let invalid = Self(error: 3)
    /// `NBD_REP_ERR_PLATFORM`
    package static let platform = Self(error: 4)
    /// `NBD_REP_ERR_TLS_REQD`
    package static let tlsRequired = Self(error: 5)
    /// `NBD_REP_ERR_UNKNOWN`
    package static let unknown = Self(error: 6)
    /// `NBD_REP_ERR_SHUTDOWN`
    package static let shutdown = Self(error: 7)
    /// `NBD_REP_ERR_BLOCK_SIZE_REQD`
    package static let blockSizeRequired = Self(error: 8)
    /// `NBD_REP_ERR_TOO_BIG`
    package static let tooBig = Self(error: 9)
    /// `NBD_REP_ERR_EXT_HEADER_REQD`, extension EXTENDED_HEADERS.
    package static let extendedHeadersRequired = Self(error: 10)

    package var isError: Bool { rawValue & 1 << 31 != 0 }
}

/// What is told of an export. NBD protocol, `NBD_REP_INFO`.
enum InformationType: UInt16, Sendable {
    /// `NBD_INFO_EXPORT`
    case export = 0
    /// `NBD_INFO_NAME`
    case name = 1
    /// `NBD_INFO_DESCRIPTION`
    case description = 2
    /// `NBD_INFO_BLOCK_SIZE`
    case blockSize = 3
}
