internal import Synchronization

/// Whether something that usually takes no waiting may be done where nobody should wait.
///
/// After it took long, it isn't for a hundred times as long: so at most a hundredth of the time goes to waiting.
final class Promptness: Sendable {
    /// What counts as waiting. Copying 1 MiB into the page cache takes a tenth of it.
    private static let long = Duration.milliseconds(1)
    private static let rest = 100

    private static let start = ContinuousClock.now
    /// In nanoseconds since `start`.
    private let due = Atomic<Int64>(.min)

    var isDue: Bool { due.load(ordering: .relaxed) <= Self.now }

    func note(_ duration: Duration) {
        guard duration > Self.long else { return }
        due.store(Self.now + Self.nanoseconds(duration * Self.rest), ordering: .relaxed)
    }

    private static var now: Int64 { nanoseconds(ContinuousClock.now - start) }

    private static func nanoseconds(_ duration: Duration) -> Int64 {
        let (seconds, attoseconds) = duration.components
        return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}
