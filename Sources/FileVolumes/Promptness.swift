internal import Synchronization

/// Whether something that usually takes no waiting may be done where nobody should wait.
///
/// After it took long, it isn't for a hundred times as long: so at most a hundredth of the time goes to waiting.
final class Promptness: Sendable {
    /// What counts as waiting. Copying 1 MiB into the page cache takes a tenth of it.
    private static let long = Duration.milliseconds(1)
    private static let rest = 100

    /// Nothing as long as it never took long.
    private let due = Mutex<ContinuousClock.Instant?>(nil)

    var isDue: Bool { due.withLock { $0.map { $0 <= .now } ?? true } }

    func note(_ duration: Duration) {
        guard duration > Self.long else { return }
        due.withLock { $0 = .now + duration * Self.rest }
    }
}
