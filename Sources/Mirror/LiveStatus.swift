internal import Synchronization
package import Volumes

/// How a live move stands, for whoever asks. Written by the move, read at any time.
package final class LiveStatus: Sendable {
    package enum Phase: String, Sendable {
        /// What was there when it began.
        case copying
        /// What the writer has written since.
        case following
        /// Waits for its clients to leave, or for the operator.
        case ready
        case handingOver = "handing over"
        case ending
    }

    package struct View: Sendable {
        package var phase = Phase.copying
        /// The last ten.
        package var rounds: [Report.RoundReport] = []
        package var roundCount = 0
        package var predictedPause: Duration?
        /// The limit in force.
        package var limit: ByteRate?
        /// What is waited for, or what the operator has to decide.
        package var notice: String?
    }

    private static let mostRounds = 10
    private let view = Mutex(View())
    private let onRound: @Sendable (Int, Report.RoundReport) -> Void
    private let onNotice: @Sendable (String) -> Void

    /// - Parameters:
    ///   - onRound: Told each round, with its number, once it is over.
    ///   - onNotice: Told what an operator should know.
    package init(
        onRound: @escaping @Sendable (Int, Report.RoundReport) -> Void = { _, _ in },
        onNotice: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.onRound = onRound
        self.onNotice = onNotice
    }

    package var current: View { view.withLock { $0 } }

    func change(_ body: (inout View) -> Void) { view.withLock { body(&$0) } }

    func add(_ round: Report.RoundReport) {
        let number = view.withLock { view in
            view.roundCount += 1
            view.rounds.append(round)
            view.predictedPause = .seconds(round.predictedPauseSeconds)
            if view.rounds.count > Self.mostRounds { view.rounds.removeFirst() }
            return view.roundCount
        }
        onRound(number, round)
    }

    func tell(_ notice: String) {
        view.withLock { $0.notice = notice }
        onNotice(notice)
    }
}
