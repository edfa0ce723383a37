package import Volumes

/// The walk along a source's snapshots, oldest first, each as a diff on the one before.
///
/// Snapshots come and go while it is walked. What was written between two states holds all that was written between
/// any two states within: so where the state that the target is in is no more, an older one serves as well, only that
/// more is moved.
package struct Lineage: Sendable, Equatable {
    /// What is left to do, as things stand.
    package let steps: [Step]
    /// The state that the target is in, or was in when the step under way began, if the source has it still.
    package let arrived: Snapshot?

    /// - Parameters:
    ///   - carried: The user's snapshots that are to be kept, oldest first.
    ///   - frozen: The transient snapshots that the source holds for this move, oldest first; the last is the head.
    ///   - arrived: The snapshot whose state the target was in when its last step began.
    ///   - goal: The snapshot that its last step went to, if that was begun and isn't ended.
    ///   - isMixed: Whether that step goes from a mixed target.
    package init(
        carried: [Snapshot], frozen: [Snapshot], arrived: UInt64?, goal: UInt64?, isMixed: Bool = false
    ) {
        let states = (carried + frozen).sorted { $0.id < $1.id }
        var base = states.last { $0.id <= arrived ?? 0 }
        let underWay = states.first { $0.id == goal }
        // What was moved towards a state that is no more may be of any that came after it, but of none before.
        let head = frozen.last.flatMap { underWay == nil && $0.id < goal ?? 0 ? nil : $0 }
        self.arrived = base?.id == arrived ? base : nil
        var isMixed = isMixed || base?.id != arrived || underWay?.id != goal
        var steps: [Step] = []
        for state in states where state.id > arrived ?? 0 {
            // Of the transient ones only the newest matters, and one that is half there: what is half there is best
            // brought to where it was going.
            if state.isTransient, state.id != head?.id, state.id != underWay?.id { continue }
            steps.append(Step(base: base, goal: .snapshot(state), size: state.size, isMixed: isMixed))
            base = state
            isMixed = false
        }
        self.steps = steps
    }
}
