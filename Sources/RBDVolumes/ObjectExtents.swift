internal import CCeph
internal import Synchronization
internal import Volumes

/// The extents of one state of an image, as its data objects tell them: of an image that holds all of its bytes there.
final class ObjectExtents: Sendable {
    /// Objects asked at once.
    private static let inFlight = 16

    let striping: Striping
    private let objects: DataObjects
    private let histories: DataObjects
    private let snapshot: Snapshot?
    /// Which objects exist; nothing if that can't be told without asking each.
    private let map: ObjectMap?
    /// The object map of an older state.
    private let loadMap: @Sendable (Snapshot) async throws(VolumeError) -> ObjectMap?
    /// Which objects may differ from an older state; nothing if the object maps don't tell.
    private let loadChanged: @Sendable (Snapshot) async throws(VolumeError) -> ObjectMap?
    private let changedMaps = Mutex<[UInt64: ObjectMap?]>([:])
    /// By snapshot; nothing for a snapshot without one.
    private let olderMaps = Mutex<[UInt64: ObjectMap?]>([:])

    /// - Parameters:
    ///   - objects: The image's, at any state.
    ///   - snapshot: The state to tell of; nothing for the head.
    init(
        of objects: DataObjects, striping: Striping, at snapshot: Snapshot?, map: ObjectMap?,
        loadMap: @escaping @Sendable (Snapshot) async throws(VolumeError) -> ObjectMap?,
        loadChanged: @escaping @Sendable (Snapshot) async throws(VolumeError) -> ObjectMap? = {
            (_) throws(VolumeError) in nil
        }
    ) throws(VolumeError) {
        self.objects = try objects.showing(snapshot?.id ?? CCEPH_HEAD)
        histories = try objects.showing(CCEPH_SNAP_DIR)
        self.striping = striping
        self.snapshot = snapshot
        self.map = map
        self.loadMap = loadMap
        self.loadChanged = loadChanged
    }

    /// Erasure-coded pools can't tell the extents of their objects: one object that exists is asked.
    func canTell() async throws(VolumeError) -> Bool {
        var sample = 0
        map?.existingRuns(with: nil) { if sample == 0 { sample = $0.lowerBound } }
        return try await objects.allocated(of: sample, upTo: ByteCount(striping.objectSize)) != nil
    }

    /// What is allocated in `range`, or what was written since `base`: holes that were made are told as well.
    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        let numbers = try await candidates(for: range, since: base)
        let found = try await concurrently(numbers, limit: Self.inFlight) { number throws(VolumeError) in
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
            if let changed = try await changedMap(base) {
                var found: [Int] = []
                changed.existingRuns(in: numbers, with: nil) { found += $0 }
                return found
            }
            older = try await olderMap(base)
            guard older != nil else { return Array(numbers) }
        }
        var found: [Int] = []
        map.existingRuns(in: numbers, with: older) { found += $0 }
        return found
    }

    /// Asked once.
    private func changedMap(_ base: Snapshot) async throws(VolumeError) -> ObjectMap? {
        if let known = changedMaps.withLock({ $0[base.id] }) { return known }
        let map = try await loadChanged(base)
        changedMaps.withLock { $0[base.id] = .some(map) }
        return map
    }

    /// Read once.
    private func olderMap(_ base: Snapshot) async throws(VolumeError) -> ObjectMap? {
        if let known = olderMaps.withLock({ $0[base.id] }) { return known }
        let map = try await loadMap(base)
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
            case .written(_, _, didExist: false):
                dirty = try await objects.allocated(of: number, upTo: whole.length) ?? ExtentSet([whole])
            }
        } else {
            dirty = try await objects.allocated(of: number, upTo: whole.length) ?? ExtentSet([whole])
        }
        return dirty.extents.flatMap { striping.imageExtents(of: $0, in: number) }
    }
}

extension DataObjects {
    /// Which bytes of an object the OSD allocated; empty if it doesn't exist.
    /// - Returns: Nothing if the pool can't tell, as it is erasure-coded.
    func allocated(of number: Int, upTo size: ByteCount) async throws(VolumeError) -> ExtentSet? {
        do throws(VolumeError) {
            let whole = Extent(offset: .zero, length: size)
            return try await blocking { () throws(VolumeError) in try self.allocated(of: number, in: whole) }
        } catch  where error.kind == .unsupported {
            return nil
        }
    }
}
