internal import CCeph
internal import Foundation
internal import Volumes

/// An RBD image, opened through librbd.
@safe final class Image: Sendable {
    enum Access { case reading, writing }

    let pool: Pool
    let name: String
    /// As the operator knows it: "rbd:fast/v@monday".
    let title: String
    /// The snapshot that it shows; nothing for the head.
    let snapshot: Snapshot?
    // Unsafe: librbd's calls on one image are thread-safe; `close` takes the handle away once.
    nonisolated(unsafe) let handle: rbd_image_t

    private init(pool: Pool, name: String, title: String, snapshot: Snapshot?, handle: rbd_image_t) {
        self.pool = pool
        self.name = name
        self.title = title
        self.snapshot = snapshot
        unsafe self.handle = unsafe handle
    }

    /// Opens an image, or one of its snapshots. Reading registers no watch and takes no lock.
    static func open(
        _ name: String, in pool: Pool, title: String, for access: Access, at snapshot: Snapshot? = nil
    ) async throws(VolumeError) -> Image {
        try await blocking { () throws(VolumeError) in
            var opened: rbd_image_t?
            let operation = access == .reading ? "rbd_open_read_only" : "rbd_open"
            let code =
                switch access {
                case .reading: unsafe rbd_open_read_only(pool.handle, name, &opened, nil)
                case .writing: unsafe rbd_open(pool.handle, name, &opened, nil)
                }
            guard code == 0, let handle = unsafe opened else {
                throw VolumeError(
                    ceph: code, operation, on: title,
                    advice: code == -2 ? "There is no such image: 'rbd ls \(pool.path)' lists them." : nil)
            }
            let image = unsafe Image(pool: pool, name: name, title: title, snapshot: snapshot, handle: handle)
            if let snapshot {
                let code = unsafe rbd_snap_set_by_id(handle, snapshot.id)
                if code < 0 {
                    unsafe _ = rbd_close(handle)
                    throw VolumeError(ceph: code, "rbd_snap_set_by_id", on: "\(title)@\(snapshot.name)")
                }
            }
            return image
        }
    }

    /// Opens an image for the time of `body`.
    static func with<Value: Sendable>(
        _ name: String, in pool: Pool, title: String, for access: Access, at snapshot: Snapshot? = nil,
        _ body: (Image) async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        let image = try await open(name, in: pool, title: title, for: access, at: snapshot)
        do throws(VolumeError) {
            let value = try await body(image)
            await image.close()
            return value
        } catch {
            await image.close()
            throw error
        }
    }

    /// Once, and after the last operation ended.
    func close() async {
        // What closing could still report, a flush that failed, doesn't concern us: nothing is cached.
        _ = try? await blocking { () throws(VolumeError) in unsafe _ = rbd_close(self.handle) }
    }

    /// Calls a function of librbd that blocks and returns a negative errno on failure.
    @discardableResult
    func call(
        _ operation: String, advice: String? = nil, _ body: @escaping @Sendable (rbd_image_t) -> Int32
    ) async throws(VolumeError) -> Int32 {
        try await blocking { () throws(VolumeError) in
            let code = unsafe body(self.handle)
            guard code >= 0 else { throw VolumeError(ceph: code, operation, on: self.title, advice: advice) }
            return code
        }
    }
}

extension Pool {
    /// POOL or POOL/NAMESPACE, as `rbd` writes it.
    var path: String { namespace.isEmpty ? name : "\(name)/\(namespace)" }
}

// What an image says of itself. All of these ask what librbd holds in memory since the image was opened.
extension Image {
    func number<Value: FixedWidthInteger & Sendable>(
        _ operation: String, _ get: @escaping @Sendable (rbd_image_t, UnsafeMutablePointer<Value>) -> Int32
    ) async throws(VolumeError) -> Value {
        try await blocking { () throws(VolumeError) in
            var value = Value.zero
            let code = unsafe get(self.handle, &value)
            guard code >= 0 else { throw VolumeError(ceph: code, operation, on: self.title) }
            return value
        }
    }

    func size() async throws(VolumeError) -> ByteCount {
        unsafe ByteCount(try await number("rbd_get_size") { unsafe rbd_get_size($0, $1) })
    }

    func features() async throws(VolumeError) -> Features {
        unsafe Features(bits: try await number("rbd_get_features") { unsafe rbd_get_features($0, $1) })
    }

    /// Whether it is of format 1, whose objects have other names.
    func isOldFormat() async throws(VolumeError) -> Bool {
        let old: UInt8 = unsafe try await number("rbd_get_old_format") { unsafe rbd_get_old_format($0, $1) }
        return old != 0
    }

    /// How much of the parent shines through; zero without a parent.
    func overlap() async throws(VolumeError) -> ByteCount {
        unsafe ByteCount(try await number("rbd_get_overlap") { unsafe rbd_get_overlap($0, $1) })
    }

    /// Whether the object map of this state may be believed.
    func hasValidObjectMap() async throws(VolumeError) -> Bool {
        let flags: UInt64 = unsafe try await number("rbd_get_flags") { unsafe rbd_get_flags($0, $1) }
        let has = try await features().contains(.objectMap)
        return has && flags & UInt64(RBD_FLAG_OBJECT_MAP_INVALID) == 0
    }

