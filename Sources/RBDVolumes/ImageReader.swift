internal import CCeph
internal import Volumes

/// One state of an RBD image. Its extents come from the objects themselves, or, where a parent shines through, from
/// librbd; its bytes come from librbd.
final class ImageReader: VolumeReader {
    let size: ByteCount
    let means: ExtentMeans
    let extentUnit: ByteCount
    private let image: Image
    private let snapshot: Snapshot?
    private let overlap: ByteCount
    private let objects: ObjectExtents

    /// - Parameters:
    ///   - image: Opened at `snapshot`; closed by `close`.
    ///   - isStill: Whether nobody writes to this state meanwhile, so that the object map as it is now stays true.
    init(_ image: Image, at snapshot: Snapshot?, isStill: Bool = true) async throws(VolumeError) {
        self.image = image
        self.snapshot = snapshot
        size = try await image.size()
        overlap = try await image.overlap()
        // Objects of format 1 have other names.
        let isOld = try await image.isOldFormat()
        objects = try ObjectExtents(
            of: DataObjects(pool: try await image.dataPool(), prefix: try await image.objectPrefix()),
            striping: Striping(try await image.layout()), at: snapshot, map: isStill ? try await image.objectMap() : nil
        ) { base throws(VolumeError) in
            try await Image.with(
                image.name, in: image.pool, title: image.title, for: .reading, at: base
            ) { older throws(VolumeError) in try await older.objectMap() }
        }
        let holdsAllInObjects = overlap == .zero && !isOld
        let isSupported = holdsAllInObjects ? try await objects.canTell() : false
        means = isSupported ? .objectExtents : .diff
        extentUnit = objects.striping.setSize
    }

    func close() async { await image.close() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        guard let start = unsafe buffer.baseAddress?.assumingMemoryBound(to: CChar.self) else { return }
        let count = buffer.count
        let got = unsafe await completedImage { completion in
            unsafe rbd_aio_read(image.handle, offset.bytes, count, start, completion)
        }
        guard got >= 0 else {
            throw VolumeError(ceph: Int32(got), "rbd_aio_read", on: "\(image.title) at byte \(offset.bytes)")
        }
        guard got == count else {
            throw VolumeError(
                .damaged, "rbd_aio_read", on: "\(image.title) at byte \(offset.bytes)",
                reason: "\(got) bytes of \(count)")
        }
    }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        let range = range.intersection(Extent(offset: .zero, length: size))
        guard !range.isEmpty else { return ExtentSet() }
        return means == .objectExtents
            ? try await objects.extents(in: range, since: base) : try await diff(in: range, since: base)
    }

    /// librbd's own answer. It counts a parent's bytes, and knows the erasure-coded pools.
    private func diff(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        var dirty = try await image.diff(in: range, since: base, countsHoles: base != nil)
        guard let base else { return dirty }
        // Where more or less of the parent shines through than before, the bytes differ without any object having
        // changed: librbd doesn't report that.
        let olderOverlap = try await Image.with(
            image.name, in: image.pool, title: image.title, for: .reading, at: base
        ) { older throws(VolumeError) in try await older.overlap() }
        dirty = dirty.union(
            ExtentSet([
                Extent(
                    from: ByteOffset(min(overlap, olderOverlap).bytes), to: ByteOffset(max(overlap, olderOverlap).bytes)
                )
            ]))
        return dirty.intersection(range)
    }
}

extension Image {
    /// What librbd says is allocated in `range`, its parent's bytes included, or was written since `base`.
    /// - Parameters:
    ///   - countsHoles: Whether what was made a hole since `base` is told, too.
    ///   - wholeObjects: Whether an object counts in full that has any byte.
    func diff(
        in range: Extent, since base: Snapshot?, countsHoles: Bool, wholeObjects: Bool = false
    ) async throws(VolumeError) -> ExtentSet {
        try await blocking { () throws(VolumeError) in
            let found = DiffFound(countsHoles: countsHoles)
            // It takes the base by its name, which may be another snapshot's by now.
            try self.expect(base)
            let code = unsafe rbd_diff_iterate2(
                self.handle, base?.name, range.offset.bytes, range.length.bytes, 1, wholeObjects ? 1 : 0, collectDiff,
                Unmanaged.passUnretained(found).toOpaque())
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_diff_iterate2", on: self.title) }
            try self.expect(base)
            return ExtentSet(found.extents)
        }
    }
}

extension Image {
    /// - Throws: `missing` if that name isn't that snapshot's.
    fileprivate func expect(_ snapshot: Snapshot?) throws(VolumeError) {
        guard let snapshot else { return }
        var id: UInt64 = 0
        let code = unsafe rbd_snap_get_id(handle, snapshot.name, &id)
        try check(code, "rbd_snap_get_id", on: "\(title)@\(snapshot.name)")
        guard id == snapshot.id else {
            throw VolumeError(
                .missing, "rbd_snap_get_id", on: "\(title)@\(snapshot.name)",
                reason: "that name is another snapshot's now")
        }
    }
}

private final class DiffFound {
    let countsHoles: Bool
    var extents: [Extent] = []
    init(countsHoles: Bool) { self.countsHoles = countsHoles }
}

/// Called by librbd, in no certain order of extents, one call at a time.
private let collectDiff: @convention(c) (UInt64, Int, Int32, UnsafeMutableRawPointer?) -> Int32 = {
    offset, length, exists, context in
    guard let context = unsafe context else { return -22 }
    let found = unsafe Unmanaged<DiffFound>.fromOpaque(context).takeUnretainedValue()
    if exists != 0 || found.countsHoles {
        found.extents.append(Extent(offset: ByteOffset(offset), length: ByteCount(UInt64(length))))
    }
    return 0
}
