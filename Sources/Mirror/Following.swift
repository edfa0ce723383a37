internal import Convergence
internal import Cutover
internal import Synchronization
internal import Volumes

/// Moves a volume while its clients go on writing: round after round, each a diff on the state before, until what is
/// left is moved while the writer is held still.
final class Following: Sendable {
    struct State {
        var convergence: Convergence
        /// When the newest state was held.
        var held: Duration = .zero
        /// Whether nothing that is allowed makes it converge.
        var isStalled = false
        /// Attempts to hand over that were given up, and when the next may be made.
        var attempts = 0
        var nextAttempt: Duration = .zero
        /// How long comparing one byte takes, going by the last time; seconds.
        var comparingByte: Double?
        /// Whether what was moved was compared since the last attempt to hand over.
        var isComparedAhead = false
        /// The operator's word on the limit that was put into effect last.
        var ordered = MoveControls.Throttle.auto
        /// Since when nothing but the clients' leaving is waited for.
        var waitingSince: Duration?
    }

    /// Rounds that only keep the last one short come no sooner after each other.
    private static let shortestGap = Duration.seconds(2)
    /// The same where rounds don't get any shorter: each costs the writer a snapshot.
    private static let longGap = Duration.seconds(10)
    /// How often it is looked whether the clients have left, or an order came.
    private static let lookInterval = Duration.milliseconds(100)
    /// A rate that was measured longer ago says nothing of a writer that paused just then.
    private static let staleAfter = Duration.seconds(30)
    private static let mostRoundsReported = 1000
    /// Each attempt to hand over holds the writer still: after so many that were given up, they become rarer.
    private static let attemptsAtOnce = 3
    private static let longestWait = Duration.seconds(60)

    let move: Move
    let walk: Walk
    let source: any LiveSource
    let live: LiveOptions
    let state: Mutex<State>

    init(_ move: Move, _ walk: Walk, source: any LiveSource, _ live: LiveOptions) {
        self.move = move
        self.walk = walk
        self.source = source
        self.live = live
        var settings = live.convergence
        settings.compares = move.options.verifies
        state = Mutex(State(convergence: Convergence(settings)))
    }

    var time: Timekeeper { move.time }
    var controls: MoveControls { move.controls }
    var status: LiveStatus { move.status }

    /// To the end of the move: the target has its name, and the writer is at it.
    func run(_ report: inout Report) async throws(MoveError) {
        report.rounds = []
        report.snapshotSeconds = 0
        do throws(MoveError) {
            try await follow(&report)
        } catch {
            // Whatever happened, nobody is left slowed. A volume that doesn't answer isn't asked once more; what stands
            // there is taken back by the next run, or by 'godwit doctor'.
            if !error.isUnanswered { try? await source.lift() }
            try? await live.hold?.limiter?.lift()
            throw error
        }
    }

    private func follow(_ report: inout Report) async throws(MoveError) {
        // An earlier run may have left its limit.
        try await staged(.underWay) { () throws(VolumeError) in try await source.lift() }
        walk.whenPaused { [weak self] in await self?.lift() }
        try await walk.begin(&report)
        state.withLock { $0.held = time.now() }
        _ = try await walk.catchUp(&report)
        if let hold = live.hold {
            let switching = try await staged(.underWay) { () throws(VolumeError) in try await hold.rehearse() }
            state.withLock {
                $0.convergence.expect(handOverCost: HandOver.cost(switching: switching, isOurOwn: hold.isOurOwn))
            }
        }
        let bulk = walk.takeDrained()
        lastDrained.withLock { $0 = bulk }
        try await staged(.underWay) { () throws(VolumeError) in try await walk.dropOlder() }
        status.change { $0.phase = .following }
        while true {
            let decision = try await round(&report)
            let next = try await next(after: decision)
            try await waitWhilePaused()
            guard next != .anotherRound else { continue }
            // What takes its time is compared while the writer goes on; what it writes meanwhile is one more round.
            if try await verifyAhead(&report) { continue }
            switch try await HandOver(self, isForced: next == .handOverAllTheSame).run(&report) {
            case .done: return
            case .notNow(let why):
                report.attempts = (report.attempts ?? 0) + 1
                tell("the hand-over was given up: \(why)")
                afterAttempt()
            }
        }
    }

    /// Whether the user's snapshots are others than those that the target has.
    func haveSnapshotsChanged() async throws(MoveError) -> Bool {
        guard move.options.snapshots == .all else { return false }
        let standing = try await staged(.underWay) { () throws(VolumeError) in try await source.standing() }
        return standing.snapshots != walk.carried
    }

    /// Neither rounds nor a hand-over while the operator halts the move.
    private func waitWhilePaused() async throws(MoveError) {
        guard controls.isPaused else { return }
        await lift()
        while controls.isPaused {
            try refuseIfStopped()
            move.progress.notice("paused: 'godwit resume' goes on")
            await time.sleep(Self.lookInterval)
        }
    }

