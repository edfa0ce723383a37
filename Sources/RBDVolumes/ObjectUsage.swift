package import Volumes

/// What the versions of one object hold, in blocks of what an OSD allocates; what they share counts once.
///
/// A block is allocated anew for a version if any byte of it was written since the version before; otherwise it is the
/// older version's, which shows it as well.
package struct ObjectUsage: Sendable, Equatable {
    /// What BlueStore allocates at least (`bluestore_min_alloc_size`, 4 KiB since Ceph 16).
    static let block = ByteCount(4096)

    package var head = ByteCount.zero
    package var all = ByteCount.zero
    /// What a snapshot alone holds, by its id.
    package var alone: [UInt64: ByteCount] = [:]

    package init() {}

    /// An object without older versions.
    package init(head allocated: ExtentSet) {
        head = allocated.blocks.total
        all = head
    }

    /// - Parameter allocated: The allocated extents of each version, as many.
    package init(_ history: ObjectHistory, allocated: [ExtentSet]) {
        let shown = allocated.map(\.blocks)
        let fresh = history.versions.indices.map { index in
            guard index > 0 else { return shown[0] }
            // A block that the older version doesn't show is new in any case.
            let written = allocated[index].subtracting(history.versions[index - 1].shared).blocks
            return written.union(shown[index].subtracting(shown[index - 1]))
        }
        for (index, version) in history.versions.enumerated() {
            all += fresh[index].total
            guard version.id != ObjectHistory.Version.head else {
                head = shown[index].total
                continue
            }
            guard version.snapshots.count == 1, let snapshot = version.snapshots.first else { continue }
            let next = index + 1
            let kept = next < shown.count ? shown[next].subtracting(fresh[next]) : ExtentSet()
            alone[snapshot, default: .zero] += fresh[index].subtracting(kept).total
        }
    }

    package static func += (sum: inout ObjectUsage, other: ObjectUsage) {
        sum.head += other.head
        sum.all += other.all
        for (snapshot, bytes) in other.alone { sum.alone[snapshot, default: .zero] += bytes }
    }
}

extension ExtentSet {
    /// Every block of which any byte is in here.
    var blocks: ExtentSet {
        ExtentSet(
            extents.map {
                Extent(
                    from: $0.offset.rounded(downTo: ObjectUsage.block),
                    to: $0.end.rounded(upTo: ObjectUsage.block))
            })
    }
}
