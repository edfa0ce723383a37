internal import Volumes

/// The last round of a writer that is this process's own: its head, which nobody can write to meanwhile, is moved as it is.
/// Having the source hold a state of it would take longer than moving what is left.
struct StillHead {
    let walk: Walk
    private let base: Snapshot

    /// - Returns: Nothing where the head can't be moved like that, as things stand.
    init?(_ walk: Walk) {
        guard walk.takesStillHeads, walk.frozen.count == 1, let base = walk.frozen.last, !walk.record.isUnderWay,
            walk.record.arrived == base.id, walk.carried.allSatisfy({ $0.id < base.id })
        else { return nil }
        (self.walk, self.base) = (walk, base)
    }

    /// Before anything of it is moved, and before the writer is held still: from then on the target may hold anything
    /// that came after the newest state.
    static func note(in record: inout Record) {
        record.isUnderWay = true
        record.isMixed = true
        record.goal = nil
        record.goalName = nil
        record.settledBytes = 0
    }

    enum End {
        /// The target is as the source is.
        case moved
        /// Nothing was moved.
        case declined
        /// Nor was it here: the user's snapshots are others by now.
        case changed
        /// The source lacks the state that it goes from, and some of it may be moved.
        case lost
    }

    func take(_ report: inout Report, observer: @escaping Walk.Observer) async throws(MoveError) -> End {
        let standing = try await staged(.underWay) { () throws(VolumeError) in try await walk.move.source.standing() }
        guard walk.move.options.snapshots == .none || standing.snapshots == walk.carried else { return .changed }
        let step = Step(base: base, goal: .head, size: standing.size)
        switch try await walk.take(step, title: "the last round", &report, observer: observer, isStillHead: true) {
        case .arrived: return .moved
        case .declined: return .declined
        case .lost: return .lost
        }
    }

    /// Nothing was moved: the target is as it was.
    func forget() async throws(VolumeError) {
        try await walk.note { record in
            record.isUnderWay = false
            record.isMixed = false
        }
    }
}