    // MARK: A round

    private func round(_ report: inout Report) async throws(MoveError) -> Convergence.Decision? {
        try refuseIfStopped()
        // What an attempt to hand over has begun.
        if walk.record.isUnderWay {
            _ = try await walk.catchUp(&report)
            try await staged(.underWay) { () throws(VolumeError) in try await walk.dropOlder() }
        }
        let number = status.current.roundCount + 1
        _ = walk.takeDrained()
        let began = time.now()
        move.progress.begin("round \(number): holding a state of \(move.source.address)")
        try await staged(.underWay) { () throws(VolumeError) in try await walk.freezeAnew() }
        let held = time.now()
        let interval =
            held
            - state.withLock { state in
                defer { state.held = held }
                return state.held
            }
        let drainedBefore = lastDrained.withLock { $0 }
        let seen = Mutex<(decision: Convergence.Decision, dirtied: ByteCount, inMap: ByteCount)?>(nil)
        _ = try await walk.catchUp(as: "round \(number)", &report) { [self] dirtied, inMap in
            let decision = decide(
                Convergence.Observation(
                    sent: drainedBefore.bytes, draining: drainedBefore.time, dirtied: dirtied, interval: interval,
                    overhead: time.now() - began, bandwidth: controls.bandwidth))
            seen.withLock { $0 = (decision, dirtied, inMap) }
            await apply(decision)
            return true
        }
        let drained = walk.takeDrained()
        lastDrained.withLock { $0 = drained }
        try await staged(.underWay) { () throws(VolumeError) in try await walk.dropOlder() }
        guard let seen = seen.withLock({ $0 }) else { return nil }
        let decision = seen.decision
        let entry = Report.RoundReport(
            sentBytes: drained.bytes.bytes, dirtiedBytes: seen.dirtied.bytes, mapBytes: seen.inMap.bytes,
            seconds: (time.now() - began).seconds, snapshotSeconds: (held - began).seconds,
            drainBytesPerSecond: decision.drainRate.bytesPerSecond,
            dirtyBytesPerSecond: decision.dirtyRate.bytesPerSecond,
            predictedPauseSeconds: decision.predictedPause.seconds, verdict: decision.verdict.text,
            reason: decision.reason, limitBytesPerSecond: status.current.limit?.bytesPerSecond)
        if report.rounds?.count ?? 0 < Self.mostRoundsReported { report.rounds?.append(entry) }
        report.snapshotSeconds = (report.snapshotSeconds ?? 0) + entry.snapshotSeconds
        status.add(entry)
        return decision
    }

    /// What the round before moved, and how long that took.
    private let lastDrained = Mutex<(bytes: ByteCount, time: Duration)>((.zero, .zero))

    private func decide(_ seen: Convergence.Observation) -> Convergence.Decision {
        // The operator's own limit, or none, leaves nothing to be computed.
        let mayCompute = controls.throttle == .auto
        return state.withLock { state in
            if live.hold == nil || !isDue {
                state.convergence.settings.throttle = .later
            } else {
                state.convergence.settings.throttle = mayCompute ? .now : .never
            }
            return state.convergence.decide(seen)
        }
    }

    /// Whether the move is to come to its end by itself.
    private var isDue: Bool { live.cutover == .auto || controls.isCutoverAsked }

    /// Puts a verdict into effect.
    private func apply(_ decision: Convergence.Decision) async {
        let ordered = controls.throttle
        state.withLock { $0.ordered = ordered }
        switch (ordered, decision.verdict) {
        case (.limit(let rate), _): if status.current.limit != rate { await limit(to: rate) }
        case (.auto, .throttle(let rate)): await limit(to: rate)
        case (.off, _), (.auto, .stalled): await lift()
        case (.auto, _): break
        }
        state.withLock { $0.isStalled = decision.verdict == .stalled }
    }

    /// Puts an operator's word on the limit into effect that came since the last round.
    private func obey() async {
        let ordered = controls.throttle
        let isNew = state.withLock { state in
            defer { state.ordered = ordered }
            return state.ordered != ordered
        }
        guard isNew else { return }
        switch ordered {
        case .limit(let rate): await limit(to: rate)
        case .off: await lift()
        // The next round tells whether there is to be one.
        case .auto: break
        }
    }

    private var limiter: any WriterLimit { live.hold?.limiter ?? source }

    private func limit(to rate: ByteRate) async {
        do throws(VolumeError) {
            let inForce = try await limiter.limit(to: rate)
            status.change { $0.limit = inForce }
        } catch {
            // A writer that can't be slowed may converge all the same; if it doesn't, that is said.
            tell("the writer can't be slowed: \(error)")
        }
    }

