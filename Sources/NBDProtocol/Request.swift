package import Volumes

/// What a client asks of its export, after it was found to be in order.
package struct Request: Sendable, Equatable {
    package enum Command: Sendable, Equatable {
        /// `NBD_CMD_READ`. To be answered by a `ReadReply`.
        case read(Extent)
        /// `NBD_CMD_WRITE`. Its bytes come in `ServerSession.Step.payload`.
        case write(Extent)
        /// `NBD_CMD_FLUSH`
        case flush
        /// `NBD_CMD_TRIM`
        case trim(Extent)
        /// `NBD_CMD_CACHE`
        case cache(Extent)
        /// `NBD_CMD_WRITE_ZEROES`
        /// - Parameters:
        ///   - noHole: `NBD_CMD_FLAG_NO_HOLE`: the room stays taken.
        ///   - fast: `NBD_CMD_FLAG_FAST_ZERO`: `NBD_ENOTSUP` at once unless it takes less time than writing.
        case writeZeroes(Extent, noHole: Bool, fast: Bool)
        /// `NBD_CMD_BLOCK_STATUS`
        /// - Parameter contexts: Which are asked about, each once; never none.
        case blockStatus(Extent, contexts: [ChosenContext])

        /// The bytes that it is about.
        package var extent: Extent? {
            switch self {
            case .read(let extent), .write(let extent), .trim(let extent), .cache(let extent),
                .writeZeroes(let extent, _, _), .blockStatus(let extent, _):
                extent
            case .flush: nil
            }
        }
    }

    package let command: Command
    /// `NBD_CMD_FLAG_FUA`: no reply before what it wrote is on stable storage.
    package let isFUA: Bool
    /// `NBD_CMD_FLAG_DF`, of reads: at most one content chunk.
    package let isUnfragmented: Bool
    /// `NBD_CMD_FLAG_REQ_ONE`, of block status: one descriptor for each context.
    package let isReqOne: Bool
    /// The client's own, returned with every reply.
    package let cookie: UInt64
    /// As on the wire, which extended replies repeat.
    let offset: UInt64

    /// The bytes that it is about.
    package var extent: Extent? { command.extent }
}

/// Why a request can't be carried out, or not even be sent.
package struct Refusal: Error, Sendable, Equatable {
    package let error: ErrorValue
    /// For people.
    package let message: String

    init(_ error: ErrorValue, _ message: String) { (self.error, self.message) = (error, message) }
}
