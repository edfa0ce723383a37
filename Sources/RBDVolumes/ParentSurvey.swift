internal import CCeph
internal import Volumes

/// Measures what shows of a parent, and of its own parents.
struct ParentSurvey: Sendable {
    /// A chain of clones longer than this doesn't end.
    private static let deepest = 64

    let cluster: Cluster
    let isExact: Bool
    let slots: Slots

    /// - Parameter ranges: Where the child has no object of its own.
    func visible(_ ranges: ExtentSet, of parent: ImageHeader.Parent) async throws(VolumeError) -> ByteCount {
        var (ranges, parent) = (ranges, parent)
        var total = ByteCount.zero
        for _ in 0..<Self.deepest {
            ranges = ranges.intersection(Extent(offset: .zero, length: parent.overlap))
            let place = try Pool(cluster, name: try cluster.poolName(parent.pool), namespace: parent.namespace)
            let id = parent.image
            let header = try await slots.run { () throws(VolumeError) in try await ImageHeader.load(id: id, in: place) }
            guard let header, let state = header.snapshots.first(where: { $0.id == parent.snapshot }) else {
                throw VolumeError(.missing, "parent", on: "image \(id) of pool \(place.path)", reason: "it is no more")
            }
            let (bytes, missing) = try await held(ranges, header, state, in: place)
            total += bytes
            guard var older = header.parent, state.overlap > .zero, !missing.isEmpty else { return total }
            older.overlap = state.overlap
            (ranges, parent) = (missing, older)
        }
        return total
    }

    /// What the parent's snapshot holds in `ranges`, and where it has no object.
    private func held(
        _ ranges: ExtentSet, _ header: ImageHeader, _ state: HeaderSnapshot, in place: Pool
    ) async throws(VolumeError) -> (bytes: ByteCount, missing: ExtentSet) {
        let map = try await slots.run { () throws(VolumeError) in try await place.objectMap(of: state.id, header) }
        let striping = header.striping
        let objects = try place.dataObjects(of: header).showing(state.id)
        let histories = try objects.showing(CCEPH_SNAP_DIR)
        var numbers: Set<Int> = []
        for extent in ranges.extents {
            let touched = striping.objects(of: extent)
            guard let map else {
                numbers.formUnion(touched)
                continue
            }
            map.existingRuns(in: touched, with: nil) { numbers.formUnion($0) }
        }
        let whole = Extent(offset: .zero, length: header.objectSize)
        let (isExact, slots) = (isExact, slots)
        let found = try await concurrently(numbers.sorted(), limit: 64) { number throws(VolumeError) in
            let inImage = ExtentSet(striping.imageExtents(of: whole, in: number))
            if !isExact, map != nil { return (data: inImage, object: inImage) }
            let told = try await slots.run { () throws(VolumeError) in
                try await objects.allocated(of: number, upTo: whole.length) ?? ExtentSet([whole])
            }
            let data = ExtentSet(told.extents.flatMap { striping.imageExtents(of: $0, in: number) })
            // One without any byte may be there to hide what its own parent has.
            var exists = map != nil || !told.isEmpty
            if !exists {
                exists = try await slots.run { () throws(VolumeError) in
                    try await histories.history(of: number)?.change(since: nil, to: state.id) ?? .none != .none
                }
            }
            return (data: isExact ? data : inImage, object: exists ? inImage : ExtentSet())
        }
        let data = ExtentSet(found.flatMap(\.data.extents))
        let present = ExtentSet(found.flatMap(\.object.extents))
        return (data.intersection(ranges).total, ranges.subtracting(present))
    }
}
