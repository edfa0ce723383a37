/// The time as a move and its far side see it: the real one, or a simulation's.
package struct Timekeeper: Sendable {
    /// Since any fixed moment.
    package let now: @Sendable () -> Duration
    /// Returns when that time is over, or earlier if the task is cancelled.
    package let sleep: @Sendable (Duration) async -> Void

    package init(now: @escaping @Sendable () -> Duration, sleep: @escaping @Sendable (Duration) async -> Void) {
        self.now = now
        self.sleep = sleep
    }

    package static let real: Timekeeper = {
        let start = ContinuousClock.now
        return Timekeeper(now: { ContinuousClock.now - start }, sleep: { try? await Task.sleep(for: $0) })
    }()
}
