package import NIOCore
package import Volumes

/// What a client wants of a server.
package struct ClientPlan: Sendable, Equatable {
    package enum Purpose: Sendable, Equatable {
        /// To know which exports there are.
        case list
        /// To use the export of that name; empty means the server's default.
        case enter(String)
        /// To leave NBD by `OptionType.relay`, with this data.
        case relay(ByteBuffer)
    }

    /// There is no "if it can be had": who sits between would only have to say that it can't.
    package enum TLS: Sendable, Equatable {
        case off
        case required
    }

    package var purpose: Purpose
    package var tls: TLS
    package var wantsStructuredReplies: Bool
    package var wantsExtendedHeaders: Bool
    /// What block status is wanted about; needs structured replies or extended headers. Those that the server doesn't
    /// have are missing from the agreement.
    package var contexts: [MetaContext]

    package init(
        _ purpose: Purpose, tls: TLS, wantsStructuredReplies: Bool = true, wantsExtendedHeaders: Bool = true,
        contexts: [MetaContext] = [.allocation]
    ) {
        if case .enter(let name) = purpose { precondition(name.isNBDString, "no string of the protocol") }
        precondition(contexts.allSatisfy { $0.name.isNBDString }, "no string of the protocol")
        precondition(contexts.count <= Bounds.queries, "more queries than servers take")
        self.purpose = purpose
        self.tls = tls
        self.wantsStructuredReplies = wantsStructuredReplies
        self.wantsExtendedHeaders = wantsExtendedHeaders
        self.contexts = contexts
    }
}

/// What a server gets no further than.
package struct ClientLimits: Sendable, Equatable {
    /// Requests in flight.
    package var pending = 1024
    /// Chunks in one reply. 512 bytes each, the smallest that the specification suggests, make 32 MiB of so many.
    package var chunks = 65_536
    /// Parts of a read that are told while there are gaps between them.
    package var pieces = 1024
    /// Exports in a list, of up to 8 KiB each.
    package var exports = 1024
    /// Pieces of information about an export.
    package var information = 64

    package init() {}
}

