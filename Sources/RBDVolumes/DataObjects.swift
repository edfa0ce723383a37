internal import CCeph
internal import Volumes

/// The data objects of an image, as one snapshot shows them.
final class DataObjects: Sendable {
    let pool: Pool
    /// "rbd_data.1a2b": an object's name goes on with a dot and its number in 16 hex digits.
    let prefix: String

    init(pool: Pool, prefix: String) {
        self.pool = pool
        self.prefix = prefix
    }

    func showing(_ snapshot: UInt64) throws(VolumeError) -> DataObjects {
        DataObjects(pool: try pool.showing(snapshot), prefix: prefix)
    }

    func name(of number: Int) -> String {
        let digits = String(number, radix: 16)
        return prefix + "." + String(repeating: "0", count: max(0, 16 - digits.count)) + digits
    }

    func error(_ code: Int32, _ operation: String, _ number: Int) -> VolumeError {
        VolumeError(ceph: code, operation, on: "object \(name(of: number)) of pool \(pool.name)")
    }

    /// The allocated bytes of an object in `ranges`; nothing if it doesn't exist.
    func read(_ number: Int, _ ranges: ExtentSet) async throws(VolumeError) -> ObjectRead? {
        let wanted = ranges.extents.map { cceph_extent(offset: $0.offset.bytes, length: $0.length.bytes) }
        var result: OpaquePointer?
        let code = unsafe await completed { done, context in
            unsafe cceph_sparse_read(pool.handle, name(of: number), wanted, wanted.count, &result, done, context)
        }
        guard let result = unsafe result else { throw error(code, "sparse_read", number) }
        let read = unsafe ObjectRead(result)
        if code == -2 { return nil }
        guard code >= 0 else { throw error(code, "sparse_read", number) }
        guard read.load() else { throw error(-5, "sparse_read", number) }
        return read
    }

    /// The versions of an object; nothing if it never existed. The pool shows `LIBRADOS_SNAP_DIR`.
    func history(of number: Int) async throws(VolumeError) -> ObjectHistory? {
        var result: OpaquePointer?
        let code = unsafe await completed { done, context in
            unsafe cceph_list_snaps(pool.handle, name(of: number), &result, done, context)
        }
        defer { unsafe cceph_history_free(result) }
        if code == -2 { return nil }
        guard code >= 0, let result = unsafe result else { throw error(code, "list_snaps", number) }
        return unsafe ObjectHistory(result)
    }

    /// What the OSD says of an object without sending it; nothing if it doesn't exist.
    /// - Parameters:
    ///   - part: What of it to hash. From a multiple of `chunk` to another.
    ///   - chunk: Bytes to each hash. A power of two.
    func digest(of number: Int, in part: Extent, chunk: ByteCount) async throws(VolumeError) -> ObjectDigest? {
        var result: OpaquePointer?
        let code = unsafe await completed { done, context in
            unsafe cceph_checksum(
                pool.handle, name(of: number), part.offset.bytes, part.length.bytes, chunk.bytes, &result, done, context
            )
        }
        defer { unsafe cceph_digest_free(result) }
        if code == -2 { return nil }
        guard code >= 0, let result = unsafe result else { throw error(code, "checksum", number) }
        var (count, size, sumCode) = (0, UInt64(0), Int32(0))
        let hashes = unsafe cceph_digest_hashes(result, &count, &size, &sumCode)
        let list = unsafe hashes.map { unsafe Array(UnsafeBufferPointer(start: $0, count: count)) } ?? []
        return ObjectDigest(size: ByteCount(size), hashes: sumCode < 0 ? nil : list)
    }

    /// Which bytes of an object the OSD allocated; empty if it doesn't exist. Blocks.
    func allocated(of number: Int, in range: Extent) throws(VolumeError) -> ExtentSet {
        var capacity = 64
        while true {
            var found = [cceph_extent](repeating: cceph_extent(), count: capacity)
            let count = unsafe cceph_map_extents(
                pool.handle, name(of: number), range.offset.bytes, range.length.bytes, &found, capacity)
            if count == -2 { return ExtentSet() }
            guard count >= 0 else { throw error(Int32(count), "mapext", number) }
            if count > capacity {
                capacity = Int(count)
                continue
            }
            return ExtentSet(
                found.prefix(Int(count)).map {
                    Extent(offset: ByteOffset($0.offset), length: ByteCount($0.length)).intersection(range)
                })
        }
    }

    /// Changes an object in one step.
    /// - Returns: False if there was nothing to remove.
    @discardableResult
    func apply(_ change: borrowing ObjectChange, to number: Int, under context: SnapshotContext)
        async throws(VolumeError) -> Bool
    {
        precondition(!change.isEmpty, "librados dies of an operation without parts")
        guard let write = unsafe cceph_write_new() else { throw error(-12, "write", number) }
        defer { unsafe cceph_write_free(write) }
        unsafe change.compose(into: write)
        let snapshots = context.newestFirst
        let code = unsafe await completed { done, waiter in
            unsafe cceph_write_submit(
                pool.handle, name(of: number), write, snapshots.first ?? 0, snapshots, snapshots.count, done, waiter)
        }
        if code == -2, change.isRemoval { return false }
        guard code >= 0 else { throw error(code, change.operation, number) }
        return true
    }
}

