internal import NIOCore
internal import NIOPosix
package import Volumes

/// Why a move couldn't be asked or told, in the terms of whoever wanted to.
package struct ControlError: Error, Sendable, Equatable {
    /// Closed: each is an exit status (Docs/CLI.md).
    package enum Kind: Sendable, Equatable {
        /// No such move runs on this host.
        case noMove
        /// Several fit.
        case ambiguous
        case unanswered
        /// The move said no.
        case refused
    }

    package let kind: Kind
    /// What, and why.
    package let lines: [String]
    /// What now.
    package let advice: String?

    package init(_ kind: Kind, _ lines: [String], advice: String? = nil) {
        (self.kind, self.lines, self.advice) = (kind, lines, advice)
    }
}

/// Asks and tells the moves of this user that run on this host.
package struct ControlClient: Sendable {
    /// A move that answered.
    package struct Move: Sendable, Equatable {
        package let status: MoveStatus
        let socket: SocketPath
    }

    /// A move that listens, and said nothing that can be understood.
    package struct Silence: Sendable, Equatable {
        package let process: Int32
        /// "process 7 doesn't answer within 10.0 seconds".
        package let reason: String
    }

    package struct Moves: Sendable {
        /// The longest-running first.
        package var answering: [Move]
        package var silent: [Silence]
        /// Places where moves could not be looked for.
        package var problems: [VolumeError]

        package var isEmpty: Bool { answering.isEmpty && silent.isEmpty }
    }

    /// How many moves are asked at a time.
    private static let mostAtOnce = 16

    /// How soon to try again where the queue is full.
    private static let beforeNextTry = Duration.milliseconds(20)

    private let directories: [RuntimeDirectory]
    private let patience: Duration

    /// - Parameter patience: How long to wait for each answer: longer than a move may take for it.
    package init(in directories: [RuntimeDirectory] = RuntimeDirectory.allMoves(), patience: Duration = .seconds(10)) {
        (self.directories, self.patience) = (directories, patience)
    }

    /// All moves that run. Sockets that nobody listens on are removed by the way.
    package func moves() async -> Moves {
        var moves = Moves(answering: [], silent: [], problems: [])
        var sockets: [SocketPath] = []
        for directory in directories {
            do throws(VolumeError) {
                sockets += try directory.sockets()
            } catch {
                moves.problems.append(error)
            }
        }
        enum Found: Sendable { case move(Move), silence(Silence), nobody }
        let found = await withTaskGroup(of: Found.self) { group in
            var waiting = sockets.makeIterator()
            var found: [Found] = []
            func askNext() {
                guard let socket = waiting.next() else { return }
                group.addTask {
                    do throws(ControlError) {
                        guard let reply = try await exchange(.status, with: socket) else { return .nobody }
                        if case .status(let status) = reply { return .move(Move(status: status, socket: socket)) }
                        let why = if case .refused(let why) = reply { why } else { "its answer is no status" }
                        return .silence(Silence(process: socket.process, reason: why))
                    } catch {
                        return .silence(Silence(process: socket.process, reason: error.lines.joined(separator: ": ")))
                    }
                }
            }
            for _ in 0..<Self.mostAtOnce { askNext() }
            for await one in group {
                found.append(one)
                askNext()
            }
            return found
        }
        for one in found {
            switch one {
            case .move(let move): moves.answering.append(move)
            case .silence(let silence): moves.silent.append(silence)
            case .nobody: break
            }
        }
        moves.answering.sort { ($0.status.started, $0.socket.text) < ($1.status.started, $1.socket.text) }
        moves.silent.sort { $0.process < $1.process }
        return moves
    }

    /// The moves to that target, of all those that run; all of them where none is named.
    ///
    /// - Throws: `.noMove` if none fits, `.unanswered` if none fits of those that answer.
    package func moves(to target: String?) async throws(ControlError) -> Moves {
        var moves = await moves()
        if let target {
            let targets = moves.answering.map(\.status.target)
            let chosen = MoveSelection.fitting(target, among: targets).map { moves.answering[$0] }
            guard !chosen.isEmpty else { throw nothing(fits: target, of: moves) }
            // What doesn't answer may be the same target's move, but only one can be.
            (moves.answering, moves.silent) = (chosen, [])
        }
        guard !moves.isEmpty else { throw nothing(fits: nil, of: moves) }
        return moves
    }

    /// Gives an order to the one move that it can mean.
    ///
    /// - Parameter target: Can be left out where one move runs.
    /// - Returns: The move's target, and what happens now.
    package func give(
        _ order: MoveOrder, to target: String?
    ) async throws(ControlError) -> (target: String, answer: String) {
        let moves = try await moves(to: target)
        let count = moves.answering.count + moves.silent.count
        guard count == 1 else {
            let fit = target.map { "fit '\($0)'" } ?? "are running on this host"
            throw ControlError(
                .ambiguous, ["\(count == 2 ? "two" : "\(count)") moves \(fit): name the target"] + described(moves))
        }
        guard let move = moves.answering.first else { throw ControlError(.unanswered, moves.silent.map(\.reason)) }
        let title = move.status.target
        guard let reply = try await exchange(order, with: move.socket) else {
            throw ControlError(.noMove, ["the move to \(title) has just ended"])
        }
        switch reply {
        case .accepted(let answer): return (title, answer)
        case .refused(let why): throw ControlError(.refused, ["\(title): \(why)"])
        case .status: throw ControlError(.unanswered, ["\(title): the move's answer can't be understood"])
        }
    }

    private func nothing(fits target: String?, of moves: Moves) -> ControlError {
        if !moves.silent.isEmpty {
            return ControlError(
                .unanswered,
                [target.map { "no move that answers is to '\($0)'" } ?? "no move answers"]
                    + described(moves))
        }
        if moves.answering.isEmpty, let problem = moves.problems.first {
            return ControlError(
                .unanswered, ["\(problem.object): \(problem.operation): \(problem.reason)"], advice: problem.advice)
        }
        let places = directories.map(\.path).joined(separator: " and ")
        return ControlError(
            .noMove,
            [target.map { "no move to '\($0)' is running on this host" } ?? "no move is running on this host"]
                + described(moves),
            advice: moves.answering.isEmpty
                ? "Looked in \(places): another user's moves are asked by that user, on the host they run on." : nil)
    }

    private func described(_ moves: Moves) -> [String] {
        moves.answering.map { "running: \($0.status.source) to \($0.status.target)" } + moves.silent.map(\.reason)
    }

    // MARK: One line each way

    /// - Returns: Nothing if nobody listens there any more.
    private func exchange(_ order: MoveOrder, with socket: SocketPath) async throws(ControlError) -> ControlReply? {
        let line: [UInt8]
        do {
            guard let descriptor = try await connected(to: socket) else { return nil }
            line = try await replyLine(to: controlLine(order) ?? [], over: descriptor)
        } catch let error as VolumeError where error.kind == .busy {
            throw ControlError(.unanswered, ["process \(socket.process) lets nobody in: too many are waiting already"])
        } catch let error as VolumeError {
            throw ControlError(.unanswered, ["process \(socket.process) can't be reached: \(error)"])
        } catch is Late {
            throw ControlError(
                .unanswered,
                [
                    "process \(socket.process) doesn't answer within \(patience)"
                        + (order == .status ? "" : "; it may still do what was asked")
                ])
        } catch {
            throw ControlError(
                .unanswered, ["process \(socket.process) went away before it answered: perhaps its move has ended"])
        }
        guard let reply = controlValue(ControlReply.self, of: line) else {
            throw ControlError(
                .unanswered, ["process \(socket.process) says what this version of godwit doesn't understand"])
        }
        return reply
    }

    /// Waits for a place in the queue of those who want to be let in, which is short and soon empty.
    private func connected(to socket: SocketPath) async throws -> Int32? {
        let deadline = ContinuousClock.now + patience
        while true {
            do throws(VolumeError) {
                return try socket.connected()
            } catch {
                guard error.kind == .busy, ContinuousClock.now < deadline else { throw error }
            }
            try await Task.sleep(for: Self.beforeNextTry)
        }
    }

    private struct Late: Error {}

    private func replyLine(to request: [UInt8], over descriptor: Int32) async throws -> [UInt8] {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: [UInt8].self)
        let late = loop.scheduleTask(in: TimeAmount(patience)) { promise.fail(Late()) }
        // The channel closes the descriptor from here on.
        let channel = ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ReplyReader(request: request, reply: promise))
                }
            }
            .withConnectedSocket(descriptor)
        channel.whenFailure { promise.fail($0) }
        defer {
            late.cancel()
            channel.whenSuccess { $0.close(promise: nil) }
        }
        return try await promise.futureResult.get()
    }
}

/// Sends one line, and reads one.
private final class ReplyReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    struct Ended: Error {}

    private let request: [UInt8]
    private let reply: EventLoopPromise<[UInt8]>
    private var line = LineCollector()

    init(request: [UInt8], reply: EventLoopPromise<[UInt8]>) {
        (self.request, self.reply) = (request, reply)
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: request)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // A promise keeps its first outcome.
        switch line.take(unwrapInboundIn(data).readableBytesView) {
        case .more: break
        case .line(let line): reply.succeed(line)
        case .tooLong:
            reply.fail(Ended())
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        reply.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { reply.fail(Ended()) }
}