    /// Which objects exist in this state; nothing if that can't be told without asking each.
    func objectMap() async throws(VolumeError) -> ObjectMap? {
        guard try await hasValidObjectMap() else { return nil }
        return try await ObjectMapStore(pool: pool, imageID: try await imageID())
            .load(snapshot?.id, objects: try await objectCount())
    }

    func objectCount() async throws(VolumeError) -> Int {
        try await blocking { () throws(VolumeError) in
            var info = rbd_image_info_t()
            let code = unsafe rbd_stat(self.handle, &info, MemoryLayout<rbd_image_info_t>.size)
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_stat", on: self.title) }
            return Int(info.num_objs)
        }
    }

    func objectSize() async throws(VolumeError) -> ByteCount {
        try await blocking { () throws(VolumeError) in
            var info = rbd_image_info_t()
            let code = unsafe rbd_stat(self.handle, &info, MemoryLayout<rbd_image_info_t>.size)
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_stat", on: self.title) }
            return ByteCount(info.obj_size)
        }
    }

    func imageID() async throws(VolumeError) -> String {
        do throws(VolumeError) {
            return unsafe try await string("rbd_get_id") { unsafe rbd_get_id($0, $1, $2) }
        } catch let error where error.kind == .failed {
            // An image of format 1 has none: its objects' prefix is as unique.
            return try await objectPrefix()
        }
    }

    func objectPrefix() async throws(VolumeError) -> String {
        unsafe try await string("rbd_get_block_name_prefix") { unsafe rbd_get_block_name_prefix($0, $1, $2) }
    }

    func dataPool() async throws(VolumeError) -> Pool {
        let id = unsafe rbd_get_data_pool_id(handle)
        guard id >= 0, id != pool.id else { return pool }
        return try Pool(pool.cluster, name: try pool.cluster.poolName(id), namespace: pool.namespace)
    }

    private func string(
        _ operation: String, _ get: @escaping @Sendable (rbd_image_t, UnsafeMutablePointer<CChar>, Int) -> Int32
    ) async throws(VolumeError) -> String {
        try await blocking { () throws(VolumeError) in
            unsafe try text(operation, limit: 512) { buffer, size in unsafe get(self.handle, buffer, size) }
        }
    }

    func layout() async throws(VolumeError) -> Layout {
        let objectSize = try await objectSize()
        let unit: UInt64 = unsafe try await number("rbd_get_stripe_unit") { unsafe rbd_get_stripe_unit($0, $1) }
        let count: UInt64 = unsafe try await number("rbd_get_stripe_count") { unsafe rbd_get_stripe_count($0, $1) }
        let dataPool = try await dataPool()
        return Layout(
            objectSize: objectSize, stripeUnit: ByteCount(unit), stripeCount: count,
            dataPool: dataPool === pool ? nil : dataPool.name, features: try await features().names)
    }

    func metadata() async throws(VolumeError) -> Metadata {
        try await blocking { () throws(VolumeError) in
            var all = Metadata()
            var start: [UInt8] = []
            while true {
                let page = try self.metadataPage(after: start)
                for (key, value) in page { all[bytes: key] = value }
                guard page.count == Self.metadataPageSize, let last = page.last?.key else { return all }
                start = last
            }
        }
    }

    private static let metadataPageSize = 64

    private func metadataPage(after start: [UInt8]) throws(VolumeError) -> [(key: [UInt8], value: [UInt8])] {
        // Grown until the page fits: librbd then says how much it wants (-ERANGE).
        var (keysSize, valuesSize) = (4096, 65536)
        while true {
            var keys = [CChar](repeating: 0, count: keysSize)
            var values = [CChar](repeating: 0, count: valuesSize)
            let code = unsafe rbd_metadata_list(
                handle, Self.cString(start), UInt64(Self.metadataPageSize), &keys, &keysSize, &values, &valuesSize)
            if code == -34, keysSize <= 1 << 26, valuesSize <= 1 << 26 {
                keysSize = max(keysSize, keys.count * 2)
                valuesSize = max(valuesSize, values.count * 2)
                continue
            }
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_metadata_list", on: title) }
            let pair = zip(Self.byteStrings(keys[..<keysSize]), Self.byteStrings(values[..<valuesSize]))
            return pair.map { (key: $0, value: $1) }
        }
    }

    private static func cString(_ bytes: [UInt8]) -> [CChar] { (bytes + [0]).map { CChar(bitPattern: $0) } }

    /// Strings that end with a NUL each, one after the other.
    private static func byteStrings(_ characters: ArraySlice<CChar>) -> [[UInt8]] {
        var parts = characters.split(separator: 0, omittingEmptySubsequences: false)
        if parts.last?.isEmpty == true { parts.removeLast() }
        return parts.map { $0.map(UInt8.init(bitPattern:)) }
    }

    static func strings(_ characters: ArraySlice<CChar>) -> [String] {
        byteStrings(characters).map { String(decoding: $0, as: UTF8.self) }
    }

