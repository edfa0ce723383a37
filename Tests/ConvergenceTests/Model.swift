import Convergence
import Foundation
import Volumes

/// A move and its writer as arithmetic: what the rounds of a real one come to, without volumes or time.
struct Model {
    /// Bytes a second that the writer writes, if it is let.
    var writer: Double
    /// Bytes that it writes to, in no order: what is written twice in a round is dirty once.
    var workingSet: Double
    /// Bytes a second.
    var drain: Double
    /// Seconds of a round in which nothing is drained.
    var overhead = 0.6
    /// What is moved before the first round.
    var allocated: Double
    var settings = Convergence.Settings()

    struct Outcome {
        var rounds = 0
        var limits: [ByteRate] = []
        var end: Convergence.Verdict
        var reason = ""
        /// What the hand-over takes besides its fixed cost, in seconds.
        var lastDrain = 0.0
    }

    private func dirtied(in seconds: Double, _ limit: ByteRate?) -> Double {
        let rate = min(writer, limit.map { Double($0.bytesPerSecond) } ?? .infinity)
        return workingSet * (1 - exp(-rate * seconds / workingSet))
    }

    func run() -> Outcome {
        var convergence = Convergence(settings)
        var sent = allocated
        var round = allocated / drain
        var limit: ByteRate?
        var outcome = Outcome(end: .goOn)
        while outcome.rounds < 200 {
            let interval = round + overhead
            let dirty = dirtied(in: interval, limit)
            let decision = convergence.decide(
                .init(
                    sent: ByteCount(UInt64(sent)), draining: .seconds(sent / drain), dirtied: ByteCount(UInt64(dirty)),
                    interval: .seconds(interval), overhead: .seconds(overhead)))
            outcome.rounds += 1
            outcome.end = decision.verdict
            outcome.reason = decision.reason
            switch decision.verdict {
            case .goOn: break
            case .throttle(let rate):
                limit = rate
                outcome.limits.append(rate)
            case .handOver:
                outcome.lastDrain = dirtied(in: overhead + dirty / drain, limit) / drain
                return outcome
            case .stalled: return outcome
            }
            sent = dirty
            round = dirty / drain
        }
        return outcome
    }

    /// Whether rounds without any limit come to fit the pause.
    var convergesByItself: Bool {
        var dirty = dirtied(in: allocated / drain + overhead, nil)
        for _ in 0..<20 { dirty = dirtied(in: dirty / drain + overhead, nil) }
        return dirty / drain <= 0.15
    }
}
