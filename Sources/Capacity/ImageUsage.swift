package import Volumes

/// What an image takes, in bytes. Each figure is nothing where it couldn't be told.
package struct ImageUsage: Sendable, Equatable {
    /// How the figures were come by.
    package enum Means: String, Sendable, Encodable {
        /// Exact: the OSDs told the allocated extents of every object.
        case extents = "object extents"
        /// At most: the pool can't tell extents (erasure-coded), so each object counts up to its last byte.
        case sizes = "object sizes"
        /// Whole objects, as the object maps have them.
        case objectMap = "object map"
        /// Whole objects, each of which was asked for, as there is no object map to be believed.
        case objects = "objects"
        /// librbd's own differences: what it does for an image of format 1.
        case diff
    }

    package let pool: String
    package let namespace: String
    package let name: String
    package var id: String?
    package var isInTrash = false
    /// The pool that holds the data, if it isn't the image's own.
    package var dataPool: String?
    /// The size of the head.
    package var provisioned: ByteCount?
    /// Whole objects, of the head and of each snapshot since the one before: what `rbd du` shows.
    package var used: ByteCount?
    /// Allocated by the head and the snapshots together, what they share counted once.
    package var allocated: ByteCount?
    /// Allocated by the head.
    package var head: ByteCount?
    /// What the head shows of a parent, and so isn't allocated here.
    package var parent: ByteCount?
    /// Oldest first.
    package var snapshots: [SnapshotUsage] = []
    package var means: Means?
    /// Why figures are missing.
    package var problem: String?

    package init(pool: String, namespace: String, name: String) {
        self.pool = pool
        self.namespace = namespace
        self.name = name
    }

    /// What the snapshots hold beyond the head: what removing all of them would give back.
    package var heldBySnapshots: ByteCount? {
        guard let allocated, let head else { return nil }
        return allocated - head
    }

    /// POOL/[NAMESPACE/]IMAGE, as `rbd` writes it.
    package var spec: String { [pool, namespace, name].filter { !$0.isEmpty }.joined(separator: "/") }
}

package struct SnapshotUsage: Sendable, Equatable {
    package let id: UInt64
    package let name: String
    package let size: ByteCount
    /// Whole objects that were written since the snapshot before: what `rbd du` shows.
    package var used: ByteCount?
    /// What this snapshot alone holds: what removing it would give back.
    package var alone: ByteCount?

    package init(id: UInt64, name: String, size: ByteCount) {
        self.id = id
        self.name = name
        self.size = size
    }
}

/// What a pool says of itself.
package struct PoolView: Sendable, Equatable {
    package let name: String
    /// Bytes that clients have stored, of all applications. Nothing where the monitors don't tell.
    package var stored: ByteCount?
    /// What that takes on the OSDs, copies and parity counted.
    package var used: ByteCount?
    /// What clients can still store, the quota left out.
    package var available: ByteCount?
    /// Nothing without a quota.
    package var quota: ByteCount?
    /// "3 copies", "erasure-coded 4+2".
    package var redundancy: String
    /// Bytes on the OSDs for each byte stored: 3 for three copies, 1.5 for 4+2.
    package var overhead: Double

    package init(name: String, copies: Int) {
        self.name = name
        redundancy = copies == 1 ? "1 copy" : "\(copies) copies"
        overhead = Double(copies)
    }

    /// What clients can still store, as far as it is known.
    package var room: ByteCount? {
        let stored = stored ?? .zero
        let left = quota.map { $0 > stored ? $0 - stored : .zero }
        return [available, left].compactMap(\.self).min()
    }
}
