internal import Volumes

/// A walk along a source that nobody is to write to.
struct StillWalk {
    let walk: Walk
    private var move: Move { walk.move }

    /// Takes every step there is, and those that come up meanwhile.
    ///
    /// - Parameter seen: The source as it was just now.
    /// - Returns: The source as it was when nothing was left to do, and the state that the target is in.
    func run(
        from seen: VolumeDescription, _ report: inout Report
    ) async throws(MoveError) -> (description: VolumeDescription, arrived: Snapshot?) {
        try await walk.begin(&report)
        guard !walk.frozen.isEmpty else {
            try await walk.takeHead(seen.size, &report)
            try await refuseIfChanged()
            return (move.carried(seen), nil)
        }
        while true {
            guard case .at(let arrived) = try await walk.catchUp(&report) else { continue }
            try await staged(.underWay) { () throws(VolumeError) in try await walk.dropOlder() }
            move.progress.begin("looking whether \(move.source.address) was written to meanwhile")
            let isUnchanged = try await staged(.underWay) { () throws(VolumeError) in
                try await move.source.isUnchanged(since: arrived)
            }
            // Anew each time: a snapshot that the user takes meanwhile is one more step.
            let present = try await staged(.underWay) { () throws(VolumeError) in
                move.carried(try await move.source.describe())
            }
            if present.snapshots != walk.carried { continue }
            if isUnchanged { return (present, arrived) }
            // A writer came meanwhile. If it has gone again, what it wrote is one more step.
            try await Preflight(move).refuseSourceObstacles()
            try await staged(.underWay) { () throws(VolumeError) in try await walk.freezeAnew() }
        }
    }

    /// A source that can't hold a state must have stayed as it was by itself.
    private func refuseIfChanged() async throws(MoveError) {
        let isUnchanged = try await staged(.underWay) { () throws(VolumeError) in
            try await move.source.isUnchanged(since: nil)
        }
        guard !isUnchanged else { return }
        throw MoveError(
            .noTarget, ["\(move.source.address) was changed while it was being moved"],
            advice: "Remove what was made ('godwit abort \(move.target.address)'), and move it while nobody writes.")
    }
}
