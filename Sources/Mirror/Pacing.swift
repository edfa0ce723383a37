internal import Synchronization
internal import Volumes

/// The rate of a whole move, kept by all of its workers together.
final class Pacing: Sendable {
    private struct State {
        var pacer: Pacer?
        /// What a piece comes to, going by those before it.
        var usual: ByteCount?
    }

    private let state: Mutex<State>
    private let start = ContinuousClock.now

    /// - Parameter rate: Nothing for as fast as it goes.
    init(_ rate: ByteRate?) { state = Mutex(State(pacer: rate.map { Pacer($0) })) }

    /// Counts a piece before it is moved, as what pieces usually come to.
    ///
    /// - Returns: What was counted, and how long to wait before moving it.
    func begin(_ piece: Extent) -> (counted: ByteCount, wait: Duration) {
        state.withLock { state in
            let counted = min(state.usual ?? piece.length, piece.length)
            let wait = state.pacer?.wait(after: counted, now: ContinuousClock.now - start) ?? .zero
            return (counted, wait)
        }
    }

    /// Sets right what was counted, now that it is known.
    func end(counted: ByteCount, moved: ByteCount) {
        state.withLock { state in
            state.pacer?.correct(from: counted, to: moved)
            let usual = state.usual ?? moved
            state.usual = ByteCount((usual.bytes * 7 + moved.bytes) / 8)
        }
    }
}
