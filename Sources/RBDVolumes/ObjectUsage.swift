package import Volumes

/// What the versions of one object hold, what they share counted once.
package struct ObjectUsage: Sendable, Equatable {
    package var head = ByteCount.zero
    package var all = ByteCount.zero
    /// What a snapshot alone holds, by its id.
    package var alone: [UInt64: ByteCount] = [:]

    package init() {}

    /// An object without older versions.
    package init(head: ByteCount) {
        self.head = head
        all = head
    }

    /// - Parameter allocated: The allocated extents of each version, as many.
    package init(_ history: ObjectHistory, allocated: [ExtentSet]) {
        for (index, version) in history.versions.enumerated() {
            // What an older version shares with a newer one is the newer one's: an overwrite allocates anew, and the
            // older version keeps what it had.
            let own = allocated[index].subtracting(version.shared)
            all += own.total
            guard version.id != ObjectHistory.Version.head else {
                head = allocated[index].total
                continue
            }
            guard version.snapshots.count == 1, let snapshot = version.snapshots.first else { continue }
            let sharedWithOlder = index > 0 ? history.versions[index - 1].shared : ExtentSet()
            alone[snapshot, default: .zero] += own.subtracting(sharedWithOlder).total
        }
    }

    package static func += (sum: inout ObjectUsage, other: ObjectUsage) {
        sum.head += other.head
        sum.all += other.all
        for (snapshot, bytes) in other.alone { sum.alone[snapshot, default: .zero] += bytes }
    }
}
