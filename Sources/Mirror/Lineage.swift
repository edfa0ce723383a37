package import Volumes

/// The walk along a source's snapshots, oldest first, each as a diff on the one before.
package struct Lineage: Sendable, Equatable {
    /// Why a walk can't go on from where it was.
    package enum Broken: Error, Equatable {
        /// The state that the target is in, or was being brought to, is no more at the source.
        case stateGone(UInt64)
        /// The target kept a snapshot that the source doesn't have any more, or has made anew.
        case keptGone(String)
    }

    /// What is left to do.
    package let steps: [Step]
    /// The state that the target is in, or was in when the step under way began.
    package let arrived: Snapshot?

    /// - Parameters:
    ///   - carried: The user's snapshots that are to be kept, oldest first.
    ///   - frozen: The transient snapshots that the source holds for this move, oldest first; the last is the head.
    ///   - kept: The names of the snapshots that the target has already, oldest first.
    ///   - arrived: The snapshot whose state the target was in when its last step began.
    ///   - goal: The snapshot that its last step went to, if the record doesn't say that it was finished.
    package init(
        carried: [Snapshot], frozen: [Snapshot], kept: [String], arrived: UInt64?, goal: UInt64?
    ) throws(Broken) {
        let states = (carried + frozen).sorted { $0.id < $1.id }
        func state(_ id: UInt64) throws(Broken) -> Snapshot {
            guard let state = states.first(where: { $0.id == id }) else { throw .stateGone(id) }
            return state
        }
        var base = if let arrived { try state(arrived) } else { nil as Snapshot? }
        var underWay = if let goal { try state(goal) } else { nil as Snapshot? }
        // A snapshot is kept once all of its bytes are there, and noted after: the one under way may be kept already.
        let done = carried.filter { $0.id <= base?.id ?? 0 }
        if let goal = underWay, !goal.isTransient, kept.count == done.count + 1 {
            base = goal
            underWay = nil
        }
        let expected = carried.filter { $0.id <= base?.id ?? 0 }
        for (index, name) in kept.enumerated() where index >= expected.count || !expected[index].isNamed(name) {
            throw .keptGone(name)
        }
        guard kept.count == expected.count else { throw .stateGone(expected[kept.count].id) }

        self.arrived = base
        var steps: [Step] = []
        for state in states where state.id > base?.id ?? 0 {
            // Of the transient ones only the newest matters, and one that is half there: what is half there can only
            // be brought to where it was going.
            if state.isTransient, state.id != frozen.last?.id, state.id != underWay?.id { continue }
            steps.append(Step(base: base, goal: .snapshot(state), size: state.size))
            base = state
        }
        self.steps = steps
    }
}
