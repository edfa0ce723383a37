package import Cutover
package import Volumes

/// What is owed to the writer of a move that died: it is let go on, and as fast as it was.
package struct Relief: Sendable {
    private let source: any LiveSource
    /// Finds by its title who may hold the writer still.
    private let hold: @Sendable (String) throws(VolumeError) -> (any WriterHold)?

    package init(
        source: any LiveSource, hold: @escaping @Sendable (String) throws(VolumeError) -> (any WriterHold)?
    ) {
        self.source = source
        self.hold = hold
    }

    /// - Parameter frozenBy: As the move's record has it.
    func run(frozenBy: String?) async throws(VolumeError) {
        try await source.lift()
        guard let frozenBy, let hold = try hold(frozenBy) else { return }
        try await hold.adopt()
        try await hold.thaw()
    }

    /// The same for a move of which only the target is known, and which is dead for sure. After its commit there is
    /// nothing to be done: then only whoever gives the command again can tell where the writer is.
    /// - Parameter client: The dead one's, at the source. The record may have the next one's by now.
    package func run(of target: any TargetVolume, fencing client: String) async throws(MoveError) {
        let state = try await staged(.target) { () throws(VolumeError) in try await target.state() }
        guard case .unfinished(let text) = state, !text.isEmpty else {
            return try await staged(.underWay) { () throws(VolumeError) in try await source.lift() }
        }
        let record = try Takeover.read(text, of: target.address)
        // The writer would wait for the dead one's lock until the cluster has given it up, after 30 s.
        try? await source.evict(client)
        try await staged(.underWay) { () throws(VolumeError) in try await run(frozenBy: record.frozenBy) }
    }
}