    func lift() async {
        guard status.current.limit != nil else { return }
        do throws(VolumeError) {
            try await limiter.lift()
            status.change { $0.limit = nil }
            state.withLock { $0.convergence.lifted() }
        } catch {
            tell("the limit of the writer couldn't be taken back yet: \(error)")
        }
    }

    /// After an attempt that was given up the writer goes on as it did before it.
    private func afterAttempt() {
        state.withLock { state in
            state.attempts += 1
            state.isComparedAhead = false
            state.held = time.now()
            let more = state.attempts - Self.attemptsAtOnce
            guard more > 0 else { return }
            state.nextAttempt = state.held + min(.seconds(1 << min(more, 6)), Self.longestWait)
        }
        status.change { $0.phase = .following }
    }

    // MARK: Between rounds

    private enum Next {
        case anotherRound
        case handOver
        /// However long it takes: the operator's choice.
        case handOverAllTheSame
    }

    /// Waits until it is time for another round, or to hand over.
    private func next(after decision: Convergence.Decision?) async throws(MoveError) -> Next {
        let isConverging = decision?.verdict != .stalled && !state.withLock { $0.isStalled }
        if live.hold != nil, isDue, isConverging {
            guard decision?.verdict == .handOver else { return .anotherRound }
            guard isTooSoon else { return .handOver }
            sayTooSoon()
        }
        let since = state.withLock { $0.held }
        if live.hold != nil, !isConverging { sayStalled(decision) }
        status.change { $0.phase = isConverging ? .ready : .following }
        move.progress.begin("following")
        while true {
            try refuseIfStopped()
            await obey()
            move.progress.notice(waiting(isConverging))
            if live.hold == nil {
                if isDue, try await isLeft() { return .handOver }
            } else if !isConverging || isTooSoon {
                if controls.isCutoverAsked { return .handOverAllTheSame }
            } else if isDue {
                return .anotherRound
            }
            await time.sleep(Self.lookInterval)
            let elapsed = time.now() - since
            let predicted = state.withLock { $0.convergence.predictedPause(after: elapsed) }
            status.change { $0.predictedPause = predicted }
            let gap = isConverging ? Self.shortestGap : Self.longGap
            if predicted > live.convergence.maxPause, elapsed >= gap { return .anotherRound }
            if live.hold != nil, elapsed >= Self.staleAfter { return .anotherRound }
        }
    }

    /// Whether no client has the source open any more.
    private func isLeft() async throws(MoveError) -> Bool {
        let writers = try await staged(.underWay) { () throws(VolumeError) in try await source.writers() }
        guard let writer = writers.first else {
            state.withLock { $0.waitingSince = nil }
            return true
        }
        let now = time.now()
        let since = state.withLock { state in
            let since = state.waitingSince ?? now
            state.waitingSince = since
            return since
        }
        guard now - since < live.patience else {
            throw MoveError(
                .resumable, ["\(writer.title) still has \(move.source.address) open, after \(live.patience.text)"],
                advice: "Stop that client, then give the same command again, which goes on from here; "
                    + "--freeze-timeout says how long it waits.")
        }
        status.change { $0.notice = "waiting until \(writer.title) has closed \(move.source.address)" }
        return false
    }

    /// What is waited for.
    private func waiting(_ isConverging: Bool) -> String? {
        if !isDue, isConverging { return "ready: 'godwit cutover' hands over" }
        return status.current.notice ?? "following"
    }

    /// After attempts that were given up.
    private var isTooSoon: Bool {
        let now = time.now()
        return state.withLock { now < $0.nextAttempt }
    }

    private func sayStalled(_ decision: Convergence.Decision?) {
        guard let why = decision?.reason ?? status.current.rounds.last?.reason else { return }
        say("it can't converge: \(why); \(Self.ways)")
    }

    private func sayTooSoon() {
        let attempts = state.withLock { $0.attempts }
        say(
            "\(attempts) attempts to hand over would have taken longer than \(live.convergence.maxPause.text); it tries "
                + "again within a minute; \(Self.ways)")
    }

    private static let ways = "'godwit cutover' hands over all the same, 'godwit cancel' gives it up"

    /// Says once what is waited for.
    private func say(_ notice: String) {
        if status.current.notice != notice { tell(notice) }
        status.change { $0.notice = notice }
    }

    func tell(_ text: String) {
        status.tell(text)
        move.progress.notice(text)
    }

    func refuseIfStopped() throws(MoveError) {
        guard move.stop.isAsked else { return }
        throw MoveError(.resumable, [controls.isCancelled ? "cancelled" : "stopped while following the writer"])
    }
}

extension Convergence.Verdict {
    var text: String {
        switch self {
        case .goOn: "go on"
        case .throttle(let rate): "throttle to \(rate.text)"
        case .handOver: "hand over"
        case .stalled: "stalled"
        }
    }
}
