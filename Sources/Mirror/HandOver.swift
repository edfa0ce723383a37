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
    /// The same where nobody has to be fenced, because the writer is our own.
    private static let ownCommitCost = Duration.milliseconds(30)
    /// What the freeze, the last snapshot and its diff take before.
    private static let freezeCost = Duration.milliseconds(80)
    /// The freeze and the diff where nothing has to be held.
    private static let ownFreezeCost = Duration.milliseconds(30)
    /// A command takes a moment to reach the writer; with its limit gone any earlier it would catch up first.
    private static let liftDelay = Duration.milliseconds(20)
    /// How soon a note is tried again on which all depends.
    private static let insistence = Duration.seconds(1)

    enum End {
        case done
        /// The writer goes on at the source.
        case notNow(String)
    }

    let following: Following
    var move: Move { following.move }
    var walk: Walk { following.walk }
    var source: any LiveSource { following.source }
    var live: LiveOptions { following.live }
    var time: Timekeeper { move.time }

    /// Whether it may take longer than was promised.
    let isForced: Bool

    init(_ following: Following, isForced: Bool) {
        self.following = following
        self.isForced = isForced
    }

    /// What a hand-over takes besides draining, as things are.
    static func cost(switching: Duration, isOurOwn: Bool) -> Duration {
        (isOurOwn ? ownFreezeCost : freezeCost) + costFromCommit(switching: switching, isOurOwn: isOurOwn)
    }

    /// What of it is left once the last bytes are moved.
    private static func costFromCommit(switching: Duration, isOurOwn: Bool) -> Duration {
        (isOurOwn ? ownCommitCost : commitCost) + switching
    }

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
            return (seen, switching)
        }
        let isOurOwn = live.hold?.isOurOwn == true
        let stillHead = isOurOwn ? StillHead(walk) : nil
        let title = live.hold?.title
        try await staged(.underWay) { () throws(VolumeError) in
            try await walk.note { record in
                record.frozenBy = title
                if stillHead != nil { StillHead.note(in: &record) }
            }
        }
        let rest = Self.costFromCommit(switching: switching, isOurOwn: isOurOwn)
        following.status.change { $0.phase = .handingOver }
        move.progress.begin("handing over")
        var still = Standstill(at: time.now())
        walk.hurry(true)
        defer { walk.hurry(false) }
        do throws(MoveError) {
            try await freeze()
            still.parts.freeze = still.part(time.now())
            var end = try await lastRound(seen, stillHead, rest: rest, &report, &still)
            while case .changed = end, still.hasEvicted {
                end = try await lastRound(seen, nil, rest: rest, &report, &still)
            }
            // From here on only the commit's outcome lets the writer go on.
            if case .moved = end, !(live.hold?.seal() ?? true) { end = .tooLong(time.now() - still.began + rest) }
            switch end {
            case .moved(let description): try await commit(as: description, &still.parts)
            case .tooLong(let expected):
                let draining = Duration.seconds(still.parts.lastBytes + still.parts.verify)
                let cost = time.now() - still.began - draining + rest
                try await thaw(stillHead, still)
                following.state.withLock {
                    $0.convergence.handOverFailed(
                        cost: cost, drained: still.moved, in: .seconds(still.parts.lastBytes))
                }
                return .notNow(
                    "it would have taken \(expected.text), longer than \(live.convergence.maxPause.text); the writer stood "
                        + "still for \((time.now() - still.began).text): \(still.parts.parts)")
            case .changed(let what):
                try await thaw(stillHead, still)
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

    /// Lets the writer go on at the source, as if nothing had been.
    private func thaw(_ stillHead: StillHead?, _ still: Standstill) async throws(MoveError) {
        try await thaw()
        guard let stillHead, still.isHeadUntouched else { return }
        try await staged(.underWay) { () throws(VolumeError) in try await stillHead.forget() }
    }

    private func thaw() async throws(MoveError) {
        // Who goes on writing needs the lock.
        await source.letGo()
        guard let hold = live.hold else { return }
        try await staged(.underWay) { () throws(VolumeError) in try await hold.thaw() }
        // It goes on, whether or not the target gets to know: a run that finds it noted lets it go on once more.
        try? await walk.note { $0.frozenBy = nil }
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
}
