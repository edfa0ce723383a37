internal import Credentials
internal import Glibc
package import NBDProtocol
internal import NIOCore
internal import NIOPosix
package import Volumes

/// Why a connection can't be used any more.
package struct End: Sendable {
    let kind: VolumeError.Kind
    let reason: String
    let advice: String?

    package init(_ kind: VolumeError.Kind, _ reason: String, advice: String? = nil) {
        (self.kind, self.reason, self.advice) = (kind, reason, advice)
    }

    /// - Parameter isEntered: Whether the handshake had come to its end.
    package init(_ closing: ClientSession.Closing.Reason, isEntered: Bool) {
        switch closing {
        case .agreed: self.init(.failed, "the connection was ended")
        case .lost where isEntered:
            self.init(.unreachable, "the server closed the connection", advice: "See whether it still runs.")
        case .violation(.notFixedNewstyle):
            self.init(
                .unsupported, "the server speaks too old a form of NBD for TLS",
                advice: "Only nbd:… and godwit:… are used in clear, over a way you trust.")
        case .lost:
            self.init(
                .unreachable, "the server closed the connection during the handshake",
                advice: "See what the server's log says: it may serve others only, or so many clients at a time.")
        case .violation(let violation):
            self.init(
                .damaged, "the server broke the NBD protocol: \(violation)",
                advice: "See that an NBD server listens there, and of which version it is.")
        case .refused(let option, let type, let message): self.init(option, type, message)
        }
    }

    private init(_ option: OptionType, _ type: OptionReplyType, _ message: String) {
        // The server's own words, as one line.
        let words = message.split(whereSeparator: \.isNewline).joined(separator: " ")
        let said = words.isEmpty ? "" : ": \(words)"
        switch type {
        case .unknown:
            self.init(.missing, "the server has no such export\(said)", advice: "'nbdinfo --list' shows those it has.")
        case .tlsRequired:
            self.init(
                .forbidden, "the server demands TLS\(said)",
                advice: "Write nbds:// for nbd://, or nbds+unix:// for nbd+unix://.")
        case _ where option == .startTLS:
            // Whoever sits between could say so, too: there is no going on in clear.
            self.init(
                .unsupported, "the server refused TLS\(said)",
                advice: "Have it serve under TLS. Only nbd:… and godwit:… are used in clear, over a way you trust.")
        case .policy: self.init(.forbidden, "the server's policy forbids it\(said)")
        case .shutdown: self.init(.unreachable, "the server is about to stop\(said)")
        default: self.init(.unsupported, "the server refused \(option.name)\(said)")
        }
    }

    init(_ failure: TLSFailure, advice: String) {
        let kind: VolumeError.Kind =
            switch failure.cause {
            case .untrusted, .expired, .otherName, .refused: .forbidden
            case .noTLS, .otherVersion: .unsupported
            case .lost, .other: .unreachable
            }
        self.init(kind, "no TLS with the server: \(failure.reason)", advice: advice)
    }

    /// What NIO says of a connection, or of the attempt to make one.
    package init(_ error: any Error) {
        switch error {
        case let error as NIOConnectionError:
            if let first = error.connectionErrors.first {
                self.init(first.error)
            } else {
                self.init(.missing, "no such host: \(error.host)")
            }
        case let error as IOError: self.init(errno: error.errnoCode)
        case ChannelError.connectTimeout: self.init(.unreachable, "no connection came about in time")
        case is ChannelError: self.init(.unreachable, "the connection is closed")
        default: self.init(.unreachable, "\(error)")
        }
    }

    private init(errno code: Int32) {
        // glibc's strerror is safe to call from any thread since 2.32: the text is the thread's own.
        let reason = unsafe String(cString: strerror(code))
        switch code {
        case ENOENT, ENOTDIR, ENOTSOCK: self.init(.missing, reason, advice: "Give the path of the server's socket.")
        case ECONNREFUSED: self.init(.unreachable, reason, advice: "Nobody listens there: start the server.")
        case EACCES, EPERM:
            self.init(.forbidden, reason, advice: "The socket and its folder must let in the user that Godwit runs as.")
        case ECONNRESET, EPIPE: self.init(.unreachable, reason, advice: "See whether the server still runs.")
        default: self.init(.unreachable, reason)
        }
    }

    package func error(_ operation: String, on object: String) -> VolumeError {
        VolumeError(kind, operation, on: object, reason: reason, advice: advice)
    }
}

extension VolumeError {
    /// - Parameter title: The address.
    init(_ failure: RequestFailure, to command: Request.Command, on title: String) {
        let place = failure.offset ?? command.extent?.offset
        let words = failure.message.split(whereSeparator: \.isNewline).joined(separator: " ")
        self.init(
            failure.error.kind, command.name, on: command.object(title, at: place),
            reason: failure.error.words + (words.isEmpty ? "" : ": \(words)"), advice: failure.error.advice)
    }

    init(_ refusal: Refusal, to command: Request.Command, on title: String) {
        self.init(
            refusal.error.kind, command.name, on: command.object(title, at: command.extent?.offset),
            reason: refusal.message)
    }
}

extension Request.Command {
    /// As the specification names it.
    var name: String {
        switch self {
        case .read: "NBD_CMD_READ"
        case .write: "NBD_CMD_WRITE"
        case .flush: "NBD_CMD_FLUSH"
        case .trim: "NBD_CMD_TRIM"
        case .cache: "NBD_CMD_CACHE"
        case .writeZeroes: "NBD_CMD_WRITE_ZEROES"
        case .blockStatus: "NBD_CMD_BLOCK_STATUS"
        }
    }

    func object(_ title: String, at place: ByteOffset?) -> String {
        place.map { "\(title) at byte \($0.bytes)" } ?? title
    }
}

extension ErrorValue {
    /// As the specification explains it.
    fileprivate var words: String {
        switch self {
        case .notPermitted: "the server doesn't permit it"
        case .io: "an error of the server's disk"
        case .noMemory: "the server has no memory for it"
        case .invalid: "the server takes it for invalid"
        case .noSpace: "the server's disk is full"
        case .overflow: "the server takes it for too long"
        case .notSupported: "the server doesn't support it"
        case .shutdown: "the server is about to stop"
        }
    }

    fileprivate var advice: String? {
        switch self {
        case .io, .noMemory, .invalid, .overflow, .notSupported: "The server's log may say more."
        case .noSpace: "Make room where the server keeps its data."
        case .notPermitted: "See whether the server exports it for writing."
        case .shutdown: "Start it again."
        }
    }
}
