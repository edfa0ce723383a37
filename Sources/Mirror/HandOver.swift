internal import Convergence
internal import Cutover
internal import Synchronization
internal import Volumes

/// The end of a live move: the writer is held still, the last of its bytes are moved, and it goes on at the target.
///
/// Until the commit the source is the only truth, and whatever fails lets the writer go on there.
struct HandOver {
    /// What fence and commit take once the last bytes are moved (Docs/Promises.md#pause).
    private static let commitCost = Duration.milliseconds(60)
    /// What the freeze, the last snapshot and its diff take before.
    private static let freezeCost = Duration.milliseconds(80)
    /// A command takes a moment to reach the writer; with its limit gone any earlier it would catch up first.
    private static let liftDelay = Duration.milliseconds(20)
    /// How soon a note is tried again on which all depends.
    private static let insistence = Duration.seconds(1)

    enum End {
        case done
        /// The writer goes on at the source.
        case notNow(String)
    }

    private let following: Following
    private var move: Move { following.move }
    private var walk: Walk { following.walk }
    private var source: any LiveSource { following.source }
    private var live: LiveOptions { following.live }
    private var time: Timekeeper { move.time }

    /// Whether it may take longer than was promised.
    private let isForced: Bool

    init(_ following: Following, isForced: Bool) {
        self.following = following
        self.isForced = isForced
    }

    /// What a hand-over takes besides draining, as things are.
    static func cost(switching: Duration) -> Duration { freezeCost + commitCost + switching }

    func run(_ report: inout Report) async throws(MoveError) -> End {
        do throws(MoveError) {
            let end = try await handOver(&report)
            await source.letGo()
            return end
        } catch {
            await source.letGo()
            throw error
        }
    }

    private func handOver(_ report: inout Report) async throws(MoveError) -> End {
        // What takes its time, and can be done before.
        let (seen, switching) = try await staged(.underWay) { () throws(VolumeError) in
            let seen = move.carried(try await source.describe())
            try await move.target.furnish(as: seen)
            let switching = try await live.hold?.rehearse() ?? .zero
            try await source.stayOpen()
            let title = live.hold?.title
            try await walk.note { $0.frozenBy = title }
            return (seen, switching)
        }
        let rest = Self.commitCost + switching
        following.status.change { $0.phase = .handingOver }
        move.progress.begin("handing over")
        var still = Standstill(at: time.now())
        walk.hurry(true)
        defer { walk.hurry(false) }
        do throws(MoveError) {
            try await freeze()
            still.parts.freeze = still.part(time.now())
            var end = try await lastRound(seen, rest: rest, &report, &still)
            while case .changed = end, still.hasEvicted { end = try await lastRound(seen, rest: rest, &report, &still) }
            // From here on only the commit's outcome lets the writer go on.
            if case .moved = end, !(live.hold?.seal() ?? true) { end = .tooLong(time.now() - still.began + rest) }
            switch end {
            case .moved(let description): try await commit(as: description, &still.parts)
            case .tooLong(let expected):
                let draining = Duration.seconds(still.parts.lastBytes + still.parts.verify)
                let cost = time.now() - still.began - draining + rest
                try await thaw()
                following.state.withLock {
                    $0.convergence.handOverFailed(
                        cost: cost, drained: still.moved, in: .seconds(still.parts.lastBytes))
                }
                return .notNow(
                    "it would have taken \(expected.text), longer than \(live.convergence.maxPause.text); the writer stood "
                        + "still for \((time.now() - still.began).text): \(still.parts.parts)")
            case .changed(let what):
                try await thaw()
                return .notNow(what)
            }
        } catch {
            try await thaw(after: error)
        }
        try await switchOver(&still)
        report.pause = still.parts
        following.status.change { $0.phase = .ending }
        return .done
    }

    /// The writer's, as it goes on.
    private struct Standstill {
        let began: Duration
        var parts = Report.Pause()
        /// Bytes that were drained in it.
        var moved = ByteCount.zero
        /// Whether a client was evicted: it couldn't go on at the source, so it is handed over, however long that takes.
        var hasEvicted = false
        private var last: Duration

        init(at now: Duration) { (began, last) = (now, now) }

        /// How long it took since the last part ended, in seconds.
        mutating func part(_ now: Duration) -> Double {
            defer { last = now }
            return (now - last).seconds
        }

        /// How long before `now` the last part ended.
        func since(_ now: Duration) -> Double { (now - last).seconds }
    }

    private enum LastRound {
        /// All is at the target, which is to be this.
        case moved(VolumeDescription)
        /// Longer than was promised: so long.
        case tooLong(Duration)
        /// The user's snapshots are others now, or a client came back whom nobody holds.
        case changed(String)
    }

