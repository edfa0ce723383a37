package import NIOCore

/// What a server allows its clients.
package struct ServerPolicy: Sendable, Equatable {
    /// NBD protocol, "Server-side requirements". Consistent over a connection: the session can't be given another.
    package enum TLS: Sendable, Equatable {
        /// NOTLS
        case off
        /// SELECTIVETLS: the exports that need it are named by `ExportAnswer.needsTLS`.
        case offered
        /// FORCEDTLS
        case required
    }

    package var tls: TLS
    /// Whether `NBD_OPT_LIST` is answered.
    package var showsExports: Bool
    package var offersStructuredReplies: Bool
    package var offersExtendedHeaders: Bool
    /// Whether `OptionType.relay` is known.
    package var offersRelay: Bool

    package init(
        tls: TLS, showsExports: Bool = true, offersStructuredReplies: Bool = true, offersExtendedHeaders: Bool = true,
        offersRelay: Bool = false
    ) {
        self.tls = tls
        self.showsExports = showsExports
        self.offersStructuredReplies = offersStructuredReplies
        self.offersExtendedHeaders = offersExtendedHeaders
        self.offersRelay = offersRelay
    }
}

/// One client's connection, seen by the server: fixed newstyle handshake and transmission (NBD protocol).
///
/// A value: it is fed with what came over the connection, and says what is to be done. Replies to requests are not its
/// business but a `ReplyEncoder`'s. It holds at most one option's data (64 KiB) or one header.
///
/// Send `greeting`, then: whenever bytes came, `receive` until it returns nothing, doing each step before the next call.
/// What it leaves unread is to be given again, first, after the step's answer (`exports`, `answer`, `tlsStarted`).
/// A limit on requests in flight is kept by not calling it. How long a client may take is the caller's to bound.
package struct ServerSession: Sendable {
    package enum Step: Sendable, Equatable {
        /// Send this.
        case send(ByteBuffer)
        /// Send this in clear, then everything under TLS; `tlsStarted` when its handshake is done. Fails it, close.
        case startTLS(ByteBuffer)
        /// Which exports are there? `exports` is the answer.
        case list
        /// What is that export? `answer` is the answer.
        case find(ExportQuestion)
        /// `OptionType.relay` came with this data. Is it granted? `answer` is the answer.
        case relay(ByteBuffer)
        /// Send this; what follows isn't NBD's: this session is over, and takes none of it.
        case relayed(ByteBuffer)
        /// Send this; what follows are requests.
        case enter(Agreement, ByteBuffer)
        /// Carry it out, and reply by a `ReplyEncoder`.
        case request(Request)
        /// More of what the last request, a write, is to write; it is complete when no bytes remain.
        ///
        /// The bytes are a slice of what was received: copy them before the call returns to the network.
        case payload(ByteBuffer, remaining: Int)
        /// Send what is left to be said, reply to what is in flight if the client asked for the end, close.
        case close(Closing)
    }

    /// How a connection ended.
    package struct Closing: Sendable, Equatable {
        package enum Reason: Sendable, Equatable {
            /// The client said so: `NBD_OPT_ABORT`, `NBD_CMD_DISC`.
            case agreed
            /// The export can't be had, which `NBD_OPT_EXPORT_NAME` can't be told otherwise.
            case noExport
            /// The peer was gone.
            case lost
            case violation(Violation)
        }
        package let reason: Reason
        /// To be sent before.
        package let last: ByteBuffer
    }

    enum State: Sendable, Equatable {
        case clientFlags
        case option
        case optionData(OptionHeader)
        /// Reads an option's data over, then answers.
        case skippingOption(OptionHeader, remaining: Int, OptionAnswer)
        case upgrading
        case listing
        case finding(Search)
        case granting
        case request
        case payload(remaining: Int)
        /// `NBD_CMD_BLOCK_STATUS` with a list of contexts.
        case contexts(RequestHeader)
        case skippingPayload(RequestHeader, remaining: Int, Refusal)
        case closed
    }

    /// What comes of a look at the input.
    enum Turn {
        case again
        case step(Step)
        /// For bytes, or for an answer.
        case wait
    }

    package let policy: ServerPolicy
    var state = State.clientFlags
    var intake = Intake()
    var options = 0
    var clientFlags: ClientFlags = []
    var isUnderTLS = false
    var isShuttingDown = false
    var style = ReplyStyle.simple
    /// What the last `NBD_OPT_SET_META_CONTEXT` chose, and for which export.
    var selection: (name: String, contexts: [ChosenContext])?
    var rules: RequestRules?

    package init(_ policy: ServerPolicy) { self.policy = policy }

    /// Sent before anything is received. NBD protocol, "Newstyle negotiation".
    package var greeting: ByteBuffer {
        var bytes = ByteBuffer()
        let flags: HandshakeFlags = [.fixedNewstyle, .noZeroes]
        bytes.writeMultipleIntegers(Magic.initial, Magic.option, flags.rawValue)
        return bytes
    }

    /// What the handshake ended with, once it has.
    package var agreement: Agreement? { rules?.agreement }

    /// Whether anything more will be made of the connection.
    package var isClosed: Bool { state == .closed }

    /// Bytes of an unfinished message.
    var heldBytes: Int { intake.count }

    /// Bytes came, or are still there.
    /// - Parameter input: Its reader is moved over what was used.
    /// - Returns: Nothing if more bytes are needed, or an answer to the step before.
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
    package mutating func inputEnded() -> Closing? { isClosed ? nil : end(.lost) }

    /// From now on options and requests are refused with `NBD_REP_ERR_SHUTDOWN` and `NBD_ESHUTDOWN`.
    package mutating func shutDown() { isShuttingDown = true }

    /// TLS stands: what came before it doesn't count any more (NBD protocol, `NBD_OPT_STARTTLS`).
    package mutating func tlsStarted() {
        guard state == .upgrading else { preconditionFailure("TLS was not asked for") }
        isUnderTLS = true
        style = .simple
        selection = nil
        state = .option
    }

    private mutating func advance(_ input: inout ByteBuffer) throws(Violation) -> Turn {
        switch state {
        case .clientFlags: return try takeClientFlags(&input)
        case .option: return try takeOption(&input)
        case .optionData(let header):
            guard var data = intake.take(Int(header.length), from: &input) else { return .wait }
            return try handle(header, &data, isLast: input.readableBytes == 0)
        case .skippingOption(let header, let remaining, let answer):
            let rest = skip(remaining, of: &input)
            state = .skippingOption(header, remaining: rest, answer)
            return rest == 0 ? .step(finish(header, answer)) : .wait
        case .upgrading:
            guard input.readableBytes == 0 else { throw .clearAfterStartTLS }
            return .wait
        case .listing, .finding, .granting: return .wait
        case .request: return try takeRequest(&input)
        case .payload(let remaining): return takePayload(remaining, &input)
        case .contexts(let header): return takeContexts(header, &input)
        case .skippingPayload(let header, let remaining, let refusal):
            let rest = skip(remaining, of: &input)
            state = .skippingPayload(header, remaining: rest, refusal)
            return rest == 0 ? .step(refuse(header, refusal)) : .wait
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

    /// Reads over what nobody wants, and holds none of it.
    private func skip(_ remaining: Int, of input: inout ByteBuffer) -> Int {
        let count = min(remaining, input.readableBytes)
        input.moveReaderIndex(forwardBy: count)
        return remaining - count
    }
}
