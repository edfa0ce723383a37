internal import Cutover
package import Volumes

/// What a move would do, and what stands against it, found out without changing anything.
package struct Preflight: Sendable {
    private let move: Move

    package init(_ move: Move) { self.move = move }

    /// What `--dry-run` shows.
    package struct Plan: Codable, Sendable {
        package struct StepPlan: Codable, Sendable {
            /// The snapshot's name; nothing for the head.
            package var snapshot: String?
            package var sizeBytes: UInt64
            /// Bytes that are allocated and differ from the state before.
            package var dirtyBytes: UInt64
            package var means: ExtentMeans
        }
        package struct Blocker: Codable, Sendable {
            package var fact: String
            package var remedy: String
        }

        package var source: String
        package var target: String
        package var sizeBytes: UInt64
        package var steps: [StepPlan] = []
        /// How long reading and writing this much may take, at the speed the source was just read with; a guess.
        package var seconds: Double?
        package var blockers: [Blocker] = []
        package var notCarried: [String]
        package var changed: [String]

        package var dirtyBytes: UInt64 { steps.reduce(0) { $0 + $1.dirtyBytes } }
    }

    package func plan() async throws(MoveError) -> (plan: Plan, refusal: MoveError?) {
        move.progress.begin("looking at \(move.source.address)")
        let description = try await staged(.source) { () throws(VolumeError) in try await move.source.describe() }
        try await move.refuseSame(description)
        var plan = Plan(
            source: move.source.address, target: move.target.address, sizeBytes: description.size.bytes,
            notCarried: description.notCarried + move.target.losses(from: description),
            changed: description.changed)
        plan.steps = try await staged(.source) { () throws(VolumeError) in try await steps(of: description) }
        plan.seconds = try await staged(.source) { () throws(VolumeError) in try await estimate(plan.dirtyBytes) }
        let source = try await sourceObstacles()
        let target = try await staged(.target) { () throws(VolumeError) in
            try await move.target.obstacles(to: move.carried(description), room: ByteCount(plan.dirtyBytes))
        }
        plan.blockers = (source + target).map { Plan.Blocker(fact: $0.fact, remedy: $0.remedy) }
        let refusal =
            if !source.isEmpty { MoveError(source, at: .source) } else if !target.isEmpty {
                MoveError(target, at: .target)
            } else { nil as MoveError? }
        return (plan, refusal)
    }

    /// Throws if anything stands against beginning the move.
    func refuseObstacles(to description: VolumeDescription) async throws(MoveError) {
        try await refuseSourceObstacles()
        let target = try await targetObstacles(to: move.carried(description))
        guard target.isEmpty else { throw MoveError(target, at: .target) }
    }

    func refuseSourceObstacles() async throws(MoveError) {
        let source = try await sourceObstacles()
        guard source.isEmpty else { throw MoveError(source, at: .source) }
    }

    private func sourceObstacles() async throws(MoveError) -> [Obstacle] {
        let found = try await staged(.source) { () throws(VolumeError) in try await move.source.obstacles() }
        guard let live = move.options.live, let source = move.source as? any LiveSource else { return found }
        let more = try await staged(.source) { () throws(VolumeError) in try await source.liveObstacles() }
        // A live move is made because somebody has it open.
        return found.filter { live.hold?.isOurOwn == true || $0.kind != .busy } + more
    }

    func targetObstacles(to description: VolumeDescription) async throws(MoveError) -> [Obstacle] {
        try await staged(.target) { () throws(VolumeError) in
            let found = try await move.target.obstacles(to: description, room: description.mostBytes)
            guard found.contains(where: { $0.kind == .full }) else { return found }
            // At most so much; whether it is as much takes asking every object.
            let steps = try await steps(of: description)
            return try await move.target.obstacles(
                to: description, room: ByteCount(steps.reduce(0) { $0 + $1.dirtyBytes }))
        }
    }

    /// The dirty bytes of every state, as its extents say.
    private func steps(of description: VolumeDescription) async throws(VolumeError) -> [Plan.StepPlan] {
        var steps: [Plan.StepPlan] = []
        var base = move.source.base
        let snapshots = move.carried(description).snapshots
        for revision in snapshots.map(Revision.snapshot) + [.head] {
            let name = revision.snapshot?.name
            move.progress.begin(
                name.map { "counting what is allocated: snapshot \($0)" } ?? "counting what is allocated: head")
            let from = base
            let step = try await move.source.withReader(at: revision) { reader throws(VolumeError) in
                var total = ByteCount.zero
                move.progress.expect(reader.size)
                try await forEachWindow(of: reader.size, unit: reader.extentUnit) { window throws(VolumeError) in
                    guard !move.stop.isAsked else {
                        throw VolumeError(.busy, "count", on: move.source.address, reason: "stopped", advice: nil)
                    }
                    total += try await reader.extents(in: window, since: from).total
                    move.progress.advance(by: window.length)
                }
                return Plan.StepPlan(
                    snapshot: name, sizeBytes: reader.size.bytes, dirtyBytes: total.bytes, means: reader.means)
            }
            steps.append(step)
            base = revision.snapshot
        }
        return steps
    }

    /// Reads a little of what would be moved, and reckons from that.
    private func estimate(_ bytes: UInt64) async throws(VolumeError) -> Double? {
        let sample = ByteCount.mebibytes(16)
        guard bytes > 0 else { return 0 }
        return try await move.source.withReader(at: .head) { reader throws(VolumeError) in
            var extents: [Extent] = []
            var found = ByteCount.zero
            try await forEachWindow(of: reader.size, unit: reader.extentUnit) { window throws(VolumeError) in
                guard found < sample else { return }
                for extent in try await reader.extents(in: window, since: nil).extents where found < sample {
                    let piece = Extent(offset: extent.offset, length: min(extent.length, .mebibytes(4)))
                    extents.append(piece)
                    found += piece.length
                }
            }
            let start = ContinuousClock.now
            _ = try await concurrently(extents, limit: 8) { extent throws(VolumeError) in
                unsafe try await withIOBuffer(of: extent.length) { buffer throws(VolumeError) in
                    try await unsafe reader.read(into: buffer, at: extent.offset)
                }
            }
            let seconds = (ContinuousClock.now - start).seconds
            // Writing takes about as long as reading, and shares the same machines.
            return found > .zero ? 2 * seconds * Double(bytes) / Double(found.bytes) : nil
        }
    }
}
