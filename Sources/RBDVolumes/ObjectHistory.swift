package import Volumes

/// The versions of an object that its snapshots and its head show, oldest first: what `list_snaps` tells.
///
/// A snapshot shows the oldest version that was cloned at or after it, if that version says it belongs to the
/// snapshot; otherwise the object didn't exist then (osd/PrimaryLogPG `find_object_context`). Each version knows what
/// it shares with the next newer one, so the difference between two states is the sum of the differences between
/// neighbours on the way.
package struct ObjectHistory: Sendable, Equatable {
    package struct Version: Sendable, Equatable {
        /// The number of the newest snapshot it was cloned for; `head` for the version that is written to.
        package let id: UInt64
        package let size: ByteCount
        /// The snapshots that show it; removed ones among them until the OSDs get to them.
        package let snapshots: [UInt64]
        /// What it shares with the next newer version.
        package let shared: ExtentSet

        package init(id: UInt64, size: ByteCount, snapshots: [UInt64], shared: ExtentSet) {
            self.id = id
            self.size = size
            self.snapshots = snapshots
            self.shared = shared
        }

        package static let head = UInt64.max - 1
    }

    package let versions: [Version]
    /// The newest snapshot that the object was written under. The head shows what came after.
    package let newestSnapshot: UInt64

    package init(versions: [Version], newestSnapshot: UInt64) {
        self.versions = versions
        self.newestSnapshot = newestSnapshot
    }

    /// What lies between two states of the object.
    package enum Change: Equatable, Sendable {
        case none
        /// The newer state has the object, and may differ from the older one in `dirty` only, which may reach past
        /// `size`, the object's in the newer state. Without an older state all of it is dirty.
        case written(dirty: ExtentSet, size: ByteCount, didExist: Bool)
        /// The older state had the object, the newer one hasn't.
        case removed
    }

    /// - Parameters:
    ///   - base: The older snapshot; nothing if there is no older state.
    ///   - goal: The newer snapshot; nothing for the head.
    package func change(since base: UInt64?, to goal: UInt64?) -> Change {
        let older = base.flatMap(index(shownAt:))
        let newer = goal.map(index(shownAt:)) ?? versions.firstIndex { $0.id == Version.head }
        guard let newer else { return older == nil ? .none : .removed }
        let size = versions[newer].size
        guard let older else {
            return .written(dirty: ExtentSet([Extent(offset: .zero, length: size)]), size: size, didExist: false)
        }
        guard older < newer else { return .none }
        var dirty = ExtentSet()
        for (version, next) in zip(versions[older..<newer], versions[(older + 1)...newer]) {
            let whole = ExtentSet([Extent(offset: .zero, length: max(version.size, next.size))])
            dirty = dirty.union(whole.subtracting(version.shared))
        }
        return dirty.isEmpty ? .none : .written(dirty: dirty, size: size, didExist: true)
    }

    /// Whether a snapshot shows the object; the head, without one.
    package func exists(at snapshot: UInt64?) -> Bool {
        guard let snapshot else { return versions.contains { $0.id == Version.head } }
        return index(shownAt: snapshot) != nil
    }

    /// Which version a snapshot shows; nothing if the object didn't exist then.
    private func index(shownAt snapshot: UInt64) -> Int? {
        guard let index = versions.firstIndex(where: { $0.id >= snapshot }) else { return nil }
        if versions[index].id == Version.head { return snapshot > newestSnapshot ? index : nil }
        return versions[index].snapshots.contains(snapshot) ? index : nil
    }

    /// Without the versions that none of these snapshots shows: what removed snapshots held stays until the OSDs get to
    /// it, and is told of until then.
    package func keeping(_ snapshots: Set<UInt64>) -> ObjectHistory {
        var kept: [Version] = []
        // What the version that was kept last shares with the one that comes next.
        var shared: ExtentSet?
        for version in versions {
            let live = version.snapshots.filter(snapshots.contains)
            let isKept = version.id == Version.head || !live.isEmpty
            if isKept {
                if let last = kept.popLast(), let shared {
                    kept.append(Version(id: last.id, size: last.size, snapshots: last.snapshots, shared: shared))
                }
                kept.append(Version(id: version.id, size: version.size, snapshots: live, shared: version.shared))
                shared = version.shared
            } else {
                shared = shared?.intersection(version.shared)
            }
        }
        if let last = kept.popLast() {
            // With nothing newer that is left, it shares with nothing.
            let isLast = last.id == versions.last?.id
            kept.append(
                Version(
                    id: last.id, size: last.size, snapshots: last.snapshots,
                    shared: isLast ? last.shared : ExtentSet()))
        }
        return ObjectHistory(versions: kept, newestSnapshot: newestSnapshot)
    }
}
