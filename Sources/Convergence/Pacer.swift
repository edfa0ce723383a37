package import Volumes

/// Keeps a rate: says how long to wait after so many bytes.
///
/// A value with the time passed in, so that a test needs no clock.
package struct Pacer: Sendable {
    /// What may be caught up at once after an idle time.
    private static let burst = Duration.milliseconds(100)

    private let rate: ByteRate
    /// When the bytes counted so far are paid for.
    private var paid: Duration = .zero
    /// What all that was set right comes to: whoever waits already waits so much longer, or shorter.
    package private(set) var corrected: Duration = .zero

    /// - Parameter rate: Above zero.
    package init(_ rate: ByteRate) { self.rate = rate }

    /// Counts `bytes`, moved just before `now`, and says how long to wait before moving more.
    package mutating func wait(after bytes: ByteCount, now: Duration) -> Duration {
        let cost = Duration.seconds(Double(bytes.bytes) / Double(max(rate.bytesPerSecond, 1)))
        paid = max(paid + cost, now - Self.burst)
        return max(.zero, paid - now)
    }

    /// Sets right what was counted before it was known.
    package mutating func correct(from counted: ByteCount, to moved: ByteCount) {
        let bytes = Double(moved.bytes) - Double(counted.bytes)
        let time = Duration.seconds(bytes / Double(max(rate.bytesPerSecond, 1)))
        paid += time
        corrected += time
    }
}
