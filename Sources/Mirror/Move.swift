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

    package init(
        from source: any SourceVolume, to target: any TargetVolume, options: MoveOptions = MoveOptions(),
        progress: WorkProgress = WorkProgress(), stop: StopRequest = StopRequest()
    ) {
        self.source = source
        self.target = target
        self.options = options
        self.progress = progress
        self.stop = stop
    }

    /// Runs the move to its end.
    package func run() async throws(MoveError) -> Report {
        let start = ContinuousClock.now
        progress.begin("looking at \(source.address)")
        let description = try await staged(.source) { () throws(VolumeError) in try await source.describe() }
        var report = Report(
            source: source.address, target: target.address, sizeBytes: description.size.bytes,
            notCarried: description.notCarried + target.losses(from: description), changed: description.changed)
        switch try await state() {
        case .foreign:
            try await refuseSame(description)
            throw MoveError(try await Preflight(self).targetObstacles(to: description), at: .target)
        case .committed(let text):
            let record = try Takeover(self).record(text, of: description)
            try record.refuseUnlessCommitting(target.address)
            try await takeOver(record)
            try await tidy(record)
            report.outcome = .tidied
            report.seconds = (ContinuousClock.now - start).seconds
            return report
        case .absent:
            try await Preflight(self).refuseObstacles(to: description)
            let record = Record(
                source: description.identity, sourceAddress: source.address, snapshots: options.snapshots,
                wished: target.wished)
            try await staged(.target) { () throws(VolumeError) in
                try await target.make(as: carried(description), record: record.text())
                try await target.own()
            }
            try await proceed(record, description, &report)
        case .unfinished(let text):
            report.resumed = true
            let record = try Takeover(self).record(text, of: description)
            try await takeOver(record)
            try await proceed(record, description, &report)
        }
        report.seconds = (ContinuousClock.now - start).seconds
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
            let walk = Walk(self, record: record)
            let (description, arrived) = try await walk.run(from: seen, &report)
            report.notCarried = description.notCarried + target.losses(from: description)
            try await commit(walk.record, description, arrived, &report)
        } catch {
            if !error.isUnanswered { await target.close() }
            throw error
        }
    }

    private func commit(
        _ record: consuming Record, _ description: VolumeDescription, _ arrived: Snapshot?, _ report: inout Report
    ) async throws(MoveError) {
        var record = record
        if options.verifies {
            let differences = try await Verification(
                source: source, target: target, progress: progress, stop: stop
            ).run(
                description.snapshots.map(\.name),
                head: arrived.map { Revision.snapshot($0) } ?? .head)
            guard differences.isEmpty else {
                throw MoveError(
                    .resumable,
                    ["\(target.address) isn't finished, as it differs from \(source.address):"]
                        + differences.map { "  \($0)" },
                    advice: "Look at both clusters' health, then 'godwit abort \(target.address)' and move it again.")
            }
            report.verified = true
        }
        progress.begin("finishing \(target.address)")
        record.phase = .committing
        let committed = record
        try await staged(.underWay) { () throws(VolumeError) in
            // A run may have been ended between making a snapshot and protecting it.
            for snapshot in description.snapshots { try await target.keep(snapshot) }
            try await target.save(record: committed.text())
            try await target.commit(as: description)
        }
        try await tidy(committed)
    }

    /// Removes what the move left on the source, then the record that tells of it.
    private func tidy(_ record: Record) async throws(MoveError) {
        try await staged(.underWay) { () throws(VolumeError) in
            for name in record.transients { try await source.thaw(name) }
            try await target.forget()
        }
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
    /// A target that has its name, but wasn't given it by a commit, isn't whole.
    func refuseUnlessCommitting(_ address: String) throws(MoveError) {
        guard phase != .committing else { return }
        throw MoveError(
            .noTarget, ["\(address) is an unfinished target that was given its name before all of it was there"],
            advice: "Give it back the name that it had, ending in .godwit-unfinished, and the same command goes on; "
                + "or remove it.")
    }
}
