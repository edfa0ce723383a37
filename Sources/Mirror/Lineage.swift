package import Volumes

/// The walk along a source's snapshots, oldest first, each as a diff on the one before.
package struct Lineage: Sendable, Equatable {
    /// Why a walk can't go on from where it was.
    package enum Broken: Error, Equatable {
        /// The state that the target is in, or was being brought to, is no more at the source.
        case stateGone(UInt64)
        /// The target kept a snapshot that the source doesn't have.
        case unknownSnapshot(String)
    }

    /// What is left to do.
    package let steps: [Step]

    /// - Parameters:
    ///   - carried: The user's snapshots that are to be kept, oldest first.
    ///   - frozen: The transient snapshots that the source holds for this move, oldest first; the last is the head.
    ///   - kept: The names of the snapshots that the target has already.
    ///   - arrived: The snapshot whose state the target was in when its last step began.
    ///   - goal: The snapshot that its last step went to, if it wasn't finished.
    package init(
        carried: [Snapshot], frozen: [Snapshot], kept: [String], arrived: UInt64?, goal: UInt64?
    ) throws(Broken) {
        let names = Set(carried.map(\.name))
        if let stranger = kept.first(where: { !names.contains($0) }) { throw .unknownSnapshot(stranger) }
        // A snapshot is kept once all of its bytes are there: that tells more than the record, which is written after.
        let newestKept = carried.last { kept.contains($0.name) }
        let states = (carried + frozen).sorted { $0.id < $1.id }
        var base: Snapshot?
        var underWay = goal
        if let arrived {
            guard let state = states.first(where: { $0.id == arrived }) else { throw .stateGone(arrived) }
            base = state
        }
        if let newestKept, newestKept.id > base?.id ?? 0 {
            base = newestKept
            if underWay == newestKept.id { underWay = nil }
        }
        if let underWay {
            // What is half there can only be brought to where it was going.
            guard states.contains(where: { $0.id == underWay }) else { throw .stateGone(underWay) }
        }
        var steps: [Step] = []
        for state in states where state.id > base?.id ?? 0 {
            // Of the transient ones only the newest matters, and one that is half there.
            if state.isTransient, state != frozen.last, state.id != underWay { continue }
            steps.append(Step(base: base, goal: .snapshot(state), size: state.size))
            base = state
        }
        self.steps = steps
    }
}
