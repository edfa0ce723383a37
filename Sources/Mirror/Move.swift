internal import Convergence
internal import Synchronization
package import Volumes

/// Moves a volume, with all its snapshots, from its source to a target that it makes.
///
/// Every state is frozen before it is read, so reading needs no lock and a crash loses nothing. The target stands
/// apart, marked as unfinished, until all of it is there; becoming finished is one durable step. A run that was ended
/// at any moment is taken up by the next one from the record kept with the target.
package struct Move: Sendable {
    let source: any SourceVolume
    let target: any TargetVolume
    let options: MoveOptions
    let progress: WorkProgress
    let stop: StopRequest
    let controls: MoveControls
    let time: Timekeeper
    let status: LiveStatus

    package init(
        from source: any SourceVolume, to target: any TargetVolume, options: MoveOptions = MoveOptions(),
        progress: WorkProgress = WorkProgress(), stop: StopRequest = StopRequest(), controls: MoveControls? = nil,
        time: Timekeeper = .real, status: LiveStatus = LiveStatus()
    ) {
        self.status = status
        let isThrottled = options.live?.convergence.throttle != .never
        self.controls =
            controls ?? MoveControls(bandwidth: options.bandwidth, throttle: isThrottled ? .auto : .off)
        self.time = time
        self.source = source
        self.target = target
        self.options = options
        self.progress = progress
        self.stop = stop
    }

    /// Runs the move to its end.
    package func run() async throws(MoveError) -> Report {
        let start = time.now()
        progress.begin("looking at \(source.address)")
        let description: VolumeDescription
        do throws(MoveError) {
            description = try await staged(.source) { () throws(VolumeError) in try await source.describe() }
        } catch {
            guard error.kind == .noSource, let report = try await tidyAfterRetirement(start) else { throw error }
            return report
        }
        guard options.live == nil || source is any LiveSource else {
            throw MoveError(
                .usage, ["\(source.address) can't be moved live"], advice: "Only images can; leave out --live.")
        }
        try await live?.prepare()
        var report = Report(
            source: source.address, target: target.address, sizeBytes: description.size.bytes,
            notCarried: description.notCarried + target.losses(from: description), changed: description.changed)
        switch try await state() {
        case .foreign:
            try await refuseSame(description)
            throw MoveError(try await Preflight(self).targetObstacles(to: description), at: .target)
        case .committed(let text):
            var record = try Takeover(self).record(text, of: description)
            try record.refuseUnlessCommitting(target.address)
            try await takeOver(record)
            try await noteClient(in: &record)
            if let live, record.phase == .committing, try await live.takeBack(record) {
                report.resumed = true
                try await claim()
                try await proceed(record, description, &report)
            } else {
                // A run may have died before it had the writer, which goes on at the target, leave the source.
                if record.phase == .switched { try await live?.leaveSource() }
                try await tidy(record)
                report.outcome = .tidied
            }
            report.seconds = (time.now() - start).seconds
            return report
        case .absent:
            try refuseMoved(description)
            try await Preflight(self).refuseObstacles(to: description)
            var record = Record(
                source: description.identity, sourceAddress: source.address, snapshots: options.snapshots,
                wished: target.wished)
            record.isLive = options.live != nil
            try await claim()
            let text = record.text()
            do throws(VolumeError) {
                try await target.make(as: carried(description), record: text)
                try await target.own()
            } catch {
                try? await release()
                throw MoveError(error, at: .target)
            }
            try await proceed(record, description, &report)
        case .unfinished(let text):
            report.resumed = true
            let record = try Takeover(self).record(text, of: description)
            try await takeOver(record)
            try await claim()
            try await proceed(record, description, &report)
        }
        report.seconds = (time.now() - start).seconds
        return report
    }

    /// What is there; an unfinished target that has no record yet is removed, as nothing was moved into it.
    private func state() async throws(MoveError) -> TargetState {
        try await staged(.target) { () throws(VolumeError) in
            let state = try await target.state()
            guard state == .unfinished(record: "") else { return state }
            try await target.discard()
            return try await target.state()
        }
    }

    /// Makes sure that the process which was at the move before holds neither end any more.
    private func takeOver(_ record: Record) async throws(MoveError) {
        let hasFenced = try await staged(.target) { () throws(VolumeError) in try await target.own() }
        guard hasFenced, let client = record.sourceClient else { return }
        try await staged(.underWay) { () throws(VolumeError) in try await source.evict(client) }
    }

    /// Says who is at the source from here on.
    private func noteClient(in record: inout Record) async throws(MoveError) {
        do throws(VolumeError) {
            try await record.note(source.client, at: target)
        } catch {
            throw MoveError(error, at: .underWay)
        }
    }

    /// Refuses a target that is the source, under another spelling.
    func refuseSame(_ description: VolumeDescription) async throws(MoveError) {
        guard let present = try? await target.describe(), present.identity == description.identity else { return }
        throw MoveError(.usage, ["source and target are the same: \(source.address)"])
    }

    /// The description as the target is to have it.
    func carried(_ description: VolumeDescription) -> VolumeDescription {
        guard options.snapshots == .none else { return description }
        var description = description
        description.snapshots = []
        return description
    }

    /// From an owned target to the end of the move.
    private func proceed(
        _ record: consuming Record, _ seen: VolumeDescription, _ report: inout Report
    ) async throws(MoveError) {
        do throws(MoveError) {
            if report.resumed { try await Preflight(self).refuseSourceObstacles() }
            if let live {
                try await live.run(record, &report)
                return
            }
            let walk = Walk(self, record: record)
            let (description, arrived) = try await StillWalk(walk: walk).run(from: seen, &report)
            report.notCarried = description.notCarried + target.losses(from: description)
            try await commit(walk.record, description, arrived, &report)
        } catch {
            if !error.isUnanswered {
                await target.close()
                // Where the source holds nothing for it, there is nothing to be told whose it is.
                if let left = try? await source.standing().transients, left.isEmpty { try? await release() }
            }
            throw error
        }
    }

    private func commit(
        _ record: consuming Record, _ description: VolumeDescription, _ arrived: Snapshot?, _ report: inout Report
    ) async throws(MoveError) {
        var record = record
        if options.verifies {
            try await verify(description.snapshots.map(\.name), head: arrived.map { .snapshot($0) } ?? .head)
            report.verified = true
        }
        progress.begin("finishing \(target.address)")
        record.phase = .committing
        let committed = record
        try await staged(.underWay) { () throws(VolumeError) in
            try await target.save(record: committed.text())
            try await target.commit(as: description)
        }
        try await tidy(committed)
    }

    /// Throws if the target differs from the source: it never gets its name then.
    func verify(
        _ snapshots: [String], head: Revision?, within part: Walk.Verified.Moved? = nil, stop: StopRequest? = nil
    ) async throws(MoveError) {
        let differences = try await Verification(
            source: source, target: target, base: source.base, progress: progress, stop: stop ?? self.stop
        ).run(snapshots, head: head, within: part)
        guard differences.isEmpty else {
            throw MoveError(
                .differs,
                ["\(target.address) isn't finished, as it differs from \(source.address):"]
                    + differences.map { "  \($0)" },
                advice: "Look at both clusters' health, then 'godwit abort \(target.address)' and move it again.")
        }
    }

    /// Removes what the move left on the source, then the record that tells of it.
    func tidy(_ record: Record) async throws(MoveError) {
        try await staged(.underWay) { () throws(VolumeError) in
            for name in record.transients { try await source.thaw(name) }
            try await release()
            if record.isLive { try await live?.retire() }
            try await target.forget()
        }
    }

    /// A volume that was moved live isn't the volume any more.
    private func refuseMoved(_ description: VolumeDescription) throws(MoveError) {
        guard let place = description.movedTo else { return }
        throw MoveError(
            .noSource, ["\(source.address) was moved to \(place), and isn't the volume any more"],
            advice: "Move \(place) instead. If this one is in use again all the same, say so: "
                + "'rbd image-meta remove IMAGE godwit.moved'.")
    }
}

