internal import Synchronization
internal import Volumes

/// The walk of a move along its source's snapshots, and the record of how far it has come.
final class Walk: Sendable {
    private let move: Move
    private let noted: Mutex<Record>
    /// One for all steps, so that none begins with a burst.
    private let pacing: Pacing

    init(_ move: Move, record: Record) {
        self.move = move
        noted = Mutex(record)
        pacing = Pacing(move.options.bandwidth)
    }

    var record: Record { noted.withLock { $0 } }

    private func note(_ change: @Sendable (inout Record) -> Void) async throws(VolumeError) {
        let record = noted.withLock { record in
            change(&record)
            return record
        }
        try await move.target.save(record: record.text())
    }

    /// Takes every step there is, and those that come up meanwhile.
    ///
    /// - Parameter seen: The source as it was just now.
    /// - Returns: The source as it was when nothing was left to do, and the state that the target is in.
    func run(
        from seen: VolumeDescription, _ report: inout Report
    ) async throws(MoveError) -> (description: VolumeDescription, arrived: Snapshot?) {
        var frozen = try await staged(.underWay) { () throws(VolumeError) in try await freeze() }
        let route = try await staged(.underWay) { () throws(VolumeError) in
            if let shorter = try await move.target.route(from: move.source) { return shorter }
            return StreamRoute(
                source: move.source, target: move.target, granularity: move.options.granularity) as any Route
        }
        report.route = route is StreamRoute ? .stream : .objects
        // What is walked along was seen after it was frozen: a snapshot taken between the two is older than the head.
        var description = frozen.isEmpty ? move.carried(seen) : try await describe()
        report.snapshotsFoundFinished = try await staged(.underWay) { () throws(VolumeError) in
            try await move.target.kept().count
        }
        while true {
            let kept = try await staged(.underWay) { () throws(VolumeError) in
                try await move.target.kept().map(\.name)
            }
            guard !frozen.isEmpty else {
                try await take(
                    Step(base: nil, goal: .head, size: description.size), along: route, title: "head", &report)
                try await refuseIfChanged()
                return (description, nil)
            }
            let lineage = try lineage(along: description, frozen, kept)
            try await mendKept(lineage)
            for (index, step) in lineage.steps.enumerated() {
                let title = title(of: step, kept.count + index + 1, description)
                try await take(step, along: route, title: title, &report)
            }
            let arrived = lineage.steps.last?.goal.snapshot ?? lineage.arrived
            move.progress.begin("looking whether \(move.source.address) was written to meanwhile")
            let isUnchanged = try await staged(.underWay) { () throws(VolumeError) in
                try await move.source.isUnchanged(since: arrived)
            }
            // Anew each time: a snapshot that the user takes meanwhile is one more step.
            let present = try await describe()
            let hasNewSnapshots = present.snapshots != description.snapshots
            description = present
            if isUnchanged, !hasNewSnapshots { return (description, arrived) }
            if hasNewSnapshots { continue }
            // A writer came meanwhile. If it has gone again, what it wrote is one more step.
            try await Preflight(move).refuseSourceObstacles()
            let name = Snapshot.transientName(.random(in: .min ... .max))
            let newest = try await staged(.underWay) { () throws(VolumeError) in
                try await note { $0.transients.append(name) }
                return try await move.source.freeze(as: name)
            }
            if let newest { frozen.append(newest) }
            description = try await describe()
        }
    }

    /// A run may have been ended while it kept a snapshot: that is made whole before anything else is written.
    private func mendKept(_ lineage: Lineage) async throws(MoveError) {
        guard record.isUnderWay, let kept = lineage.arrived, kept.id == record.goal, !kept.isTransient else { return }
        try await staged(.underWay) { () throws(VolumeError) in
            try await move.target.mend(kept)
            try await noteArrival(at: kept.id)
        }
    }

    private func noteArrival(at goal: UInt64?) async throws(VolumeError) {
        try await note {
            $0.isUnderWay = false
            $0.arrived = goal
            $0.goal = nil
            $0.settledBytes = 0
        }
    }

    private func describe() async throws(MoveError) -> VolumeDescription {
        try await staged(.underWay) { () throws(VolumeError) in move.carried(try await move.source.describe()) }
    }

    /// A source that can't hold a state must have stayed as it was by itself.
    private func refuseIfChanged() async throws(MoveError) {
        let isUnchanged = try await staged(.underWay) { () throws(VolumeError) in
            try await move.source.isUnchanged(since: nil)
        }
        guard !isUnchanged else { return }
        throw MoveError(
            .noTarget, ["\(move.source.address) was changed while it was being moved"],
            advice: "Remove what was made ('godwit abort \(move.target.address)'), and move it while nobody writes.")
    }

