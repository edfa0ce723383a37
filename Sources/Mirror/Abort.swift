package import Cutover
package import Volumes

/// Gives a move up: removes the unfinished target, and what the move left on its source.
package struct Abort: Sendable {
    let target: any TargetVolume
    /// Finds the source that the record names.
    let source: @Sendable (String) async throws(VolumeError) -> any SourceVolume

    /// Finds, by title and source, who may hold the writer of a live move still.
    let hold: @Sendable (String, String) throws(VolumeError) -> (any WriterHold)?

    package init(
        of target: any TargetVolume,
        hold: @escaping @Sendable (_ title: String, _ source: String) throws(VolumeError) -> (any WriterHold)? = {
            (_, _) throws(VolumeError) in nil
        },
        source: @escaping @Sendable (String) async throws(VolumeError) -> any SourceVolume
    ) {
        self.target = target
        self.hold = hold
        self.source = source
    }

    package struct Outcome: Sendable {
        /// Transient snapshots that were removed, or looked for, on the source.
        package var source: String?
        /// The source is no more under its name: snapshots that stand on it, if it was renamed.
        package var lost: [String] = []
    }

    package func run() async throws(MoveError) -> Outcome {
        switch try await staged(.target, { () throws(VolumeError) in try await target.state() }) {
        case .absent:
            throw MoveError(.noSource, ["\(target.address): there is nothing to abort"])
        case .foreign:
            throw MoveError(
                .noTarget, ["\(target.address) is no unfinished target of Godwit's"],
                advice: "If it is to go, remove it yourself ('rbd rm', 'rm').")
        case .committed(let text):
            try Takeover.read(text, of: target.address).refuseUnlessCommitting(target.address)
            throw MoveError(
                .noTarget, ["\(target.address) is finished: its move only has to be tidied up after"],
                advice: "Give the 'godwit migrate' command again.")
        case .unfinished(let text):
            // Before anything is taken away: a move that is running isn't aborted from under itself.
            var outcome = Outcome()
            if !text.isEmpty {
                let hasFenced = try await staged(.target) { () throws(VolumeError) in try await target.own() }
                var record = try Takeover.read(text, of: target.address)
                let (address, frozenBy) = (record.sourceAddress, record.frozenBy)
                outcome.source = address
                do throws(VolumeError) {
                    let source = try await source(address)
                    if hasFenced, let client = record.sourceClient { try await source.evict(client) }
                    try await record.note(source.client, at: target)
                    if let source = source as? any LiveSource {
                        let hold = hold
                        try await Relief(source: source) { title throws(VolumeError) in
                            try hold(title, address)
                        }.run(frozenBy: frozenBy)
                        try await source.release(from: target.address)
                    }
                    for name in record.transients { try await source.thaw(name) }
                } catch  where error.kind == .missing {
                    // Removed, and what was left on it with it; or renamed, and nobody here knows how.
                    outcome.lost = record.transients
                } catch {
                    await target.close()
                    throw MoveError(
                        .resumable,
                        [
                            "\(record.sourceAddress) can't be tidied: \(error)",
                            "  the target is kept until then, as its record says what to remove",
                        ])
                }
            }
            try await staged(.underWay) { () throws(VolumeError) in try await target.discard() }
            return outcome
        }
    }
}
