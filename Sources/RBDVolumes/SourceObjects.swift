internal import CCeph
internal import Volumes

// The source's objects as its header tells of them: without opening the image.
extension RBDSource {
    /// - Returns: Nothing for an image of format 1, which has no such header, and where there is no image.
    func header() async throws(VolumeError) -> ImageHeader? {
        guard let id = try await pool.id(ofNamed: name) else { return nil }
        do throws(VolumeError) {
            return try await ImageHeader.load(id: id, in: pool)
        } catch  where error.kind == .unsupported {
            // A librbd that is newer than this may know what to do with it.
            return nil
        }
    }

    func neededHeader() async throws(VolumeError) -> ImageHeader {
        guard let header = try await header() else {
            throw VolumeError(ceph: -2, "rados_read", on: address, advice: "'rbd ls \(pool.path)' lists its images.")
        }
        return header
    }

    /// Which objects exist in a state; nothing if that can't be told without asking each.
    /// - Parameter snapshot: Nothing for the head.
    func objectMap(of snapshot: UInt64?, _ header: ImageHeader) async throws(VolumeError) -> ObjectMap? {
        try await pool.objectMap(of: snapshot, header)
    }

    /// The extents of the head.
    func objectExtents(of header: ImageHeader) async throws(VolumeError) -> ObjectExtents {
        try ObjectExtents(
            of: try pool.dataObjects(of: header), striping: header.striping, at: nil,
            map: try await objectMap(of: nil, header)
        ) { base throws(VolumeError) in try await self.objectMap(of: base.id, header) }
    }
}

extension Pool {
    /// Which objects of an image of this pool exist in a state; nothing if that can't be told without asking each.
    /// - Parameter snapshot: Nothing for the head.
    func objectMap(of snapshot: UInt64?, _ header: ImageHeader) async throws(VolumeError) -> ObjectMap? {
        guard let state = header.state(of: snapshot), header.hasValidObjectMap(state.flags) else { return nil }
        return try await ObjectMapStore(pool: self, imageID: header.id)
            .load(snapshot, objects: header.striping.objectCount(of: state.size))
    }

    /// The data objects of an image of this pool.
    func dataObjects(of header: ImageHeader) throws(VolumeError) -> DataObjects {
        guard let id = header.dataPool, id != self.id else {
            return DataObjects(pool: self, prefix: header.objectPrefix)
        }
        let dataPool = try Pool(cluster, name: try cluster.poolName(id), namespace: namespace)
        return DataObjects(pool: dataPool, prefix: header.objectPrefix)
    }
}

extension ImageHeader {
    var striping: Striping { Striping(unit: stripeUnit, count: stripeCount, objectSize: objectSize) }

    /// Whether the objects hold all bytes of every state: no parent shines through.
    var holdsAllInObjects: Bool {
        // What is being migrated shows its source as a parent would.
        !features.contains(.migrating) && (parent?.overlap ?? .zero) == .zero
            && !snapshots.contains { $0.kind == .user && $0.overlap > .zero }
    }

    /// - Parameter snapshot: Nothing for the head.
    func state(of snapshot: UInt64?) -> (size: ByteCount, flags: UInt64)? {
        guard let snapshot else { return (size, flags) }
        return snapshots.first { $0.id == snapshot }.map { ($0.size, $0.flags) }
    }

    var layout: Layout {
        Layout(
            objectSize: objectSize, stripeUnit: stripeUnit, stripeCount: stripeCount, dataPool: nil,
            features: features.names)
    }
}
