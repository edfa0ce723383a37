internal import DirtyMap
internal import Synchronization
internal import Volumes

/// The walk of a move along its source's states, and the record of how far it has come.
final class Walk: Sendable {
    /// Looks at what a step found before it is moved, and says whether to move it.
    typealias Observer = @Sendable (_ dirtied: ByteCount, _ inMap: ByteCount) async -> Bool

    /// Which of the steps there are an observer looks at.
    enum Observed { case last, each }

    enum Arrival: Equatable {
        /// At the newest state that the source holds.
        case at(Snapshot?)
        /// The observer would rather not.
        case declined
    }

    private struct State {
        var record: Record
        /// The states that the source holds for this move, oldest first; the newest is the head. None on a source that
        /// can't hold one.
        var frozen: [Snapshot] = []
        /// What the source's user had when the walk was last planned.
        var carried: [Snapshot] = []
        var route: (any Route)?
        var drained: (bytes: ByteCount, time: Duration) = (.zero, .zero)
        var verified = Verified()
    }

    let move: Move
    private let state: Mutex<State>
    /// One for all steps, so that none begins with a burst.
    private let pacing: Pacing

    init(_ move: Move, record: Record) {
        self.move = move
        state = Mutex(State(record: record))
        pacing = Pacing(move.controls, move.time)
    }

    var record: Record { state.withLock { $0.record } }
    var frozen: [Snapshot] { state.withLock { $0.frozen } }
    /// The user's snapshots as they were when the walk was last planned.
    var carried: [Snapshot] { state.withLock { $0.carried } }

    /// The state that the target is in, if the source has it still.
    var arrived: Snapshot? {
        state.withLock { state in (state.carried + state.frozen).first { $0.id == state.record.arrived } }
    }

    var takesStillHeads: Bool { state.withLock { $0.route?.takesStillHeads ?? false } }

    var verified: Verified { state.withLock { $0.verified } }
    /// The user's snapshots that weren't compared yet.
    var unverified: [Snapshot] {
        state.withLock { state in state.carried.filter { !state.verified.snapshots.contains($0.id) } }
    }
    /// - Parameter head: The head's state, if it was compared.
    func noteVerified(_ snapshots: [UInt64], head: Snapshot?) {
        state.withLock { state in
            state.verified.snapshots.formUnion(snapshots)
            if let head {
                state.verified.isHead = true
                state.verified.since = Verified.Moved()
                state.verified.since.size = head.size
            }
        }
    }

    /// What was drained since this was last asked, and in how much time.
    func takeDrained() -> (bytes: ByteCount, time: Duration) {
        state.withLock { state in
            defer { state.drained = (.zero, .zero) }
            return state.drained
        }
    }

    /// Called when the operator halts the move.
    func whenPaused(_ body: @escaping @Sendable () async -> Void) { pacing.whenPaused(body) }

    /// While a writer is held still nothing waits, whatever the operator ordered.
    func hurry(_ isHurried: Bool) { pacing.hurry(isHurried) }

    func note(_ change: @Sendable (inout Record) -> Void) async throws(VolumeError) {
        let record = state.withLock { state in
            change(&state.record)
            return state.record
        }
        try await move.target.save(record: record.text())
    }

    // MARK: Along the states

    /// Has the source hold its head, and chooses the way for the bytes.
    func begin(_ report: inout Report) async throws(MoveError) {
        try await staged(.underWay) { () throws(VolumeError) in try await freezeAll() }
        let route = try await staged(.underWay) { () throws(VolumeError) in
            if let shorter = try await move.target.route(from: move.source) { return shorter }
            return StreamRoute(
                source: move.source, target: move.target, granularity: move.options.granularity) as any Route
        }
        state.withLock { $0.route = route }
        report.route = route is StreamRoute ? .stream : .objects
        report.snapshotsFoundFinished = record.kept.count
    }

    /// Takes every step there is, to the newest state that the source holds.
    ///
    /// - Parameters:
    ///   - title: What the last of them is to be called.
    ///   - observed: Which of them `observer` looks at.
    func catchUp(
        as title: String = "head", _ report: inout Report, observed: Observed = .last, observer: Observer? = nil
    ) async throws(MoveError) -> Arrival {
        while true {
            let lineage = try await plan()
            guard let step = lineage.steps.first else { return .at(lineage.arrived) }
            let end = try await take(
                step, title: self.title(of: step) ?? title, &report,
                observer: lineage.steps.count == 1 || observed == .each ? observer : nil
            )
            if end == .declined { return .declined }
        }
    }

    /// From the source's base, or from nothing, to the head of a source that can't hold a state.
    func takeHead(_ size: ByteCount, _ report: inout Report) async throws(MoveError) {
        _ = try await take(Step(base: move.source.base, goal: .head, size: size), title: "head", &report, observer: nil)
    }