/// Under which snapshots an object is written: the OSD keeps a version for the newest before it changes the object.
struct SnapshotContext: Sendable, Equatable {
    let newestFirst: [UInt64]

    init(_ snapshots: [UInt64]) { newestFirst = snapshots.sorted(by: >) }
}

/// One atomic change of an object.
@safe struct ObjectChange: ~Copyable {
    @safe private enum Kind {
        case parts(truncate: ByteCount?, zeros: ExtentSet, data: [ObjectRead.Segment])
        case removal
        case copy(name: String, from: Pool)
    }
    private let kind: Kind
    /// Keeps the bytes of the segments until the change was applied.
    private let read: ObjectRead?

    static func removal() -> ObjectChange { ObjectChange(kind: .removal, read: nil) }

    /// OSD to OSD, all of the object.
    static func copy(of name: String, from pool: Pool) -> ObjectChange {
        ObjectChange(kind: .copy(name: name, from: pool), read: nil)
    }

    /// Truncates first, then makes holes, then writes.
    static func parts(
        truncate: ByteCount?, zeros: ExtentSet, data: [ObjectRead.Segment], of read: ObjectRead?
    ) -> ObjectChange {
        unsafe ObjectChange(kind: .parts(truncate: truncate, zeros: zeros, data: data), read: read)
    }

    var isRemoval: Bool { if case .removal = kind { true } else { false } }

    var isEmpty: Bool {
        guard case .parts(let size, let zeros, let data) = kind else { return false }
        return size == nil && zeros.isEmpty && data.isEmpty
    }

    var operation: String {
        switch kind {
        case .parts: "write"
        case .removal: "remove"
        case .copy: "copy_from"
        }
    }

    borrowing func compose(into write: OpaquePointer) {
        switch kind {
        case .parts(let size, let zeros, let data):
            if let size { unsafe cceph_write_truncate(write, size.bytes) }
            for extent in zeros.extents { unsafe cceph_write_zero(write, extent.offset.bytes, extent.length.bytes) }
            for segment in data {
                unsafe cceph_write_data(
                    write, segment.extent.offset.bytes, segment.bytes, Int(segment.extent.length.bytes))
            }
        case .removal: unsafe cceph_write_remove(write)
        case .copy(let name, let pool): unsafe cceph_write_copy(write, name, pool.handle)
        }
    }
}

/// What an OSD says of an object without sending it.
struct ObjectDigest: Sendable, Equatable {
    let size: ByteCount
    /// One xxhash64 for each chunk of what was asked for that lies wholly within the object; nothing if the OSD can't hash this object.
    let hashes: [UInt64]?
}

/// What a sparse read of an object returned; owns the bytes.
@safe final class ObjectRead: @unchecked Sendable {
    // Unchecked: filled by librados before anybody else sees it, then loaded once, then only read.
    private let handle: OpaquePointer
    private(set) var segments: [Segment] = []

    @safe struct Segment {
        let extent: Extent
        let bytes: UnsafePointer<UInt8>
    }

    fileprivate init(_ handle: OpaquePointer) { unsafe self.handle = unsafe handle }
    deinit { unsafe cceph_read_free(handle) }

    fileprivate func load() -> Bool {
        var (list, count): (UnsafePointer<cceph_segment>?, Int) = (nil, 0)
        guard unsafe cceph_read_segments(handle, &list, &count) == 0 else { return false }
        segments = unsafe UnsafeBufferPointer(start: list, count: count).compactMap { segment in
            guard let bytes = unsafe segment.bytes else { return nil }
            return unsafe Segment(
                extent: Extent(offset: ByteOffset(segment.offset), length: ByteCount(segment.length)), bytes: bytes)
        }
        return true
    }

    var total: ByteCount { segments.reduce(.zero) { $0 + $1.extent.length } }

    /// The segments without their blocks of zeros, and without what lies outside `ranges`.
    func nonzero() -> [Segment] {
        var found: [Segment] = []
        for segment in segments {
            let buffer = unsafe UnsafeRawBufferPointer(start: segment.bytes, count: Int(segment.extent.length.bytes))
            unsafe forEachDataRun(in: buffer, at: segment.extent.offset) { run in
                unsafe found.append(
                    Segment(extent: run, bytes: segment.bytes + Int((run.offset - segment.extent.offset).bytes)))
            }
        }
        return found
    }
}

extension ObjectHistory {
    /// Copies what librados listed.
    fileprivate init(_ handle: OpaquePointer) {
        var (list, newest): (UnsafePointer<cceph_clone>?, UInt64) = (nil, 0)
        let count = unsafe cceph_history_clones(handle, &list, &newest)
        let versions = unsafe UnsafeBufferPointer(start: list, count: count).map { clone in
            unsafe Version(
                id: clone.id == CCEPH_HEAD ? Version.head : clone.id, size: ByteCount(clone.size),
                snapshots: Array(UnsafeBufferPointer(start: clone.snaps, count: clone.snap_count)),
                shared: ExtentSet(
                    UnsafeBufferPointer(start: clone.overlap, count: clone.overlap_count).map {
                        Extent(offset: ByteOffset($0.offset), length: ByteCount($0.length))
                    }))
        }
        self.init(versions: versions, newestSnapshot: newest)
    }
}
