internal import Cutover
internal import Volumes

/// What a live move does besides: before the walk, and after a run that died in the middle of handing over.
struct LiveMove {
    private let move: Move
    private let source: any LiveSource
    private let options: LiveOptions

    fileprivate init(_ move: Move, _ source: any LiveSource, _ options: LiveOptions) {
        self.move = move
        self.source = source
        self.options = options
    }

    /// Looks whether the writer could be held still, before anything is begun.
    func prepare() async throws(MoveError) {
        guard let hold = options.hold else { return }
        try await staged(.source) { () throws(VolumeError) in try await hold.prepare() }
    }

    /// From an owned target to the end of the move.
    func run(_ record: consuming Record, _ report: inout Report) async throws(MoveError) {
        var record = record
        let frozenBy = record.frozenBy
        // An earlier run may have died while it held the writer still.
        try await staged(.underWay) { () throws(VolumeError) in
            try await Relief(source: source, hold: { _ in options.hold }).run(frozenBy: frozenBy)
        }
        try await staged(.underWay) { () throws(VolumeError) in try await options.hold?.begin() }
        record.isLive = true
        record.frozenBy = nil
        record.phase = .copying
        let walk = Walk(move, record: record)
        try await Following(move, walk, source: source, options).run(&report)
        try await move.tidy(walk.record)
    }

    /// What to do about a target that has its name already, where it isn't known whether the writer went on to it.
    ///
    /// - Returns: Whether the commit was taken back, as the target isn't the source any more, or the writer isn't held
    ///   still: the move goes on then.
    func takeBack(_ record: Record) async throws(MoveError) -> Bool {
        try refuseOtherHold(record)
        let since = try await staged(.underWay) { () throws(VolumeError) in
            try await options.hold?.adopt()
            return try await changes(since: record)
        }
        switch since {
        case .written:
            try await staged(.underWay) { () throws(VolumeError) in try await move.target.uncommit() }
            return true
        // If the writer is at the target already, its snapshots are what it has there.
        case .snapshots: if (try? await move.target.uncommit()) != nil { return true }
        case .nothing: break
        }
        do throws(VolumeError) {
            try await options.hold?.switchOver()
        } catch {
            // Whoever isn't held still any more isn't sent on. If he is at the target already, that can't be taken back.
            guard (try? await move.target.uncommit()) != nil else { throw MoveError(error, at: .underWay) }
            return true
        }
        try await staged(.underWay) { () throws(VolumeError) in
            var switched = record
            switched.phase = .switched
            switched.frozenBy = nil
            try await move.target.save(record: switched.text())
            try await options.hold?.leaveSource()
        }
        return false
    }

    /// Whoever is held by one can't be let go on by another, and might be at either volume.
    private func refuseOtherHold(_ record: Record) throws(MoveError) {
        func kind(_ title: String) -> Substring { title.prefix { $0 != ":" } }
        guard let frozenBy = record.frozenBy, kind(frozenBy) != options.hold.map({ kind($0.title) }) else { return }
        throw MoveError(
            .usage, ["\(move.target.address): its move was ended while '\(frozenBy)' handed its writer over"],
            advice: "Give the same command as before: only that one can tell where the writer is.")
    }

    private enum Changes {
        case nothing
        /// There are others at the source than at the target.
        case snapshots
        /// It was written to, or somebody may write to it that was let go on.
        case written
    }

    /// What became of the source since its target was finished.
    private func changes(since record: Record) async throws(VolumeError) -> Changes {
        let states = try await source.standing()
        guard let arrived = (states.transients + states.snapshots).first(where: { $0.id == record.arrived }),
            try await source.isUnchanged(since: arrived),
            // A run that couldn't take the commit back has let the writer go on.
            try await source.writers().count <= options.hold?.clientsAtSource ?? 0
        else { return .written }
        guard record.snapshots == .all else { return .nothing }
        let present = try await move.target.describe().snapshots
        let plan = KeptPlan(noted: record.kept, carried: states.snapshots, present: present)
        return plan.isEmpty && plan.rest.count == states.snapshots.count ? .nothing : .snapshots
    }

    /// Has the writer, which goes on at the target, let go of the source; once more does no harm.
    func leaveSource() async throws(MoveError) {
        try await staged(.underWay) { () throws(VolumeError) in try await options.hold?.leaveSource() }
    }

    /// Says at the source where it is now.
    func retire() async throws(VolumeError) {
        try await source.lift()
        try await source.retire(to: move.target.address, options.source)
    }
}

extension Move {
    /// Nothing for a source that nobody is to write to.
    var live: LiveMove? {
        guard let options = options.live, let source = source as? any LiveSource else { return nil }
        return LiveMove(self, source, options)
    }

    /// Says at the source that it is being moved, before anything is made, or gone on with.
    func claim() async throws(MoveError) {
        guard let source = source as? any LiveSource else { return }
        try await staged(.source) { () throws(VolumeError) in
            try await source.claim(for: target.address, isLive: options.live != nil)
        }
    }

    func release() async throws(VolumeError) {
        guard let source = source as? any LiveSource else { return }
        try await source.release(from: target.address)
    }

    /// A live move may have been ended after its source got another name, and before it was over.
    func tidyAfterRetirement(_ start: Duration) async throws(MoveError) -> Report? {
        guard options.live != nil, case .committed(let text) = try? await target.state() else { return nil }
        let record = try Takeover.read(text, of: target.address)
        guard record.phase == .switched, record.sourceAddress == source.address else { return nil }
        try await staged(.underWay) { () throws(VolumeError) in
            try await target.own()
            try await target.forget()
        }
        var report = Report(
            source: source.address, target: target.address, sizeBytes: 0, notCarried: [], changed: [])
        report.outcome = .tidied
        report.seconds = (time.now() - start).seconds
        return report
    }
}