    /// The states that the source holds for this move, oldest first; the newest is the head.
    private func freeze() async throws(VolumeError) -> [Snapshot] {
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
        var frozen: [Snapshot] = []
        for name in record.transients {
            guard let snapshot = try await move.source.freeze(as: name) else {
                // Nothing is left on a source that can't hold a state.
                try await note { $0.transients = [] }
                return []
            }
            frozen.append(snapshot)
        }
        return frozen
    }

    private func lineage(
        along description: VolumeDescription, _ frozen: [Snapshot], _ kept: [String]
    ) throws(MoveError) -> Lineage {
        let record = record
        do throws(Lineage.Broken) {
            return try Lineage(
                carried: description.snapshots, frozen: frozen, kept: kept, arrived: record.arrived,
                goal: record.isUnderWay ? record.goal : nil)
        } catch {
            let what =
                switch error {
                case .stateGone: "the snapshot that it was brought to is no more at \(move.source.address)"
                case .keptGone(let name): "snapshot \(name) was removed from \(move.source.address), or made anew"
                }
            throw cantGoOn(what)
        }
    }

    private func cantGoOn(_ why: String) -> MoveError {
        MoveError(
            .noTarget, ["\(move.target.address) can't be gone on with: \(why)"],
            advice: "Begin anew after 'godwit abort \(move.target.address)'.")
    }

    private func title(of step: Step, _ number: Int, _ description: VolumeDescription) -> String {
        guard let snapshot = step.goal.snapshot, !snapshot.isTransient else { return "head" }
        return "snapshot \(snapshot.name) (\(number) of \(description.snapshots.count))"
    }

    private func take(
        _ step: Step, along route: any Route, title: String, _ report: inout Report
    ) async throws(MoveError) {
        let began = ContinuousClock.now
        move.progress.begin(title)
        let goal = step.goal.snapshot?.id
        let isRepeated = record.isUnderWay && record.goal == goal
        let kind = report.route
        let start = isRepeated && record.route == kind ? ByteOffset(record.settledBytes) : .zero
        let mover: any StepMover
        do throws(VolumeError) {
            if !isRepeated || record.route != kind {
                try await note {
                    $0.isUnderWay = true
                    $0.route = kind
                    $0.arrived = step.base?.id
                    $0.goal = goal
                    $0.settledBytes = 0
                }
            }
            try await move.target.resize(to: step.size)
            mover = try await route.begin(step, resumed: isRepeated ? start : nil)
        } catch {
            throw await explained(error, step)
        }
        let outcome: Round.Outcome
        do throws(VolumeError) {
            outcome = try await Round(
                mover: mover, options: move.options, pacing: pacing, progress: move.progress, stop: move.stop,
                settle: { offset throws(VolumeError) in
                    try await mover.settle(upTo: offset)
                    try await self.note { $0.settledBytes = offset.bytes }
                }
            ).run(from: start)
            if outcome == .finished { try await mover.finish() }
        } catch {
            await mover.close()
            throw await explained(error, step)
        }
        await mover.close()
        let moved = move.progress.current.moved
        report.steps.append(
            Report.StepReport(
                snapshot: step.goal.snapshot.flatMap { $0.isTransient ? nil : $0.name }, means: mover.means,
                foundBytes: moved.found.bytes, sentBytes: moved.sent.bytes, copiedBytes: moved.copied.bytes,
                zeroedBytes: moved.zeroed.bytes, seconds: (ContinuousClock.now - began).seconds))
        guard outcome == .finished else {
            throw MoveError(.resumable, ["stopped at \(title)"])
        }
        // What was read of a snapshot that was removed meanwhile is something else: before anything is kept of it.
        if let gone = try await staged(.underWay, { () throws(VolumeError) in try await missing(of: step) }) {
            throw cantGoOn("snapshot \(gone.name) was removed from \(move.source.address) meanwhile")
        }
        try await staged(.underWay) { () throws(VolumeError) in
            if let snapshot = step.goal.snapshot, !snapshot.isTransient { try await move.target.keep(snapshot) }
            try await noteArrival(at: goal)
        }
    }

    /// The snapshot that a step needs and the source doesn't hold any more.
    private func missing(of step: Step) async throws(VolumeError) -> Snapshot? {
        for needed in [step.base, step.goal.snapshot].compactMap(\.self) {
            guard try await move.source.holds(needed) else { return needed }
        }
        return nil
    }

    /// What a failure of a step means: without the snapshots that it goes from and to, it can't be gone on with.
    private func explained(_ error: VolumeError, _ step: Step) async -> MoveError {
        guard error.kind != .unreachable, let gone = try? await missing(of: step) else {
            return MoveError(error, at: .underWay)
        }
        return cantGoOn("snapshot \(gone.name) was removed from \(move.source.address) meanwhile")
    }
}