    func metadata(_ key: String) async throws(VolumeError) -> String? {
        try await metadata()[key]
    }

    func removeMetadata(_ key: [UInt8]) async throws(VolumeError) {
        unsafe try await call("rbd_metadata_remove") { unsafe rbd_metadata_remove($0, Self.cString(key)) }
    }

    func setMetadata(_ key: [UInt8], to value: [UInt8]) async throws(VolumeError) {
        unsafe try await call("rbd_metadata_set") {
            unsafe rbd_metadata_set($0, Self.cString(key), Self.cString(value))
        }
    }
}

extension Image {
    struct ListedSnapshot: Sendable {
        let snapshot: Snapshot
        let kind: rbd_snap_namespace_type_t
    }

    /// All snapshots, oldest first, whatever they belong to.
    func snapshots() async throws(VolumeError) -> [ListedSnapshot] {
        try await blocking { () throws(VolumeError) in
            var count: Int32 = 64
            var infos: [rbd_snap_info_t] = unsafe []
            var code: Int32 = -34
            // The list may grow between the question how long it is and the call.
            for _ in 0..<8 where code == -34 {
                unsafe infos = unsafe [rbd_snap_info_t](repeating: rbd_snap_info_t(), count: Int(count))
                code = unsafe rbd_snap_list(self.handle, &infos, &count)
            }
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_snap_list", on: self.title) }
            var listed: [ListedSnapshot] = []
            for index in 0..<Int(code) {
                let info = unsafe infos[index]
                guard let name = unsafe info.name.map({ unsafe String(cString: $0) }) else { continue }
                var kind = RBD_SNAP_NAMESPACE_TYPE_USER
                unsafe _ = rbd_snap_get_namespace_type(self.handle, info.id, &kind)
                var isProtected: Int32 = 0
                if kind == RBD_SNAP_NAMESPACE_TYPE_USER {
                    unsafe _ = rbd_snap_is_protected(self.handle, name, &isProtected)
                }
                listed.append(
                    ListedSnapshot(
                        snapshot: unsafe Snapshot(
                            id: info.id, name: name, size: ByteCount(info.size), isProtected: isProtected != 0),
                        kind: kind))
            }
            if code > 0 { unsafe rbd_snap_list_end(&infos) }
            return listed.sorted { $0.snapshot.id < $1.snapshot.id }
        }
    }

    /// A client that has the image open for writing, and so watches its header.
    struct Watcher: Sendable, Equatable {
        let client: Int64
        let address: String
    }

    func watchers() async throws(VolumeError) -> [Watcher] {
        try await blocking { () throws(VolumeError) in
            var count = 64
            var found: [rbd_image_watcher_t] = unsafe []
            var code: Int32 = -34
            for _ in 0..<8 where code == -34 {
                unsafe found = unsafe [rbd_image_watcher_t](repeating: rbd_image_watcher_t(), count: count)
                code = unsafe rbd_watchers_list(self.handle, &found, &count)
            }
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_watchers_list", on: self.title) }
            defer { unsafe rbd_watchers_list_cleanup(&found, count) }
            return unsafe found.prefix(count).map {
                unsafe Watcher(client: $0.id, address: $0.addr.map { unsafe String(cString: $0) } ?? "?")
            }
        }
    }
}

/// What an image can do (`RBD_FEATURE_…`, rbd/features.h), by bit and by name.
struct Features: OptionSet, Sendable {
    let rawValue: UInt64
    init(rawValue: UInt64) { self.rawValue = rawValue }
    init(bits: UInt64) { self.init(rawValue: bits) }

    static let layering = Features(rawValue: 1 << 0)
    static let striping = Features(rawValue: 1 << 1)
    static let exclusiveLock = Features(rawValue: 1 << 2)
    static let objectMap = Features(rawValue: 1 << 3)
    static let fastDiff = Features(rawValue: 1 << 4)
    static let deepFlatten = Features(rawValue: 1 << 5)
    static let journaling = Features(rawValue: 1 << 6)
    static let dataPool = Features(rawValue: 1 << 7)
    static let operations = Features(rawValue: 1 << 8)
    static let migrating = Features(rawValue: 1 << 9)
    static let nonPrimary = Features(rawValue: 1 << 10)

    static let names: [(feature: Features, name: String)] = [
        (.layering, "layering"), (.striping, "striping"), (.exclusiveLock, "exclusive-lock"),
        (.objectMap, "object-map"), (.fastDiff, "fast-diff"), (.deepFlatten, "deep-flatten"),
        (.journaling, "journaling"), (.dataPool, "data-pool"), (.operations, "operations"),
        (.migrating, "migrating"), (.nonPrimary, "non-primary"),
    ]

    /// What can be asked for when an image is made; the rest follows from its layout or its history.
    static let chosen: Features = [.layering, .exclusiveLock, .objectMap, .fastDiff, .deepFlatten, .journaling]

    var names: Set<String> { Set(Self.names.filter { contains($0.feature) }.map(\.name)) }

    init(names: Set<String>) {
        self.init(Self.names.filter { names.contains($0.name) }.map(\.feature))
    }
}
