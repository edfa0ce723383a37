internal import Convergence
internal import Cutover
internal import Synchronization
internal import Volumes

// What is done while the writer is held still, up to the commit.
extension HandOver {
    /// The writer's, as it goes on.
    struct Standstill {
        let began: Duration
        var parts = Report.Pause()
        /// Bytes that were drained in it.
        var moved = ByteCount.zero
        /// Whether nothing of a head was moved that was to be moved as it is.
        var isHeadUntouched = false
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

    enum LastRound {
        /// All is at the target, which is to be this.
        case moved(VolumeDescription)
        /// Longer than was promised: so long.
        case tooLong(Duration)
        /// The user's snapshots are others now, or a client came back whom nobody holds.
        case changed(String)
    }

    func lastRound(
        _ seen: VolumeDescription, _ stillHead: StillHead?, rest: Duration, _ report: inout Report,
        _ still: inout Standstill
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
        let verifies = move.options.verifies
        let observer: Walk.Observer = { [time, following] dirtied, inMap in
            diffed.withLock { $0 = (time.now(), $0.bytes + dirtied) }
            let draining = Duration.seconds(Double(dirtied.bytes) / max(1, drainRate))
            // As Convergence reckons, unless it is known better.
            let comparing = max(draining, following.timeToCompare(and: inMap))
            return hasEvicted || fits(draining + (verifies ? comparing : .zero))
        }
        _ = walk.takeDrained()
        let arrived: Revision?
        if let stillHead {
            switch try await stillHead.take(&report, observer: observer) {
            case .moved: arrived = .head
            case .declined:
                still.isHeadUntouched = true
                return .tooLong(expected.withLock { $0 })
            case .changed:
                still.isHeadUntouched = true
                return changed
            case .lost: return changed
            }
        } else {
            try await staged(.underWay) { () throws(VolumeError) in try await walk.freezeAnew() }
            let arrival = try await walk.catchUp(as: "the last round", &report, observed: .each, observer: observer)
            guard case .at(let state) = arrival else {
                still.parts.lastDiff += still.part(time.now())
                return .tooLong(expected.withLock { $0 })
            }
            arrived = state.map { .snapshot($0) }
        }
        let lastDiff = max(0, still.since(diffed.withLock { $0.at }))
        still.parts.lastDiff += lastDiff
        still.parts.lastBytes += still.part(time.now()) - lastDiff
        still.moved += diffed.withLock { $0.bytes }
        // Whether it may be given up for taking long.
        let isBound = live.hold != nil && !isForced && !still.hasEvicted
        // A snapshot that came just now is compared while the writer goes on.
        if verifies, isBound, !walk.unverified.isEmpty {
            return .changed("a snapshot came meanwhile, and isn't compared yet")
        }
        if verifies, let arrived {
            let over = StopRequest(within: move.stop)
            let left = isBound ? live.convergence.maxPause - (time.now() - began) - rest : nil
            do throws(MoveError) {
                try await verify(arrived, within: left, over, &report)
            } catch {
                // What was promised would be over, or was, and the writer went on.
                if (over.isAsked && !move.stop.isAsked) || live.hold?.isHolding == false {
                    return .tooLong(time.now() - began + rest)
                }
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
        // Of a head nobody else can have written to there is nothing to be asked.
        let isUnchanged = try await staged(.underWay) { () throws(VolumeError) in
            arrived == .head ? true : try await source.isUnchanged(since: arrived?.snapshot)
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

    // MARK: Verification

    /// Only what was moved since the rest was compared.
    /// - Parameters:
    ///   - limit: How long that may take; nothing for as long as it takes.
    ///   - over: Asked when that is over.
    private func verify(
        _ arrived: Revision, within limit: Duration?, _ over: StopRequest, _ report: inout Report
    ) async throws(MoveError) {
        let known = walk.verified
        let (snapshots, part) = (walk.unverified, known.isHead ? known.since : nil)
        let result = await withTaskGroup(of: Void.self) { group in
            if let limit {
                group.addTask { [time] in
                    await time.sleep(max(.zero, limit))
                    if !Task.isCancelled { over.ask() }
                }
            }
            let result: Result<Void, MoveError>
            do throws(MoveError) {
                result = .success(
                    try await following.compare(snapshots, head: arrived, within: part, stop: over))
            } catch {
                result = .failure(error)
            }
            group.cancelAll()
            return result
        }
        try result.get()
        report.verified = true
    }
}
