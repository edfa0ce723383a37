package import Volumes

/// A snapshot that the target kept, and of which one of the source's it is.
package struct Kept: Codable, Sendable, Equatable {
    /// Its number at the source.
    package let source: UInt64
    /// Its number at the target.
    package let target: UInt64

    package init(source: UInt64, target: UInt64) {
        self.source = source
        self.target = target
    }
}

/// What has to be done to the snapshots that a target kept, so that they are what the source has now.
package struct KeptPlan: Sendable, Equatable {
    package struct Change: Sendable, Equatable {
        /// As the target has it.
        package let kept: Snapshot
        /// As it is to be.
        package let wanted: Snapshot
    }
    /// In this order: first what is to go, then what gets another name or protection.
    package var drops: [Snapshot] = []
    package var changes: [Change] = []
    /// Those that stand, or will.
    package var rest: [Kept] = []
    /// At the target, and not known: made in keeping a state, by a run that was ended in it, or by nobody of ours.
    package var unknown: [Snapshot] = []

    /// Noted, and neither at the target nor removed from the source.
    package var lost: [Kept] = []

    package var isEmpty: Bool { drops.isEmpty && changes.isEmpty && unknown.isEmpty }

    /// - Parameters:
    ///   - noted: What was kept so far, as the record has it.
    ///   - carried: The source's snapshots now.
    ///   - present: The target's snapshots now.
    package init(noted: [Kept], carried: [Snapshot], present: [Snapshot]) {
        for snapshot in present {
            guard let pair = noted.first(where: { $0.target == snapshot.id }) else {
                unknown.append(snapshot)
                continue
            }
            guard let wanted = carried.first(where: { $0.id == pair.source }) else {
                drops.append(snapshot)
                continue
            }
            rest.append(pair)
            if !snapshot.isNamed(wanted.name) || snapshot.isProtected != wanted.isProtected {
                changes.append(Change(kept: snapshot, wanted: wanted))
            }
        }
        lost = noted.filter { pair in
            !present.contains { $0.id == pair.target } && carried.contains { $0.id == pair.source }
        }
        // Names may have gone round: whoever stands in another's way gets a name of its own first.
        let inTheWay = changes.filter { change in
            changes.contains { $0.kept.id != change.kept.id && change.kept.isNamed($0.wanted.name) }
        }
        changes =
            inTheWay.map { change in
                Change(
                    kept: change.kept,
                    wanted: Snapshot(
                        id: change.wanted.id, name: Snapshot.transientName(change.kept.id), size: change.kept.size,
                        isProtected: change.kept.isProtected))
            } + changes
    }
}
