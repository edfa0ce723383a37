internal import Convergence
internal import Synchronization
internal import Volumes

// What a live move compares before it hands over, so that little is left for the pause.
extension Following {
    /// Compares what wasn't yet, if that was asked for.
    /// - Returns: Whether it took so long that another round is due.
    func verifyAhead(_ report: inout Report) async throws(MoveError) -> Bool {
        guard move.options.verifies else { return false }
        let known = walk.verified
        let new = walk.unverified
        let isKnown = known.isHead && !known.since.isResized
        let isLong = isKnown && timeToCompare() > live.convergence.maxPause / 4
        guard !isKnown || !new.isEmpty || (isLong && !state.withLock { $0.isComparedAhead }) else { return false }
        let head = isKnown && !isLong ? nil : walk.arrived
        do throws(MoveError) {
            try await compare(new, head: head.map { .snapshot($0) }, within: isKnown ? known.since : nil)
        } catch {
            // What was compared is no more what there is at the source: that is one more round.
            if try await haveSnapshotsChanged() { return true }
            throw error
        }
        walk.noteVerified(new.map(\.id), head: head)
        state.withLock { $0.isComparedAhead = true }
        return head != nil
    }

    /// Compares, and notes how long that takes.
    /// - Parameter stop: Ends it between two pieces; nothing for what ends the move.
    func compare(
        _ snapshots: [Snapshot], head: Revision?, within part: Walk.Verified.Moved?, stop: StopRequest? = nil
    ) async throws(MoveError) {
        try await move.verify(snapshots.map(\.name), head: nil, stop: stop)
        guard let head else { return }
        let began = time.now()
        try await move.verify([], head: head, within: part, stop: stop)
        let compared = part.map { $0.isResized ? .zero : $0.compared } ?? move.progress.current.done
        guard compared > .zero else { return }
        state.withLock { $0.comparingByte = (time.now() - began).seconds / Double(compared.bytes) }
    }

    /// How long it would take to compare what was moved since the rest was, and so many bytes more.
    func timeToCompare(and more: ByteCount = .zero) -> Duration {
        guard move.options.verifies else { return .zero }
        let bytes = walk.verified.since.compared + more
        return .seconds(Double(bytes.bytes) * (state.withLock { $0.comparingByte } ?? 0))
    }
}
