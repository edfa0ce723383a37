internal import Volumes

/// What objects said of how they differ from a base, kept until they are moved.
struct KnownChanges {
    /// As many extents are kept, some 16 MiB: an object beyond is asked again.
    private static let mostExtents = 1 << 20
    private var changes: [Int: ObjectHistory.Change] = [:]
    private var extents = 0
    /// Bytes to be moved.
    private(set) var total = ByteCount.zero

    mutating func note(_ change: ObjectHistory.Change, _ dirty: ExtentSet, of object: Int) {
        if case .written(_, let size, _) = change {
            total += dirty.intersection(Extent(offset: .zero, length: size)).total
        }
        guard extents + dirty.extents.count <= Self.mostExtents else { return }
        extents += dirty.extents.count
        changes[object] = change
    }

    mutating func take(_ object: Int) -> ObjectHistory.Change? { changes.removeValue(forKey: object) }
}
