import Dispatch
import Synchronization
import Volumes

/// A clock of its own for one simulation, and the executor that all of the simulation's tasks run on, one job after
/// another in the order in which they became ready. Nothing is left to chance: time goes on only where a task says how
/// long something takes, or, once none has anything left to do, to the moment at which the first sleeper is to wake.
///
/// What takes its time without giving way (`spend`) may pass a sleeper's moment: that one wakes as soon as it can, as
/// on a busy machine.
final class VirtualTime: TaskExecutor {
    private struct Sleeper {
        let number: UInt64
        let end: Duration
        let wake: @Sendable () -> Void
    }

    private enum Job {
        case task(UnownedJob)
        case call(@Sendable () -> Void)
    }

    private struct State {
        var now = Duration.zero
        var jobs: [Job] = []
        var isRunning = false
        var sleepers: [Sleeper] = []
        var lastNumber: UInt64 = 0
        /// Cancelled before they had fallen asleep.
        var awakened: Set<UInt64> = []
    }

    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "a simulation")
    /// In a value of its own: a function that a mutex holds gets a wrapping more each time it is taken out.
    private struct Passing { let body: @Sendable (Duration) -> Void }
    private let passing = Mutex<Passing?>(nil)

    /// Called with the moment up to which time is about to pass; may set the clock to moments before, in order.
    func whilePassing(_ body: @escaping @Sendable (_ end: Duration) -> Void) {
        passing.withLock { $0 = Passing(body: body) }
    }

    var now: Duration {
        get { state.withLock { $0.now } }
        set { state.withLock { $0.now = max($0.now, newValue) } }
    }

    var keeper: Timekeeper {
        Timekeeper(now: { self.now }, sleep: { await self.sleep($0) })
    }

    /// Something takes that long.
    func spend(_ duration: Duration) { pass(to: now + duration) }

    private func pass(to end: Duration) {
        if let passing = passing.withLock({ $0 }) { passing.body(end) }
        now = end
    }

    func sleep(_ duration: Duration) async {
        let (number, end) = state.withLock { state in
            state.lastNumber += 1
            return (state.lastNumber, state.now + max(duration, .zero))
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isAwake = state.withLock { state in
                    guard state.awakened.remove(number) == nil else { return true }
                    state.sleepers.append(Sleeper(number: number, end: end) { continuation.resume() })
                    return false
                }
                if isAwake { continuation.resume() }
            }
        } onCancel: {
            wake(number)
        }
        state.withLock { _ = $0.awakened.remove(number) }
    }

    private func wake(_ number: UInt64) {
        let sleeper: Sleeper? = state.withLock { state in
            guard let index = state.sleepers.firstIndex(where: { $0.number == number }) else {
                state.awakened.insert(number)
                return nil
            }
            return state.sleepers.remove(at: index)
        }
        sleeper?.wake()
    }

    // MARK: Calls

    /// Has `body` called after all that is ready already.
    func call(_ body: @escaping @Sendable () -> Void) { enqueue(.call(body)) }

    /// Has `body` called at that moment, or right away if it is over.
    ///
    /// - Returns: Its number, to cancel it by.
    @discardableResult
    func call(at end: Duration, _ body: @escaping @Sendable () -> Void) -> UInt64 {
        state.withLock { state in
            state.lastNumber += 1
            let number = state.lastNumber
            state.sleepers.append(Sleeper(number: number, end: max(end, state.now)) { self.call(body) })
            return number
        }
    }

    /// Does nothing if it was called, or is about to be.
    func cancel(_ number: UInt64) { state.withLock { $0.sleepers.removeAll { $0.number == number } } }

    // MARK: TaskExecutor

    func enqueue(_ job: consuming ExecutorJob) { enqueue(.task(UnownedJob(job))) }

    private func enqueue(_ job: Job) {
        let begins = state.withLock { state in
            state.jobs.append(job)
            defer { state.isRunning = true }
            return !state.isRunning
        }
        if begins { queue.async { self.run() } }
    }

    private func run() {
        while true {
            let jobs = state.withLock { state in
                defer { state.jobs = [] }
                return state.jobs
            }
            for job in jobs {
                switch job {
                case .task(let job): unsafe job.runSynchronously(on: asUnownedTaskExecutor())
                case .call(let body): body()
                }
            }
            guard jobs.isEmpty else { continue }
            guard let first = firstSleeper() else {
                let isOver = state.withLock { state in
                    if state.jobs.isEmpty { state.isRunning = false }
                    return !state.isRunning
                }
                guard isOver else { continue }
                return
            }
            pass(to: first.end)
            first.wake()
        }
    }

    /// Whose moment comes first; of several, who fell asleep first.
    private func firstSleeper() -> Sleeper? {
        state.withLock { state in
            guard state.jobs.isEmpty, let first = state.sleepers.min(by: { ($0.end, $0.number) < ($1.end, $1.number) })
            else { return nil }
            state.sleepers.removeAll { $0.number == first.number }
            return first
        }
    }
}
