import Conformance
import NIOCore
import Volumes

@testable import NBDProtocol

/// A client and a server on one wire in memory, both driven by one seed: what is asked, in which pieces it comes, in
/// which order it is answered, what fails.
struct Joined {
    static let size = 1 << 16
    static let contexts: [MetaContext] = [.allocation, .dirty]

    /// What a request must come to, known when the server carries it out.
    struct Expectation: Equatable {
        var failure: RequestFailure?
        var bytes: [UInt8]?
        /// Flags of each byte asked about, for each context; some of the last may be missing.
        var statuses: [UInt32: [UInt64]] = [:]
    }

    struct Outcome: Equatable {
        var bytes: [UInt8] = []
        var statuses: [UInt32: [UInt64]] = [:]
    }

    let style: ReplyStyle
    var random: SplitMix64
    var client: ClientSession
    var server = ServerSession(ServerPolicy(tls: .off))
    /// The longest piece in which bytes arrive.
    let piece: Int

    // The wire, and what was read off it and not used.
    var toServer = ByteBuffer()
    var toClient = ByteBuffer()
    var atServer = ByteBuffer()
    var atClient = ByteBuffer()

    // The server's volume, and its flags.
    var bytes = [UInt8](repeating: 0, count: size)
    var dirty = [Bool](repeating: false, count: size)
    /// Replies that are ready, each in pieces that keep their order.
    var replies: [[ByteBuffer]] = []
    var writing: (request: Request, bytes: [UInt8])?

    // What the client asked for and was told.
    var asked: [UInt64: Request.Command] = [:]
    var expected: [UInt64: Expectation] = [:]
    var outcomes: [UInt64: Outcome] = [:]
    var finished = 0
    var failed = 0
    /// What went wrong.
    var faults: [String] = []
    var isOver = false
    /// Whether the last byte of all data is wrong, so that the checks are seen to fail.
    var plantsFault = false

    init(style: ReplyStyle, seed: UInt64) {
        self.style = style
        random = SplitMix64(seed: seed)
        piece = [1, 3, 50, 4096].randomElement(using: &random)!
        client = ClientSession(
            ClientPlan(
                .enter("disk"), tls: .off, wantsStructuredReplies: style == .structured,
                wantsExtendedHeaders: style == .extended, contexts: Self.contexts))
        toClient.writeImmutableBuffer(server.greeting)
    }

    /// Runs until everything asked for is answered, and the client has left.
    mutating func run(requests: Int) {
        var left = requests
        var turns = 0
        while !isOver, faults.isEmpty {
            // A reply that is lost is to fail the test, not to hang it.
            turns += 1
            if turns > 5_000_000 { faults.append("it never ends") }
            switch Int.random(in: 0..<4, using: &random) {
            case 0 where client.agreement != nil && left > 0:
                left -= 1
                ask()
            case 0 where client.agreement != nil && client.pendingCookies.isEmpty && !client.isLeaving:
                toServer.writeImmutableBuffer(client.disconnect())
            case 1: reply()
            case 2: Self.move(&toServer, &atServer, piece, &random)
            default: Self.move(&toClient, &atClient, piece, &random)
            }
            while let step = server.receive(&atServer) { serve(step) }
            while let step = client.receive(&atClient) { take(step) }
            if client.heldBytes > 5000 || server.heldBytes > 5000 { faults.append("too much is held") }
        }
    }

    /// One piece of what is on the wire arrives.
    static func move(_ wire: inout ByteBuffer, _ end: inout ByteBuffer, _ most: Int, _ random: inout SplitMix64) {
        guard wire.readableBytes > 0 else { return }
        let count = Int.random(in: 1...min(most, wire.readableBytes), using: &random)
        end.writeImmutableBuffer(wire.readSlice(length: count)!)
        wire.discardReadBytes()
    }

    // MARK: The client

