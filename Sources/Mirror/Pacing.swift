internal import Convergence
internal import Synchronization
internal import Volumes

/// The rate of a whole move, kept by all of its workers together, and its halts.
final class Pacing: Sendable {
    private struct State {
        var pacer: Pacer?
        var rate: ByteRate?
        /// What a piece comes to, going by those before it.
        var usual: ByteCount?
        /// Whether a writer is held still meanwhile.
        var isHurried = false
    }

    /// How soon it is noticed that there is less to wait, or that a stop was asked for.
    private static let longestSleep = Duration.milliseconds(20)

    private let state = Mutex(State())
    private let paused = Mutex<(@Sendable () async -> Void)?>(nil)
    private let controls: MoveControls
    private let time: Timekeeper

    init(_ controls: MoveControls, _ time: Timekeeper) {
        self.controls = controls
        self.time = time
    }

    /// Waits until a piece may be moved, but not through a stop.
    ///
    /// - Returns: What was counted for it.
    func wait(for piece: Extent, stop: StopRequest, _ progress: WorkProgress) async -> ByteCount {
        guard !state.withLock({ $0.isHurried }) else { return begin(piece).counted }
        if controls.isPaused, let paused = paused.withLock({ $0 }) { await paused() }
        while controls.isPaused, !stop.isAsked {
            progress.notice("paused: 'godwit resume' goes on")
            await time.sleep(.milliseconds(50))
        }
        let rate = controls.bandwidth
        let (counted, wait, corrected) = begin(piece)
        guard wait > .zero else { return counted }
        if wait > .seconds(5) { progress.notice("held back by the bandwidth") }
        let end = time.now() + wait
        // What was to wait under one rate doesn't wait under another.
        while !stop.isAsked, controls.bandwidth == rate {
            // The pieces before this one may have come to less than was counted: a round's to much less than the bulk's.
            let rest = end + (state.withLock { $0.pacer?.corrected ?? corrected } - corrected) - time.now()
            guard rest > .zero else { break }
            await time.sleep(min(Self.longestSleep, rest))
        }
        return counted
    }

    /// Neither a halt nor the bandwidth holds anything up while a writer is held still.
    func hurry(_ isHurried: Bool) { state.withLock { $0.isHurried = isHurried } }

    /// Has `body` called when the move is halted.
    func whenPaused(_ body: @escaping @Sendable () async -> Void) { paused.withLock { $0 = body } }

    /// Counts a piece before it is moved, as what pieces usually come to.
    /// - Returns: What was counted, how long to wait, and what had been set right by then.
    private func begin(_ piece: Extent) -> (counted: ByteCount, wait: Duration, corrected: Duration) {
        let rate = controls.bandwidth
        return state.withLock { state in
            if state.rate != rate {
                state.rate = rate
                state.pacer = rate.map { Pacer($0) }
            }
            let counted = min(state.usual ?? piece.length, piece.length)
            let wait = state.pacer?.wait(after: counted, now: time.now()) ?? .zero
            return (counted, wait, state.pacer?.corrected ?? .zero)
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