    /// What is to be done as things stand. Brings the target's snapshots in line first.
    private func plan() async throws(MoveError) -> Lineage {
        try await staged(.underWay) { () throws(VolumeError) in
            while true {
                let standing = try await move.source.standing()
                let carried = move.options.snapshots == .none ? [] : standing.snapshots
                let frozen = state.withLock { state in
                    state.carried = carried
                    state.frozen.removeAll { gone in !standing.transients.contains { $0.id == gone.id } }
                    return state.frozen
                }
                try await reconcile(with: carried)
                let record = record
                let lineage = Lineage(
                    carried: carried, frozen: frozen, arrived: record.arrived,
                    goal: record.isUnderWay ? record.goal : nil, isMixed: record.isMixed)
                // Somebody removed what the source held for us, or the state that the target was going to, the newest.
                guard frozen.isEmpty || (lineage.steps.isEmpty && (record.isUnderWay || lineage.arrived == nil)) else {
                    return lineage
                }
                try await freezeAnew()
            }
        }
    }

    /// Makes the target's snapshots those that the source has now.
    private func reconcile(with carried: [Snapshot]) async throws(VolumeError) {
        let record = record
        let plan = KeptPlan(noted: record.kept, carried: carried, present: try await move.target.kept())
        guard !plan.isEmpty || plan.rest != record.kept else { return }
        guard plan.lost.isEmpty else {
            throw VolumeError(
                .damaged, "kept", on: move.target.address, reason: "a snapshot that it had kept is gone",
                advice: "Begin anew after 'godwit abort \(move.target.address)'.")
        }
        for snapshot in plan.unknown {
            guard record.isUnderWay, let name = record.goalName, snapshot.isNamed(name) else {
                throw VolumeError(
                    .exists, "keep", on: "\(move.target.address)@\(snapshot.name)",
                    reason: "the unfinished target has a snapshot that isn't this move's",
                    advice: "Remove it, then give the same command again.")
            }
            // A run was ended in keeping it. Nothing was written since: made anew, all of it is right.
            try await move.target.drop(snapshot)
        }
        for snapshot in plan.drops { try await move.target.drop(snapshot) }
        for change in plan.changes { try await move.target.alter(change.kept, to: change.wanted) }
        try await note { $0.kept = plan.rest }
    }

    // MARK: What the source holds

    /// Has the source hold each state that the record knows of, and one at least.
    private func freezeAll() async throws(VolumeError) {
        let client = move.source.client
        if record.transients.isEmpty {
            let name = Snapshot.transientName(.random(in: .min ... .max))
            try await note {
                $0.sourceClient = client
                $0.transients = [name]
            }
        } else if record.sourceClient != client {
            try await note { $0.sourceClient = client }
        }
        try await move.source.number(after: max(record.arrived ?? 0, record.goal ?? 0))
        for name in record.transients {
            guard let snapshot = try await move.source.freeze(as: name) else {
                // Nothing is left on a source that can't hold a state.
                return try await note { $0.transients = [] }
            }
            state.withLock { $0.frozen.append(snapshot) }
        }
        state.withLock { $0.frozen.sort { $0.id < $1.id } }
    }

    /// Has the source hold its head as it is now.
    func freezeAnew() async throws(VolumeError) {
        let name = Snapshot.transientName(.random(in: .min ... .max))
        try await note { $0.transients.append(name) }
        guard let newest = try await move.source.freeze(as: name) else { return }
        state.withLock { $0.frozen.append(newest) }
    }

    /// Removes what the source holds besides the state that the target is in.
    func dropOlder() async throws(VolumeError) {
        guard let newest = frozen.last else { return }
        let older = record.transients.filter { !newest.isNamed($0) }
        guard !older.isEmpty else { return }
        for name in older { try await move.source.thaw(name) }
        state.withLock { $0.frozen = [newest] }
        try await note { record in record.transients.removeAll { older.contains($0) } }
    }

    // MARK: One step

    private func title(of step: Step) -> String? {
        guard let snapshot = step.goal.snapshot, !snapshot.isTransient else { return nil }
        let carried = carried
        let number = (carried.firstIndex { $0.id == snapshot.id } ?? 0) + 1
        return "snapshot \(snapshot.name) (\(number) of \(carried.count))"
    }

    enum StepEnd {
        case arrived
        /// The observer would rather not.
        case declined
        /// The source lacks a state that the step needs: it has to be planned anew.
        case lost
    }