    mutating func ask() {
        let offset = UInt64.random(in: 0..<UInt64(Self.size), using: &random)
        let length = UInt64.random(in: 1...min(2000, UInt64(Self.size) - offset), using: &random)
        let extent = Extent(offset: ByteOffset(offset), length: ByteCount(length))
        let isFUA = Bool.random(using: &random)
        var command = Request.Command.flush
        var flags: CommandFlags = []
        switch Int.random(in: 0..<10, using: &random) {
        case 0...2:
            command = .read(extent)
            if style != .simple, isFUA { flags.insert(.df) }
        case 3...4:
            command = .write(extent)
            if isFUA { flags.insert(.fua) }
        case 5: command = .trim(extent)
        case 6: command = .writeZeroes(extent, noHole: isFUA, fast: false)
        case 7: command = .cache(extent)
        case 8 where style != .simple:
            var contexts = client.agreement!.contexts
            if style == .extended, isFUA { contexts.shuffle(using: &random) }
            if style == .extended, isFUA { contexts.removeLast() }
            command = .blockStatus(extent, contexts: contexts)
            if Bool.random(using: &random) { flags.insert(.reqOne) }
        default: break
        }
        do throws(Refusal) {
            let (cookie, bytes) = try client.request(command, flags)
            asked[cookie] = command
            toServer.writeImmutableBuffer(bytes)
            if case .write = command {
                toServer.writeBytes((0..<length).map { _ in UInt8.random(in: 1...255, using: &random) })
            }
        } catch {
            faults.append("\(command): \(error)")
        }
    }

    mutating func take(_ step: ClientSession.Step) {
        switch step {
        case .send(let bytes): toServer.writeImmutableBuffer(bytes)
        case .entered(let agreement):
            if agreement.style != style || agreement.contexts.count != (style == .simple ? 0 : 2) {
                faults.append("\(agreement)")
            }
        case .data(let cookie, let offset, let piece): tell(cookie, offset, Array(piece.readableBytesView))
        case .hole(let cookie, let extent):
            tell(cookie, extent.offset, .init(repeating: 0, count: Int(extent.length.bytes)))
        case .status(let cookie, let context, let statuses):
            for status in statuses {
                outcomes[cookie, default: Outcome()].statuses[context.id, default: []] += Array(
                    repeating: status.flags, count: Int(status.length.bytes))
            }
        case .finished(let cookie, let failure): check(cookie, failure)
        case .startTLS, .listed, .relayed, .close: faults.append("\(step)")
        }
    }

    private mutating func tell(_ cookie: UInt64, _ offset: ByteOffset, _ bytes: [UInt8]) {
        guard case .read(let extent)? = asked[cookie] else { return faults.append("bytes that nobody asked for") }
        var outcome = outcomes[cookie] ?? Outcome()
        if outcome.bytes.isEmpty { outcome.bytes = .init(repeating: 0xee, count: Int(extent.length.bytes)) }
        let start = Int((offset - extent.offset).bytes)
        outcome.bytes.replaceSubrange(start..<start + bytes.count, with: bytes)
        outcomes[cookie] = outcome
    }

    private mutating func check(_ cookie: UInt64, _ failure: RequestFailure?) {
        finished += 1
        guard let expectation = expected.removeValue(forKey: cookie) else { return faults.append("nothing expected") }
        if failure != nil { failed += 1 }
        guard failure == expectation.failure else {
            return faults.append("\(String(describing: failure)) for \(String(describing: expectation.failure))")
        }
        guard failure == nil else { return }
        let outcome = outcomes.removeValue(forKey: cookie) ?? Outcome()
        if let bytes = expectation.bytes, bytes != outcome.bytes { faults.append("other bytes") }
        guard expectation.statuses.keys == outcome.statuses.keys else { return faults.append("other contexts") }
        for (id, flags) in outcome.statuses {
            if flags.isEmpty || !(expectation.statuses[id] ?? []).starts(with: flags) { faults.append("other status") }
        }
    }
}
