internal import ArgumentParser
internal import Control
internal import Foundation
internal import Glibc
internal import Volumes

struct ShowStatus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows how the live moves of this host stand.",
        discussion: """
            TARGET is a move's target as it was given to 'godwit migrate --live', or the end of it: slow/v or v for \
            rbd:slow/v. Without one, all moves of this user are shown. What is shown of a move:

              writer   how fast its clients dirty it, how fast that is drained, their limit
              pause    how long they would stand still if it handed over now, and may
              verdict  what the move does about it, and why

            EXAMPLES
              godwit status                  all moves
              godwit status v --watch 1      one, drawn anew every second until it is over
              godwit status --json | jq '.[].phase'

            EXIT STATUS
              0  shown     66  no such move is running     75  a move doesn't answer
            """)

    @Argument(help: "The move's target, or the end of it.") var target: String?
    @Option(help: "Show again after so many seconds, until the moves are over.") var watch: Double?
    @Flag(help: "The latest rounds, too, each with its verdict.") var rounds = false
    @Flag(help: "An array of moves as JSON, in bytes and seconds; with --watch, one to a line.") var json = false

    func validate() throws {
        if let watch, !(watch >= 0.1 && watch <= 1e6) { throw ValidationError("--watch takes seconds, from 0.1 on") }
    }

    func run() async throws {
        signal(SIGPIPE, SIG_IGN)
        let client = ControlClient()
        let isRedrawn = watch != nil && !json && isatty(STDOUT_FILENO) == 1
        var wasShown = false
        try await controlling { () async throws(ControlError) in
            while true {
                let moves: ControlClient.Moves
                do throws(ControlError) {
                    moves = try await client.moves(to: target)
                } catch let error where error.kind == .noMove {
                    if wasShown { return tell("godwit: over: what became of it, its own output tells") }
                    if json { emit("[]\n", to: STDOUT_FILENO) }
                    throw error
                }
                // From the top left, and nothing left below.
                emit((isRedrawn ? "\u{1b}[H\u{1b}[J" : "") + text(of: moves), to: STDOUT_FILENO)
                guard let watch else {
                    guard moves.silent.isEmpty else {
                        throw ControlError(.unanswered, moves.silent.map(\.reason))
                    }
                    return
                }
                wasShown = true
                try? await Task.sleep(for: .seconds(watch))
            }
        }
    }

    private func text(of moves: ControlClient.Moves) -> String {
        let all = moves.answering.map(\.status)
        if json { return (watch == nil ? encoded(all) : encodedInLine(all)) + "\n" }
        let width = terminalWidth(of: STDOUT_FILENO)
        var blocks = all.map { StatusText(status: $0, withRounds: rounds).text(width: width) }
        // Below what is drawn, where stderr would be overdrawn.
        if watch != nil { blocks += moves.silent.map { $0.reason.printable + "\n" } }
        return blocks.joined(separator: "\n") + (watch != nil && isatty(STDOUT_FILENO) == 0 ? "\n" : "")
    }

    private func encodedInLine(_ value: some Encodable) -> String {
        // Between two tokens only: a newline in a text is written \n.
        encoded(value).split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.joined(separator: " ")
    }
}

/// Runs a command's body; what it throws is told on stderr and becomes the exit status.
func controlling(_ body: () async throws(ControlError) -> Void) async throws {
    do throws(ControlError) {
        try await body()
    } catch {
        for (index, line) in error.lines.enumerated() {
            tell((index == 0 ? "godwit: " : "  ") + line.printable)
        }
        if let advice = error.advice { tell("  " + advice.printable) }
        throw
            switch error.kind
        {
        case .noMove: Status.noSource
        case .ambiguous: ExitCode.validationFailure
        case .unanswered, .refused: Status.resumable
        }
    }
}
