/// The numbers that begin messages. NBD protocol, "Handshake" and "Transmission".
enum Magic {
    /// `INIT_PASSWD`, "NBDMAGIC": the first eight bytes of every server.
    static let initial: UInt64 = 0x4e42_444d_4147_4943
    /// "IHAVEOPT": the server is newstyle; also begins each option.
    static let option: UInt64 = 0x4948_4156_454f_5054
    /// `cliserv_magic`: the server is oldstyle.
    static let oldstyle: UInt64 = 0x0000_4202_8186_1253
    /// Begins each reply to an option.
    static let optionReply: UInt64 = 0x0003_e889_0455_65a9
    /// `NBD_REQUEST_MAGIC`
    static let request: UInt32 = 0x2560_9513
    /// `NBD_EXTENDED_REQUEST_MAGIC`, extension EXTENDED_HEADERS.
    static let extendedRequest: UInt32 = 0x21e4_1c71
    /// `NBD_SIMPLE_REPLY_MAGIC`
    static let simpleReply: UInt32 = 0x6744_6698
    /// `NBD_STRUCTURED_REPLY_MAGIC`
    static let structuredReply: UInt32 = 0x668e_33ef
    /// `NBD_EXTENDED_REPLY_MAGIC`, extension EXTENDED_HEADERS.
    static let extendedReply: UInt32 = 0x6e8a_278c
}

/// What no peer gets past, whatever it announces.
package enum Bounds {
    /// Bytes in a string. NBD protocol, "Conventions".
    package static let string = 4096
    /// Bytes of an option's data that are held: a name of 4096 bytes and a dozen queries as long. What is longer is read
    /// over, up to `skippedOption`.
    package static let option = 65_536
    /// Bytes of an option's data that are read over before it is refused; beyond that the connection ends.
    package static let skippedOption = 1 << 20
    /// Options of one client. nbdinfo asks three for each export that it lists.
    package static let options = 4096
    /// Queries in one request for metadata contexts.
    package static let queries = 64
    /// Bytes of a payload in either direction, the default of "Size constraints" in the NBD protocol.
    package static let payload: UInt32 = 1 << 25
    /// The largest minimum block size. NBD protocol, "Size constraints".
    package static let minimumBlock: UInt32 = 1 << 16
    /// Descriptors in a block status chunk. NBD protocol, `NBD_REPLY_TYPE_BLOCK_STATUS`.
    package static let descriptors = 1 << 20
    /// Reads with `NBD_CMD_FLAG_DF` up to so many bytes must be answered whole. NBD protocol, `NBD_CMD_READ`.
    package static let unfragmented: UInt32 = 65_536
}