    private func lastRound(
        _ seen: VolumeDescription, rest: Duration, _ report: inout Report, _ still: inout Standstill
    ) async throws(MoveError) -> LastRound {
        let changed = LastRound.changed("the snapshots of \(source.address) changed meanwhile")
        let began = still.began
        let expected = Mutex(Duration.zero)
        /// Whether it is still within what was promised, if it takes so much longer.
        @Sendable func fits(_ longer: Duration) -> Bool {
            let whole = time.now() - began + longer + rest
            expected.withLock { $0 = whole }
            return live.hold == nil || isForced || whole <= live.convergence.maxPause
        }
        if live.hold == nil, let back = try await clientBack() { return back }
        guard still.hasEvicted || live.fence != .blocklist || fits(.zero) else {
            return .tooLong(expected.withLock { $0 })
        }
        try await fence(&still)
        still.parts.fence += still.part(time.now())
        let diffed = Mutex((at: Duration.zero, bytes: ByteCount.zero))
        let drainRate = drainRate
        let hasEvicted = still.hasEvicted
        // As Convergence reckons, unless it is known better.
        let comparing = following.timeToCompare()
        let verifies = move.options.verifies
        try await staged(.underWay) { () throws(VolumeError) in try await walk.freezeAnew() }
        _ = walk.takeDrained()
        let arrival = try await walk.catchUp(as: "the last round", &report, observed: .each) {
            [time] dirtied, _ in
            diffed.withLock { $0 = (time.now(), $0.bytes + dirtied) }
            let draining = Duration.seconds(Double(dirtied.bytes) / max(1, drainRate))
            return hasEvicted || fits(draining + (verifies ? max(draining, comparing) : .zero))
        }
        let lastDiff = max(0, still.since(diffed.withLock { $0.at }))
        still.parts.lastDiff += lastDiff
        still.parts.lastBytes += still.part(time.now()) - lastDiff
        guard case .at(let arrived) = arrival else { return .tooLong(expected.withLock { $0 }) }
        still.moved += diffed.withLock { $0.bytes }
        if move.options.verifies, let arrived {
            do throws(MoveError) {
                try await verify(arrived, &report)
            } catch {
                if try await following.haveSnapshotsChanged() { return changed }
                throw error
            }
        }
        still.parts.verify += still.part(time.now())
        // Once more: whoever came meanwhile may have written, and whoever comes now must not. A client that is only
        // stopped has it open still, and its hold sees to that.
        if expectedClients == 0 {
            try await staged(.underWay) { () throws(VolumeError) in try await source.lockOut() }
        }
        if live.hold == nil, let back = try await clientBack() { return back }
        try await fence(&still)
        let isUnchanged = try await staged(.underWay) { () throws(VolumeError) in
            try await source.isUnchanged(since: arrived)
        }
        guard still.hasEvicted || fits(.zero) else {
            return .tooLong(expected.withLock { $0 })
        }
        // What was promised was over, and the writer went on.
        guard live.hold?.isHolding ?? true else { return .tooLong(time.now() - began + rest) }
        guard isUnchanged else {
            if live.hold == nil { return .changed("a client came, wrote to \(source.address), and left") }
            throw MoveError(
                .resumable, ["\(source.address): fence: it was written to while its writer was held still"],
                advice: "Something other than the frozen client writes to it.")
        }
        let standing = try await staged(.underWay) { () throws(VolumeError) in try await source.standing() }
        guard move.options.snapshots == .none || standing.snapshots == walk.carried else { return changed }
        still.parts.fence += still.part(time.now())
        var description = seen
        description.size = standing.size
        if move.options.snapshots == .all { description.snapshots = standing.snapshots }
        return .moved(description)
    }

    /// Nobody holds the clients that are waited for: one that comes back is followed on.
    private func clientBack() async throws(MoveError) -> LastRound? {
        let writers = try await staged(.underWay) { () throws(VolumeError) in try await source.writers() }
        return writers.first.map { .changed("\($0.title) has opened \(source.address) again") }
    }

    /// Who has the source open although it is held still.
    private var expectedClients: Int { live.hold?.clientsAtSource ?? 0 }

    private var drainRate: Double {
        Double(following.status.current.rounds.last?.drainBytesPerSecond ?? 100 << 20)
    }

    // MARK: The writer

    private func freeze() async throws(MoveError) {
        guard let hold = live.hold else { return await following.lift() }
        hold.promise(isForced ? nil : live.convergence.maxPause)
        // The limit goes only now: what is queued under it must not hold up the freeze.
        async let lifting: Void = liftSoon()
        let result: Result<Void, VolumeError>
        do throws(VolumeError) {
            result = .success(try await hold.freeze())
        } catch {
            result = .failure(error)
        }
        await lifting
        try await staged(.underWay) { () throws(VolumeError) in try result.get() }
    }

