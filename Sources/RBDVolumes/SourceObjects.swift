internal import CCeph
internal import Volumes

// An image's objects as its header tells of them: without opening the image.
extension RBDSource {
    func header() async throws(VolumeError) -> ImageHeader? { try await pool.header(ofImage: name) }

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
            map: try await objectMap(of: nil, header),
            loadMap: { base throws(VolumeError) in try await self.objectMap(of: base.id, header) },
            loadChanged: { base throws(VolumeError) in
                try await self.pool.changedObjects(since: base.id, to: nil, header)
            })
    }
}

extension Pool {
    /// - Returns: Nothing for an image of format 1, which has no such header, and where there is no image.
    func header(ofImage name: String) async throws(VolumeError) -> ImageHeader? {
        guard let id = try await id(ofNamed: name) else { return nil }
        do throws(VolumeError) {
            return try await ImageHeader.load(id: id, in: self)
        } catch  where error.kind == .unsupported {
            // A librbd that is newer than this may know what to do with it.
            return nil
        }
    }

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

extension Pool {
    /// Which objects may differ between two states of an image, going by its object maps; nothing if they don't tell.
    ///
    /// - Parameter known: The maps of the two, if they were read already.
    func changedObjects(
        since base: UInt64, to goal: UInt64?, _ header: ImageHeader, known: (ObjectMap?, ObjectMap?)? = nil
    ) async throws(VolumeError) -> ObjectMap? {
        let between = header.snapshots.filter { $0.id > base && $0.id < goal ?? .max }.map(\.id)
        for id in between.map({ $0 as UInt64? }) + [goal] {
            guard let state = header.state(of: id), header.tellsClean(state.flags) else { return nil }
        }
        var maps: [ObjectMap] = []
        for id in between {
            guard let map = try await objectMap(of: id, header) else { return nil }
            maps.append(map)
        }
        let (older, newer) =
            if let known { known } else {
                (try await objectMap(of: base, header), try await objectMap(of: goal, header))
            }
        guard let older, let newer else { return nil }
        return newer.changed(since: older, through: maps)
    }
}

extension ImageHeader {
    /// Whether the object map of a state tells which objects weren't written since the snapshot before.
    func tellsClean(_ flags: UInt64) -> Bool {
        features.contains(.fastDiff) && hasValidObjectMap(flags) && flags & UInt64(RBD_FLAG_FAST_DIFF_INVALID) == 0
    }

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
