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
        record.isLive = true
        record.frozenBy = nil
        record.phase = .copying
        let walk = Walk(move, record: record)
        try await Following(move, walk, source: source, options).run(&report)
        try await move.tidy(walk.record)
    }

    /// What to do about a target that has its name already, where it isn't known whether the writer went on to it.
    ///
    /// - Returns: Whether the commit was taken back, as the source was written to since: the move goes on then.
    func takeBack(_ record: Record) async throws(MoveError) -> Bool {
        let isUnchanged = try await staged(.underWay) { () throws(VolumeError) in
            let states = try await source.standing()
            guard let arrived = (states.transients + states.snapshots).first(where: { $0.id == record.arrived }) else {
                return false
            }
            return try await source.isUnchanged(since: arrived)
        }
        guard isUnchanged else {
            try await staged(.underWay) { () throws(VolumeError) in try await move.target.uncommit() }
            return true
        }
        try await staged(.underWay) { () throws(VolumeError) in
            try await options.hold?.adopt()
            try await options.hold?.switchOver()
            var switched = record
            switched.phase = .switched
            switched.frozenBy = nil
            try await move.target.save(record: switched.text())
            try await options.hold?.leaveSource()
        }
        return false
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
