internal import CCeph
internal import Volumes

/// The object maps of an image as they stand in its pool.
struct ObjectMapStore: Sendable {
    /// The image's own pool: maps aren't kept in the data pool.
    let pool: Pool
    let imageID: String

    /// As librbd names them (`ObjectMap::object_map_name`).
    private func name(_ snapshot: UInt64?) -> String {
        let base = "rbd_object_map." + imageID
        guard let snapshot else { return base }
        let digits = String(snapshot, radix: 16)
        return base + "." + String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Reads the map of a snapshot, or of the head.
    /// - Parameter count: The objects that the state may have: a map of fewer isn't believed, by librbd neither.
    /// - Returns: Nothing if there is none, or none that this version understands.
    func load(_ snapshot: UInt64?, objects count: Int) async throws(VolumeError) -> ObjectMap? {
        let name = name(snapshot)
        let bytes: [UInt8]? = try await blocking { () throws(VolumeError) in
            var size: UInt64 = 0
            let found = unsafe rados_stat(pool.handle, name, &size, nil)
            if found == -2 { return nil }
            try check(found, "rados_stat", on: "object \(name)")
            // 256,000,000 objects at two bits, and their sums: librbd makes no larger map.
            guard size <= 80 << 20 else { return nil }
            var bytes = [UInt8](repeating: 0, count: Int(size))
            let read = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe rados_read(
                    pool.handle, name, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), buffer.count, 0)
            }
            if read == -2 { return nil }
            try check(read, "rados_read", on: "object \(name)")
            return Int(read) == bytes.count ? bytes : nil
        }
        guard let map = bytes.flatMap(ObjectMap.init(encoded:)), map.count >= count else { return nil }
        return map
    }

    /// Replaces the head's map (`object_map_save`, cls_rbd). The caller owns the image.
    func save(_ map: ObjectMap) async throws(VolumeError) {
        try await pool.change(name(nil), ClassCall("object_map_save", map.encoded()))
    }
}