/// One connection to a server, seen by its client: newstyle handshake and transmission (NBD protocol).
///
/// A value: it is fed with what came over the connection, and says what is to be done. It holds at most one header, one
/// string or one error, and of each request in flight what was told already. A reply that no honest server sends is the
/// end of the connection: nothing of it can be believed.
///
/// Whenever bytes came, `receive` until it returns nothing. How long a server may take is the caller's to bound.
package struct ClientSession: Sendable {
    package enum Step: Sendable, Equatable {
        /// Send this.
        case send(ByteBuffer)
        /// Everything from now on goes under TLS; `tlsStarted` when its handshake is done. Fails it, close.
        case startTLS
        /// The server's exports. Send these bytes, and close.
        case listed([ListedExport], last: ByteBuffer)
        /// The server grants a relay, with this data. What follows isn't NBD's: this session is over, and takes none of it.
        case relayed(ByteBuffer)
        /// The export can be used: `request`.
        case entered(Agreement)
        /// Bytes of a read, from `offset` of the export on. A slice of what was received: copy them before the call
        /// returns to the network. Nothing of a read is certain before it has `finished`.
        case data(cookie: UInt64, offset: ByteOffset, ByteBuffer)
        /// A part of a read that is zeros.
        case hole(cookie: UInt64, Extent)
        /// The status of the next blocks: from the request's offset on at first, then from where the last ended. Ends
        /// with the export if the server says more.
        case status(cookie: UInt64, ChosenContext, [BlockStatus])
        /// All of the reply is there.
        case finished(cookie: UInt64, RequestFailure?)
        /// Send what is left to be said, and close.
        case close(Closing)
    }

    /// How a connection ended.
    package struct Closing: Sendable, Equatable {
        package enum Reason: Sendable, Equatable {
            /// `disconnect` was called, and nothing was in flight any more.
            case agreed
            /// The server said no to an option that there is no going on without; with its words.
            case refused(OptionType, OptionReplyType, String)
            /// The server was gone.
            case lost
            case violation(Violation)
        }
        package let reason: Reason
        /// To be sent before.
        package let last: ByteBuffer
    }

    enum State: Sendable, Equatable {
        case magic
        case handshakeFlags
        case optionReply(to: OptionType)
        case optionReplyData(to: OptionType, OptionReplyHeader)
        case upgrading
        /// `NBD_OPT_EXPORT_NAME` has no reply but this.
        case exportNameReply
        case replyMagic
        case replyHeader(magic: UInt32, length: Int)
        /// The fixed part of a chunk.
        case chunk(Chunk, length: Int)
        case data(cookie: UInt64, offset: UInt64, remaining: UInt64, isDone: Bool)
        case descriptors(Descriptors)
        /// The last step was not the last of its reply.
        case finishing(cookie: UInt64)
        case closed
    }

    /// What comes of a look at the input.
    enum Turn {
        case again
        case step(Step)
        /// For bytes, or for TLS.
        case wait
    }

    package let plan: ClientPlan
    package let limits: ClientLimits
    var state = State.magic
    var intake = Intake()
    var noZeroes = false
    var isUnderTLS = false
    var isLeaving = false
    var isServerLeaving = false
    var style = ReplyStyle.simple
    var told = Told()
    var rules: RequestRules?
    var pending: [UInt64: Pending] = [:]
    var lastCookie: UInt64 = 0

    /// What the replies to an option have said so far.
    struct Told {
        var exports: [ListedExport] = []
        var contexts: [ChosenContext] = []
        var export: (size: UInt64, flags: TransmissionFlags)?
        var blockSizes = BlockSizes.standard
        var information = 0
        var grant: ByteBuffer?
    }

    package init(_ plan: ClientPlan, limits: ClientLimits = ClientLimits()) {
        self.plan = plan
        self.limits = limits
    }

    /// What the handshake ended with, once it has.
    package var agreement: Agreement? { rules?.agreement }

    /// Whether anything more will be made of the connection.
    package var isClosed: Bool { state == .closed }

    /// Requests whose replies aren't there; after the end of the connection they never will be.
    package var pendingCookies: [UInt64] { pending.keys.sorted() }

    /// Whether the server refused a request because it is about to stop: what is in flight is to be waited for, then
    /// `disconnect` (NBD protocol, "Terminating the transmission phase").
    package var mustLeave: Bool { isServerLeaving }

    /// Bytes of an unfinished message.
    var heldBytes: Int { intake.count }

    /// Bytes came.
    /// - Parameter input: Its reader is moved over what was used.
    /// - Returns: Nothing if more bytes are needed.
    package mutating func receive(_ input: inout ByteBuffer) -> Step? {
        do throws(Violation) {
            while true {
                switch try advance(&input) {
                case .again: continue
                case .step(let step): return step
                case .wait: return nil
                }
            }
        } catch {
            return .close(end(.violation(error)))
        }
    }

    /// The connection's other end is gone.
    /// - Returns: Nothing if it had been closed anyway.
    package mutating func inputEnded() -> Closing? {
        if isClosed { return nil }
        return end(isLeaving && pending.isEmpty ? .agreed : .lost)
    }

    /// TLS stands, and the server is who it should be. Then the handshake goes on.
    package mutating func tlsStarted() -> Step {
        guard state == .upgrading else { preconditionFailure("TLS was not asked for") }
        isUnderTLS = true
        return ask(after: .startTLS)
    }

    /// Ends the transmission; `NBD_CMD_DISC` is the last that is sent. What is in flight is still answered.
    package mutating func disconnect() -> ByteBuffer {
        guard rules != nil, !isLeaving, !isClosed else { preconditionFailure("there is nothing to disconnect") }
        isLeaving = true
        var bytes = ByteBuffer()
        RequestHeader(flags: [], type: CommandType.disconnect.rawValue, cookie: 0, offset: 0, length: 0)
            .write(to: &bytes, in: style)
        return bytes
    }

    private mutating func advance(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        switch state {
        case .magic: return try takeMagic(&input)
        case .handshakeFlags: return try takeHandshakeFlags(&input)
        case .optionReply(let option): return try takeOptionReply(to: option, &input)
        case .optionReplyData(let option, let header):
            guard var data = intake.take(Int(header.length), from: &input) else { return .wait }
            return try take(header, to: option, &data, isLast: input.readableBytes == 0)
        case .upgrading:
            guard input.readableBytes == 0 else { throw .clearAfterStartTLS }
            return .wait
        case .exportNameReply: return try takeExportNameReply(&input)
        case .replyMagic: return try takeReplyMagic(&input)
        case .replyHeader(let magic, let length):
            guard var bytes = intake.take(length - ReplyHeader.magicLength, from: &input),
                let header = ReplyHeader(magic, from: &bytes)
            else { return .wait }
            return try begin(header)
        case .chunk(let chunk, let length):
            guard var bytes = intake.take(length, from: &input) else { return .wait }
            return try take(chunk, &bytes)
        case .data(let cookie, let offset, let remaining, let isDone):
            return takeData(cookie, offset, remaining, isDone, &input)
        case .descriptors(let descriptors): return try take(descriptors, &input)
        case .finishing(let cookie): return .step(try finish(cookie))
        case .closed:
            // Whoever goes on after the end talks to nobody.
            input.moveReaderIndex(to: input.writerIndex)
            return .wait
        }
    }

    mutating func end(_ reason: Closing.Reason, last: ByteBuffer = ByteBuffer()) -> Closing {
        state = .closed
        intake = Intake()
        return Closing(reason: reason, last: last)
    }
}