    private func liftSoon() async {
        guard following.status.current.limit != nil else { return }
        // Through a gate nothing is let that was queued.
        if live.hold?.isOurOwn != true { await time.sleep(Self.liftDelay) }
        await following.lift()
    }

    /// Makes sure that nobody can write to the source.
    private func fence(_ still: inout Standstill) async throws(MoveError) {
        let hasEvicted = try await staged(.underWay) { () throws(VolumeError) in
            let writers = try await source.writers()
            guard writers.count > expectedClients else { return false }
            guard live.fence == .blocklist, expectedClients == 0 else {
                throw VolumeError(
                    .busy, "fence", on: source.address,
                    reason: "\(writers.map(\.title).joined(separator: ", ")) has it open",
                    advice: "The freeze has to make every client close it; --fence blocklist evicts those that don't.")
            }
            for writer in writers { try await source.evict(writer.client) }
            return true
        }
        still.hasEvicted = still.hasEvicted || hasEvicted
    }

    /// Lets the writer go on at the source, as if nothing had been.
    private func thaw() async throws(MoveError) {
        // Who goes on writing needs the lock.
        await source.letGo()
        guard let hold = live.hold else { return }
        try await staged(.underWay) { () throws(VolumeError) in
            try await hold.thaw()
            try await walk.note { $0.frozenBy = nil }
        }
    }

    private func thaw(after failure: MoveError) async throws(MoveError) -> Never {
        do throws(MoveError) {
            try await thaw()
        } catch {
            throw MoveError(
                failure.kind, failure.lines + ["  and its writer couldn't be let go on:"] + error.lines,
                advice: "Let the writer go on by hand, or give the same command again, which does.")
        }
        throw failure
    }

    // MARK: The target

    private func commit(
        as description: VolumeDescription, _ pause: inout Report.Pause
    ) async throws(MoveError) {
        let began = time.now()
        do throws(VolumeError) {
            try await walk.note { $0.phase = .committing }
            try await move.target.commit(as: description)
        } catch {
            // It may have its name all the same.
            try? await uncommit()
            throw MoveError(error, at: .underWay)
        }
        pause.commit = (time.now() - began).seconds
    }

    private func uncommit() async throws(VolumeError) {
        if case .committed = try await move.target.state() { try await move.target.uncommit() }
        try await walk.note { $0.phase = .copying }
    }

    private func switchOver(_ still: inout Standstill) async throws(MoveError) {
        let began = time.now()
        do throws(VolumeError) {
            try await live.hold?.switchOver()
        } catch {
            let failure = MoveError(error, at: .underWay)
            do throws(VolumeError) {
                try await uncommit()
            } catch  where live.hold?.isOurOwn == true {
                // It can't be at the target: whoever comes next sees at the source what became of it, and goes by that.
            } catch {
                throw MoveError(
                    .resumable,
                    failure.lines + [
                        "  \(move.target.address) is finished, and \(error.reason): its writer isn't let go on"
                    ],
                    advice: "See whether the writer is at \(move.target.address); then give the same command again.")
            }
            try await thaw(after: failure)
        }
        func goesOn() {
            still.parts.switch = (time.now() - began).seconds
            still.parts.seconds = (time.now() - still.began).seconds
        }
        guard live.hold?.isOurOwn == true else {
            goesOn()
            return try await staged(.underWay) { () throws(VolumeError) in
                try await noteSwitch()
                try await live.hold?.leaveSource()
            }
        }
        // Whether a note arrived whose answer was lost can't be told, and a run to come would go by it: there is only
        // the way forward.
        while true {
            do throws(VolumeError) {
                try await noteSwitch()
                break
            } catch {
                guard mayPass(error.kind), !move.stop.isAsked else { throw MoveError(error, at: .underWay) }
                following.tell("the writer waits, until \(move.target.address) says where it belongs: \(error)")
                await time.sleep(Self.insistence)
            }
        }
        goesOn()
        try await staged(.underWay) { () throws(VolumeError) in try await live.hold?.leaveSource() }
    }

    /// Whether the same may succeed later, with nothing else done; not where another has taken the target over.
    private func mayPass(_ kind: VolumeError.Kind) -> Bool {
        switch kind {
        case .unreachable, .failed, .full, .damaged: true
        case .missing, .exists, .forbidden, .busy, .unsupported: false
        }
    }

    private func noteSwitch() async throws(VolumeError) {
        try await walk.note { record in
            record.phase = .switched
            record.frozenBy = nil
        }
    }

    // MARK: Verification

    /// Only what was moved since the rest was compared.
    private func verify(_ arrived: Snapshot, _ report: inout Report) async throws(MoveError) {
        let known = walk.verified
        try await following.compare(
            walk.unverified, head: arrived, within: known.isHead ? known.since : nil)
        report.verified = true
    }
}
