internal import CCeph
internal import Synchronization
internal import Volumes

/// One state of an RBD image. Its extents come from the objects themselves, or, where a parent shines through, from
/// librbd; its bytes come from librbd.
final class ImageReader: VolumeReader {
    /// Objects asked for their extents at once.
    private static let objectsInFlight = 16

    let size: ByteCount
    let means: ExtentMeans
    let extentUnit: ByteCount
    /// Whether the objects hold all of the volume's bytes: no parent shines through, and they have the usual names.
    let holdsAllInObjects: Bool
    private let image: Image
    private let snapshot: Snapshot?
    private let overlap: ByteCount
    private let striping: Striping
    private let objects: DataObjects
    private let histories: DataObjects
    private let map: ObjectMap?
    /// By snapshot; nothing for a snapshot without one.
    private let olderMaps = Mutex<[UInt64: ObjectMap?]>([:])

    /// - Parameter image: Opened at `snapshot`; closed by `close`.
    init(_ image: Image, at snapshot: Snapshot?) async throws(VolumeError) {
        self.image = image
        self.snapshot = snapshot
        size = try await image.size()
        overlap = try await image.overlap()
        striping = Striping(try await image.layout())
        let prefix = try await image.objectPrefix()
        let pool = try await image.dataPool()
        objects = DataObjects(pool: try pool.showing(snapshot?.id ?? CCEPH_HEAD), prefix: prefix)
        histories = try objects.showing(CCEPH_SNAP_DIR)
        map = try await image.objectMap()
        // Objects of format 1 have other names.
        let isOld = try await image.isOldFormat()
        holdsAllInObjects = overlap == .zero && !isOld
        let isSupported = holdsAllInObjects ? try await Self.canMapExtents(of: objects, map) : false
        means = isSupported ? .objectExtents : .diff
        extentUnit = striping.setSize
    }

    func close() async { await image.close() }

    /// Erasure-coded pools can't tell the extents of their objects: one object that exists is asked.
    private static func canMapExtents(of objects: DataObjects, _ map: ObjectMap?) async throws(VolumeError) -> Bool {
        var sample = 0
        map?.existingRuns(with: nil) { if sample == 0 { sample = $0.lowerBound } }
        let number = sample
        do throws(VolumeError) {
            let range = Extent(offset: .zero, length: zeroBlock)
            _ = try await blocking { () throws(VolumeError) in try objects.allocated(of: number, in: range) }
            return true
        } catch  where error.kind == .unsupported {
            return false
        }
    }

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
            ? try await objectExtents(in: range, since: base) : try await diff(in: range, since: base)
    }

    private func objectExtents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        let numbers = try await candidates(for: range, since: base)
        let found = try await concurrently(numbers, limit: Self.objectsInFlight) { number throws(VolumeError) in
            try await self.dirtyExtents(of: number, since: base)
        }
        return ExtentSet(found.joined()).intersection(range)
    }

    /// The objects that exist now or did at the base.
    private func candidates(for range: Extent, since base: Snapshot?) async throws(VolumeError) -> [Int] {
        let numbers = striping.objects(of: range)
        guard let map else { return Array(numbers) }
        var older: ObjectMap?
        if let base {
            older = try await objectMap(of: base)
            guard older != nil else { return Array(numbers) }
        }
        var found: [Int] = []
        map.existingRuns(in: numbers, with: older) { found += $0 }
        return found
    }

    /// The object map of an older state, read once.
    private func objectMap(of base: Snapshot) async throws(VolumeError) -> ObjectMap? {
        if let known = olderMaps.withLock({ $0[base.id] }) { return known }
        let map = try await Image.with(
            image.name, in: image.pool, title: image.title, for: .reading, at: base
        ) { image throws(VolumeError) in try await image.objectMap() }
        olderMaps.withLock { $0[base.id] = .some(map) }
        return map
    }

    private func dirtyExtents(of number: Int, since base: Snapshot?) async throws(VolumeError) -> [Extent] {
        let whole = Extent(offset: .zero, length: ByteCount(striping.objectSize))
        var dirty: ExtentSet
        if let base {
            switch try await histories.history(of: number)?.change(since: base.id, to: snapshot?.id) ?? .none {
            case .none: dirty = ExtentSet()
            case .removed: dirty = ExtentSet([whole])
            case .written(let written, _, didExist: true): dirty = written
            case .written(_, _, didExist: false): dirty = try await allocated(of: number, in: whole)
            }
        } else {
            dirty = try await allocated(of: number, in: whole)
        }
        return dirty.extents.flatMap { striping.imageExtents(of: $0, in: number) }
    }

    private func allocated(of number: Int, in range: Extent) async throws(VolumeError) -> ExtentSet {
        do throws(VolumeError) {
            return try await blocking { () throws(VolumeError) in try self.objects.allocated(of: number, in: range) }
        } catch let error where error.kind == .unsupported {
            // An erasure-coded pool, of which the object that was asked at first didn't exist.
            return ExtentSet([range])
        }
    }

    /// librbd's own answer. It counts a parent's bytes, and knows the erasure-coded pools.
    private func diff(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        var dirty = try await iterateDiff(in: range, since: base)
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

    private func iterateDiff(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try await blocking { () throws(VolumeError) in
            let found = DiffFound(countsHoles: base != nil)
            let code = unsafe rbd_diff_iterate2(
                self.image.handle, base?.name, range.offset.bytes, range.length.bytes, 1, 0, collectDiff,
                Unmanaged.passUnretained(found).toOpaque())
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_diff_iterate2", on: self.image.title) }
            return ExtentSet(found.extents)
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
