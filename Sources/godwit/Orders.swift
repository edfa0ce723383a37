internal import ArgumentParser
internal import Control
internal import Glibc
internal import Volumes

/// A command that gives a live move one order.
private protocol OrderCommand: AsyncParsableCommand {
    /// The order, and the move's target where one is named.
    func order() throws -> (MoveOrder, target: String?)
}

extension OrderCommand {
    func validate() throws { _ = try order() }

    func run() async throws {
        signal(SIGPIPE, SIG_IGN)
        let (order, target) = try order()
        try await controlling { () async throws(ControlError) in
            let (target, answer) = try await ControlClient().give(order, to: target)
            emit("\(target): \(answer)".printable + "\n", to: STDOUT_FILENO)
        }
    }
}

/// Which move is meant.
struct MoveArgument: ParsableArguments {
    @Argument(help: "The move's target, or the end of it; can be left out where one move runs.") var target: String?
}

private let exitStatuses = """
    EXIT STATUS
      0  done, or noted     66  no such move is running     75  refused, no answer
    """

struct PauseMove: OrderCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause",
        abstract: "Holds a live move: nothing more is copied until it is resumed.",
        discussion: """
            The clients go on, and what they write goes on being noticed: a resumed move copies only that. A limit that \
            the move had put on them is lifted meanwhile.

            EXAMPLE
              godwit pause slow/v            the cluster is busy: leave it alone
              godwit resume slow/v

            \(exitStatuses)
            """)
    @OptionGroup var move: MoveArgument
    func order() -> (MoveOrder, target: String?) { (.pause, move.target) }
}

struct ResumeMove: OrderCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume",
        abstract: "Lets a paused live move go on.",
        discussion: """
            EXAMPLE
              godwit resume slow/v

            \(exitStatuses)
            """)
    @OptionGroup var move: MoveArgument
    func order() -> (MoveOrder, target: String?) { (.resume, move.target) }
}

struct CutOverMove: OrderCommand {
    static let configuration = CommandConfiguration(
        commandName: "cutover",
        abstract: "Lets a live move hand over now, rather than when the pause is short enough.",
        discussion: """
            The clients stand still while what is left is copied: 'godwit status' predicts for how long. A move that is \
            ready and waits for the operator hands over with this order; one that still copies everything for the \
            first time has nothing to hand over yet, and says so.

            EXAMPLE
              godwit status slow/v           pause: 1.8 s predicted, 0.5 s allowed
              godwit cutover slow/v          1.8 s will do

            \(exitStatuses)
            """)
    @OptionGroup var move: MoveArgument
    func order() -> (MoveOrder, target: String?) { (.cutover, move.target) }
}

struct CancelMove: OrderCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel",
        abstract: "Ends a live move before it has handed over, as Ctrl-C does.",
        discussion: """
            The clients stay on the source, without a limit of the move's. What was copied stands: the same 'godwit \
            migrate' goes on from there, and 'godwit abort TARGET' removes it.

            EXAMPLE
              godwit cancel slow/v

            \(exitStatuses)
            """)
    @OptionGroup var move: MoveArgument
    func order() -> (MoveOrder, target: String?) { (.cancel, move.target) }
}

/// [TARGET] and a value that always comes last.
private func targetAndValue(_ words: [String], _ value: String) throws -> (target: String?, value: String) {
    guard let last = words.last, words.count <= 2 else {
        throw ValidationError("expected [TARGET] and then \(value)")
    }
    return (words.count == 2 ? words[0] : nil, last)
}

private func refusal(of word: String, among words: [String], _ value: String) -> ValidationError {
    let hint = words.count == 2 && SizeArgument(argument: words[0]) != nil ? "; it comes after the target" : ""
    return ValidationError("'\(word)': expected \(value)\(hint)")
}

struct ThrottleMove: OrderCommand {
    private static let value = "auto, off or a rate such as 20M"

    static let configuration = CommandConfiguration(
        commandName: "throttle",
        abstract: "Says how far a live move may slow the volume's clients down.",
        usage: "godwit throttle [TARGET] auto|off|RATE",
        discussion: """
            A move can only end if its clients write more slowly than it copies. With 'auto' it works out the limit \
            that makes it end; with a RATE, in bytes a second, they are held to that; with 'off' they are never slowed, \
            and the move may follow them for ever. No limit outlives the move.

            EXAMPLES
              godwit throttle 20M            the only move's clients: at most 20 MiB/s
              godwit throttle slow/v off
              godwit throttle slow/v auto    as the move works out

            \(exitStatuses)
            """)

    @Argument(
        help: ArgumentHelp(
            "The move's target, or the end of it, which can be left out where one move runs; then \(value).",
            valueName: "target-and-rate"))
    var words: [String] = []

    func order() throws -> (MoveOrder, target: String?) {
        let (target, word) = try targetAndValue(words, Self.value)
        switch word {
        case "auto": return (.throttle(.auto), target)
        case "off": return (.throttle(.off), target)
        default:
            guard let rate = SizeArgument(argument: word) else {
                throw refusal(of: word, among: words, Self.value)
            }
            guard rate.count > .zero else { throw ValidationError("a limit of 0 stops the clients: write 'off'") }
            return (.throttle(.limit(ByteRate(bytesPerSecond: rate.count.bytes))), target)
        }
    }
}

struct LimitMove: OrderCommand {
    private static let value = "a rate such as 100M, or 0 for none"

    static let configuration = CommandConfiguration(
        commandName: "bandwidth",
        abstract: "Says how fast a live move itself may copy.",
        usage: "godwit bandwidth [TARGET] RATE",
        discussion: """
            RATE is in bytes a second; 0 for as fast as it goes. It replaces what --bandwidth said. A move that copies \
            more slowly than its clients write can't end, so it will slow them down, too, if it may.

            EXAMPLES
              godwit bandwidth 100M          the only move: at most 100 MiB/s
              godwit bandwidth slow/v 0      as fast as it goes

            \(exitStatuses)
            """)

    @Argument(
        help: ArgumentHelp(
            "The move's target, or the end of it, which can be left out where one move runs; then \(value).",
            valueName: "target-and-rate"))
    var words: [String] = []

    func order() throws -> (MoveOrder, target: String?) {
        let (target, word) = try targetAndValue(words, Self.value)
        guard let rate = SizeArgument(argument: word)?.count else { throw refusal(of: word, among: words, Self.value) }
        return (.bandwidth(rate == .zero ? nil : ByteRate(bytesPerSecond: rate.bytes)), target)
    }
}