/// Whether a record that was found is one that this move may go on from.
struct Takeover {
    let move: Move
    init(_ move: Move) { self.move = move }

    func record(_ text: String, of description: VolumeDescription) throws(MoveError) -> Record {
        let record = try Self.read(text, of: move.target.address)
        guard record.source == description.identity else {
            throw MoveError(
                .noTarget,
                [
                    "\(move.target.address) is the unfinished target of another source: \(record.sourceAddress)",
                    "  (of that name there may have been another volume, or it was changed since)",
                ],
                advice: "Go on with that one, or remove what is there: 'godwit abort \(move.target.address)'.")
        }
        guard !record.isLive || move.options.live != nil else {
            throw MoveError(
                .usage, ["\(move.target.address) was begun with --live"],
                advice: "Go on with the same, or begin anew after 'godwit abort \(move.target.address)'.")
        }
        guard record.snapshots == move.options.snapshots else {
            throw MoveError(
                .usage, ["\(move.target.address) was begun with --snapshots \(record.snapshots.rawValue)"],
                advice: "Go on with the same, or begin anew after 'godwit abort \(move.target.address)'.")
        }
        guard record.wished == move.target.wished else {
            throw MoveError(
                .usage,
                [
                    "\(move.target.address) was begun with \(record.wished.isEmpty ? "no layout of its own" : record.wished)"
                ],
                advice: "Go on with the same, or begin anew after 'godwit abort \(move.target.address)'.")
        }
        return record
    }

    static func read(_ text: String, of address: String) throws(MoveError) -> Record {
        do throws(Record.Unreadable) {
            return try Record(text: text)
        } catch {
            let what =
                switch error {
                case .malformed: "its record is damaged"
                case .newer(let version): "its record is of version \(version), which this godwit doesn't know"
                }
            throw MoveError(
                .noTarget, ["\(address) is an unfinished target, but \(what)"],
                advice: "Go on with the godwit that began it, or remove it by hand.")
        }
    }
}

extension Record {
    /// Says in the target who is at the source from here on: this run may be ended as well, and leave its lock there.
    mutating func note(_ client: String?, at target: any TargetVolume) async throws(VolumeError) {
        guard let client, sourceClient != client else { return }
        sourceClient = client
        try await target.save(record: text())
    }

    /// A target that has its name, but wasn't given it by a commit, isn't whole.
    func refuseUnlessCommitting(_ address: String) throws(MoveError) {
        guard phase == .copying else { return }
        throw MoveError(
            .noTarget, ["\(address) is an unfinished target that was given its name before all of it was there"],
            advice: "Give it back the name that it had, ending in .godwit-unfinished, and the same command goes on; "
                + "or remove it.")
    }
}
