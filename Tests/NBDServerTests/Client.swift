import Glibc
import NBDProtocol
import NIOCore
import Sockets
import Volumes

/// A connected descriptor, read and written with a limit of time. Its calls block.
final class RawClient {
    /// Long: other tests may keep all processors busy.
    static let patience: Int32 = 20_000

    let descriptor: Int32
    private var isClosed = false

    init(_ path: String) throws {
        guard let descriptor = try UnixSocket.connected(to: path) else { throw Gone() }
        self.descriptor = descriptor
    }

    init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close() }

    /// The other end closed the connection, or there was none.
    struct Gone: Error {}
    struct TooLate: Error {}

    func close() {
        if !isClosed { Glibc.close(descriptor) }
        isClosed = true
    }

    func endOutput() { _ = shutdown(descriptor, Int32(SHUT_WR)) }

    private func wait(for events: Int32, _ milliseconds: Int32) -> Bool {
        var set = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        return unsafe poll(&set, 1, milliseconds) > 0
    }

    func send(_ bytes: ByteBuffer) throws {
        var rest = bytes.readableBytesView
        while !rest.isEmpty {
            let sent = unsafe rest.withUnsafeBytes {
                unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if sent < 0, errno == EAGAIN {
                guard wait(for: POLLOUT, Self.patience) else { throw TooLate() }
                continue
            }
            guard sent > 0 else { throw Gone() }
            rest = rest.dropFirst(sent)
        }
    }

    /// As much as the kernel takes without waiting.
    func sendSome(_ bytes: ByteBuffer) -> Int {
        unsafe bytes.withUnsafeReadableBytes {
            unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
    }

    /// What comes next.
    func receive(within milliseconds: Int32 = patience) throws -> ByteBuffer {
        guard wait(for: POLLIN, milliseconds) else { throw TooLate() }
        var bytes = ByteBuffer()
        let got = unsafe bytes.writeWithUnsafeMutableBytes(minimumWritableBytes: 1 << 16) {
            unsafe max(0, recv(descriptor, $0.baseAddress, $0.count, 0))
        }
        guard got > 0 else { throw Gone() }
        return bytes
    }

    /// Reads until the other end has closed.
    func waitForEnd() throws {
        do {
            while true { _ = try receive() }
        } catch is Gone {}
    }
}

/// A client with a session of its own. Its calls block. Used by one thread after the other.
final class Client: @unchecked Sendable {
    let raw: RawClient
    var session: ClientSession
    private var input = ByteBuffer()
    private(set) var replies: [UInt64: Reply] = [:]
    /// Cookies of requests in the order in which their replies ended.
    private(set) var order: [UInt64] = []

    struct Reply {
        var extent: Extent?
        var bytes: [UInt8] = []
        var holes: [Extent] = []
        var chunks = 0
        var statuses: [BlockStatus] = []
        var isFinished = false
        var failure: RequestFailure?
    }

    struct Refused: Error { let reason: ClientSession.Closing.Reason }

    /// Connects, and has entered when it is there.
    init(
        _ path: String, _ name: String = "", _ style: ReplyStyle = .extended, contexts: [MetaContext] = [.allocation]
    ) throws {
        raw = try RawClient(path)
        session = ClientSession(
            ClientPlan(
                .enter(name), tls: .off, wantsStructuredReplies: style != .simple,
                wantsExtendedHeaders: style == .extended, contexts: contexts))
        while session.agreement == nil { try step() }
    }

    /// The exports that the server lists.
    static func list(_ path: String) throws -> [String] {
        let raw = try RawClient(path)
        var session = ClientSession(ClientPlan(.list, tls: .off))
        var input = ByteBuffer()
        while true {
            guard let step = session.receive(&input) else {
                input.writeImmutableBuffer(try raw.receive())
                continue
            }
            switch step {
            case .send(let bytes): try raw.send(bytes)
            case .listed(let exports, let last):
                try raw.send(last)
                return exports.map(\.name)
            case .close(let closing): throw Refused(reason: closing.reason)
            case .startTLS, .entered, .relayed, .data, .hole, .status, .finished: continue
            }
        }
    }

    var agreement: Agreement { session.agreement! }

    private func step() throws {
        guard let step = session.receive(&input) else {
            input.discardReadBytes()
            input.writeImmutableBuffer(try raw.receive())
            return
        }
        switch step {
        case .send(let bytes): try raw.send(bytes)
        case .entered: break
        case .data(let cookie, let offset, let bytes):
            replies[cookie]?.chunks += 1
            let start = Int((offset - replies[cookie]!.extent!.offset).bytes)
            replies[cookie]?.bytes.replaceSubrange(start..<start + bytes.readableBytes, with: bytes.readableBytesView)
        case .hole(let cookie, let extent): replies[cookie]?.holes.append(extent)
        case .status(let cookie, _, let statuses): replies[cookie]?.statuses += statuses
        case .finished(let cookie, let failure):
            replies[cookie]?.isFinished = true
            replies[cookie]?.failure = failure
            order.append(cookie)
        case .close(let closing): throw Refused(reason: closing.reason)
        case .startTLS, .listed, .relayed: throw Refused(reason: .lost)
        }
    }

    /// Sends a request.
    @discardableResult
    func ask(
        _ command: Request.Command, _ flags: CommandFlags = [], payload: [UInt8] = []
    ) throws -> UInt64 {
        var (cookie, bytes) = try session.request(command, flags)
        bytes.writeBytes(payload)
        var reply = Reply(extent: command.extent)
        if case .read(let extent) = command { reply.bytes = [UInt8](repeating: 0, count: Int(extent.length.bytes)) }
        replies[cookie] = reply
        try raw.send(bytes)
        return cookie
    }

    /// Waits for the whole reply.
    func reply(to cookie: UInt64) throws -> Reply {
        while replies[cookie]?.isFinished != true { try step() }
        return replies[cookie]!
    }

    /// Asks, and waits for the reply.
    @discardableResult
    func done(
        _ command: Request.Command, _ flags: CommandFlags = [], payload: [UInt8] = []
    ) throws -> Reply {
        try reply(to: try ask(command, flags, payload: payload))
    }

    func write(_ bytes: [UInt8], at offset: UInt64, _ flags: CommandFlags = []) throws -> RequestFailure? {
        let extent = Extent(offset: ByteOffset(offset), length: ByteCount(UInt64(bytes.count)))
        return try done(.write(extent), flags, payload: bytes).failure
    }

    func read(_ range: Range<UInt64>, _ flags: CommandFlags = []) throws -> Reply {
        try done(.read(range.extent), flags)
    }
}

extension Range where Bound == UInt64 {
    var extent: Extent { Extent(from: ByteOffset(lowerBound), to: ByteOffset(upperBound)) }
}