    func take(
        _ step: Step, title: String, _ report: inout Report, observer: Observer?, isStillHead: Bool = false
    ) async throws(MoveError) -> StepEnd {
        let began = move.time.now()
        move.progress.begin(title)
        let mover: any StepMover
        let start: ByteOffset
        do throws(VolumeError) {
            let resumed = isStillHead ? nil : try await noteBeginning(of: step, along: report.route)
            start = resumed ?? .zero
            try await move.target.resize(to: step.size)
            guard let route = state.withLock({ $0.route }) else { preconditionFailure("a walk begins with its route") }
            mover = try await route.begin(step, resumed: resumed)
        } catch {
            return try await noteLoss(of: step, or: error)
        }
        let outcome: Round.Outcome
        do throws(VolumeError) {
            let round = Round(
                mover: mover, options: move.options, pacing: pacing, time: move.time, progress: move.progress,
                stop: move.stop,
                settle: { offset throws(VolumeError) in
                    try await mover.settle(upTo: offset)
                    if !isStillHead { try await self.note { $0.settledBytes = offset.bytes } }
                })
            let map = try await round.fill(from: start)
            if let observer, await !observer(mover.dirtied ?? map.dirtyBytes, map.dirtyBytes) {
                await mover.close()
                return .declined
            }
            noteMoved(map, step.size)
            let begun = move.time.now()
            outcome = try await round.drain(map, from: start)
            if outcome == .finished { try await mover.finish() }
            let moved = move.progress.current.moved
            state.withLock { state in
                state.drained.bytes += max(moved.found, moved.sent + moved.copied)
                state.drained.time += move.time.now() - begun
            }
        } catch {
            await mover.close()
            return try await noteLoss(of: step, or: error)
        }
        await mover.close()
        report.add(
            step, means: mover.means, move.progress.current.moved, seconds: (move.time.now() - began).seconds)
        guard outcome == .finished else { throw MoveError(.resumable, ["stopped at \(title)"]) }
        guard !isStillHead else { return .arrived }
        // What was read of a snapshot that was removed meanwhile is something else: before anything is kept of it.
        guard try await staged(.underWay, { () throws(VolumeError) in try await holds(step) }) else {
            return try await noteLoss(of: step, or: nil)
        }
        try await staged(.underWay) { () throws(VolumeError) in try await noteArrival(at: step.goal.snapshot) }
        return .arrived
    }

    /// Remembers what is about to be moved, until it is compared.
    private func noteMoved(_ map: DirtyMap, _ size: ByteCount) {
        guard verified.isHead else { return }
        let runs = ExtentSet(map.runs())
        state.withLock { state in
            if size != state.verified.since.size { state.verified.since.isResized = true }
            state.verified.since.space = map.size
            state.verified.since.extents = state.verified.since.extents.union(runs)
        }
    }

    /// - Returns: Where an earlier run of the very step had come to; nothing if nothing of it can be there.
    private func noteBeginning(
        of step: Step, along route: Report.RouteKind?
    ) async throws(VolumeError) -> ByteOffset? {
        let record = record
        let goal = step.goal.snapshot
        let isRepeated = record.isUnderWay && record.goal == goal?.id
        let name = goal.flatMap { $0.isTransient ? nil : $0.name }
        let isSame =
            isRepeated && record.route == route && record.arrived == step.base?.id && record.isMixed == step.isMixed
            && record.goalName.map { known in name.map { known.utf8.elementsEqual($0.utf8) } ?? false } ?? (name == nil)
        if isSame { return ByteOffset(record.settledBytes) }
        try await note { record in
            record.isUnderWay = true
            record.route = route
            record.arrived = step.base?.id
            record.goal = goal?.id
            record.goalName = name
            record.isMixed = step.isMixed
            record.settledBytes = 0
        }
        return isRepeated ? .zero : nil
    }

    private func noteArrival(at goal: Snapshot?) async throws(VolumeError) {
        var kept: [Kept] = []
        if let goal, !goal.isTransient {
            kept = [Kept(source: goal.id, target: try await move.target.keep(goal).id)]
        }
        let new = kept
        try await note { record in
            record.isUnderWay = false
            record.isMixed = false
            record.arrived = goal?.id
            record.goal = nil
            record.goalName = nil
            record.settledBytes = 0
            record.kept += new
        }
    }

    /// The source lacks a state that the step needs; otherwise throws what it failed of.
    private func noteLoss(of step: Step, or error: VolumeError?) async throws(MoveError) -> StepEnd {
        if let error {
            // What is asked for by its name isn't found under it any more.
            if error.kind == .missing, (try? await isRenamed(step)) == true { return .lost }
            guard error.kind != .unreachable, (try? await holds(step)) == false else {
                throw MoveError(error, at: .underWay)
            }
        }
        // What stands at the target may be of any state that came after the base.
        try await staged(.underWay) { () throws(VolumeError) in
            try await note { record in
                record.isUnderWay = true
                record.isMixed = true
                record.settledBytes = 0
            }
        }
        return .lost
    }

    /// Whether a state that a step goes from or to has another name now.
    private func isRenamed(_ step: Step) async throws(VolumeError) -> Bool {
        let standing = try await move.source.standing()
        return [step.base, step.goal.snapshot].compactMap(\.self).contains { needed in
            (standing.snapshots + standing.transients).contains { $0.id == needed.id && !$0.isNamed(needed.name) }
        }
    }

    /// Whether the source holds the states that a step goes from and to.
    private func holds(_ step: Step) async throws(VolumeError) -> Bool {
        for needed in [step.base, step.goal.snapshot].compactMap(\.self) {
            guard try await move.source.holds(needed) else { return false }
        }
        return true
    }
}
