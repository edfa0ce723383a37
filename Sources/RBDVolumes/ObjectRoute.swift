internal import CCeph
internal import Synchronization
internal import Volumes

/// From image to image, object by object: one read and one write for each, or a copy from OSD to OSD.
///
/// Serves where both images lie on their objects in the same way and no parent shines through the source. The
/// target's objects are written past librbd, so this route keeps the target's object map right itself.
struct ObjectRoute: Route {
    let source: RBDSource
    let target: RBDTarget
    let objectSize: ByteCount
    let takesStillHeads = true

    func begin(_ step: Step, resumed: ByteOffset?) async throws(VolumeError) -> any StepMover {
        try await ObjectMover(self, step, resumed: resumed)
    }
}

final class ObjectMover: StepMover {
    let pieceSize: ByteCount
    var grain: ByteCount { pieceSize }
    let space: ByteCount
    let means: ExtentMeans = .objectExtents
    private let base: Snapshot?
    private let goal: Snapshot?
    private let sourceObjects: DataObjects
    private let histories: DataObjects
    private let targetObjects: DataObjects
    private let targetHistories: DataObjects
    private let marksClean: Bool
    private let context: SnapshotContext
    private let sourceMap: ObjectMap?
    private let baseMap: ObjectMap?
    /// The objects that may differ from the base; nothing if the maps don't tell.
    private let changedMap: ObjectMap?
    /// The target may hold anything that came after the base.
    private let isMixed: Bool
    private let objectCount: Int
    private let volumeSize: ByteCount
    /// Objects end where the volume does, where a byte's place in its object is its place in the volume.
    private let isPlain: Bool
    private let canCopy: Bool
    /// Whether an earlier run may have written any of this step's objects.
    private let isRepeated: Bool
    private let store: ObjectMapStore?
    /// What the target's objects were when the step began.
    private let before: ObjectMap?
    private let after: Mutex<ObjectMap?>
    /// As it stands in the pool.
    private let saved: Mutex<ObjectMap?>
    private let expectation = Mutex(FullObjects())
    /// Objects asked at once what changed of them.
    private static let asked = 32
    /// A longer one may be mostly a hole.
    private static let largestExtent = ByteCount.kibibytes(64)
    private let changes = Mutex(KnownChanges())

    init(_ route: ObjectRoute, _ step: Step, resumed: ByteOffset?) async throws(VolumeError) {
        base = step.base
        goal = step.goal.snapshot
        volumeSize = step.size
        pieceSize = route.objectSize
        isMixed = step.isMixed
        isRepeated = resumed != nil || step.isMixed
        let view = try await route.source.view(of: step)
        objectCount = view.objectCount
        space = ByteCount(UInt64(objectCount) * pieceSize.bytes)
        isPlain = view.isPlain
        sourceObjects = try view.objects.showing(step.goal.snapshot?.id ?? CCEPH_HEAD)
        histories = try view.objects.showing(CCEPH_SNAP_DIR)
        sourceMap = view.map
        baseMap = view.baseMap
        changedMap = view.changedMap

        let destination = try await route.target.objects()
        targetObjects = destination.objects
        targetHistories = try destination.objects.showing(CCEPH_SNAP_DIR)
        marksClean = destination.marksClean
        context = destination.context
        store = destination.maps
        canCopy = targetObjects.pool.cluster.fsid == sourceObjects.pool.cluster.fsid
        before = try await store?.load(nil, objects: objectCount)
        after = Mutex(before)
        saved = Mutex(before)
        guard store == nil || before != nil else {
            throw VolumeError(
                .damaged, "rados_read", on: route.target.address,
                reason: "the unfinished target's object map is damaged",
                advice: "Give the move up ('godwit abort'), and begin anew.")
        }
        try await announce(from: resumed ?? .zero)
    }

    /// Marks every object that may come to be, before any does: whoever removes an unfinished target then finds all of
    /// its objects.
    ///
    /// - Parameter start: What became of the objects before is in the map already.
    private func announce(from start: ByteOffset) async throws(VolumeError) {
        guard let store, var map = before else { return }
        let first = Int(start.rounded(downTo: pieceSize).bytes / pieceSize.bytes)
        forEachCandidate { numbers in
            for number in numbers where number >= first && map[number] == .absent { map[number] = .exists }
        }
        after.withLock { $0 = map }
        try await save(map, to: store)
    }

    private func forEachCandidate(_ found: (Range<Int>) -> Void) {
        let all = 0..<objectCount
        func hand(_ map: ObjectMap, _ other: ObjectMap?) {
            map.existingRuns(with: other) { numbers in
                let within = numbers.clamped(to: all)
                if !within.isEmpty { found(within) }
            }
        }
        if isMixed {
            // What the target has may be of a state that is no more.
            guard let sourceMap, let before else { return found(all) }
            return hand(baseMap.map { sourceMap.union($0) } ?? sourceMap, before)
        }
        if let changedMap { return hand(changedMap, nil) }
        // The base's map must be known as well: an object that is no more has to go at the target, too.
        guard let sourceMap, base == nil || baseMap != nil else { return found(all) }
        hand(sourceMap, baseMap)
    }

    func findExtents(_ found: @escaping @Sendable (Extent) -> Void) async throws(VolumeError) {
        var candidates: [Range<Int>] = []
        forEachCandidate { candidates.append($0) }
        guard let base, !isMixed else {
            for numbers in candidates { found(extent(of: numbers)) }
            return
        }
        // What is exactly dirty is asked of each object once, and kept until the object is moved.
        _ = try await concurrently(candidates.joined(), limit: Self.asked) { number throws(VolumeError) in
            let change = try await self.change(of: number, since: base)
            let dirty = try await self.dirty(change, in: number)
            guard !dirty.isEmpty else { return try await self.note(number, .untouched) }
            self.changes.withLock { $0.note(change, dirty, of: number) }
            let start = self.extent(of: number..<number + 1).offset
            for part in dirty.extents { found(Extent(offset: start + (part.offset - .zero), length: part.length)) }
        }
    }

    var dirtied: ByteCount? { base == nil || isMixed ? nil : changes.withLock { $0.total } }

    /// What of an object may differ from the base, within the volume: without holes where that is worth a question, but
    /// never nothing of an object that changed.
    private func dirty(_ change: ObjectHistory.Change, in number: Int) async throws(VolumeError) -> ExtentSet {
        let whole = Extent(offset: .zero, length: length(of: number))
        guard case .written(let written, _, _) = change else {
            return change == .removed ? ExtentSet([whole]) : ExtentSet()
        }
        let dirty = written.intersection(whole)
        // An object that grew is told as written from its former end to its new one, however little of that was.
        guard dirty.extents.contains(where: { $0.length > Self.largestExtent }),
            let allocated = try await sourceObjects.allocated(of: number, upTo: whole.length)
        else { return dirty }
        let data = dirty.intersection(allocated)
        return data.isEmpty
            ? ExtentSet(dirty.extents.prefix(1).map { $0.intersection(Extent(offset: $0.offset, length: zeroBlock)) })
            : data
    }

    private func extent(of numbers: Range<Int>) -> Extent {
        Extent(
            from: ByteOffset(UInt64(numbers.lowerBound) * pieceSize.bytes),
            to: ByteOffset(UInt64(numbers.upperBound) * pieceSize.bytes))
    }

    private func change(of number: Int, since base: Snapshot) async throws(VolumeError) -> ObjectHistory.Change {
        try await histories.history(of: number)?.change(since: base.id, to: goal?.id) ?? .none
    }

    func move(_ piece: Extent) async throws(VolumeError) -> Moved {
        let number = Int(piece.offset.bytes / pieceSize.bytes)
        guard let base else { return try await isMixed ? replace(number) : moveWhole(number) }
        let known = changes.withLock { $0.take(number) }
        let change = if let known { known } else { try await change(of: number, since: base) }
        switch change {
        case .none where isMixed && mayExist(number):
            // It may have come and gone after the base.
            let exists = try await histories.history(of: number)?.exists(at: goal?.id) ?? false
            return try await exists ? untouched(number) : remove(number)
        case .none:
            // Nothing to do; but if this was announced, and never made, the map must say so.
            return try await untouched(number)
        case .removed:
            return try await remove(number)
        case .written(_, _, didExist: false) where !mayExist(number):
            return try await moveWhole(number)
        case .written(_, _, didExist: false) where isMixed:
            return try await replace(number)
        case .written(let dirty, let size, _):
            return try await moveParts(number, dirty, size: size)
        }
    }

    private func untouched(_ number: Int) async throws(VolumeError) -> Moved {
        try await note(number, .untouched)
        return Moved()
    }

    private func remove(_ number: Int) async throws(VolumeError) -> Moved {
        if mayExist(number) { try await targetObjects.apply(.removal(), to: number, under: context) }
        try await note(number, .removed)
        var moved = Moved()
        moved.zeroed = pieceSize
        return moved
    }

    /// Makes an object what the goal has, whatever the target has there.
    private func replace(_ number: Int) async throws(VolumeError) -> Moved {
        guard mayExist(number) else { return try await moveWhole(number) }
        let whole = Extent(offset: .zero, length: length(of: number))
        guard let read = try await sourceObjects.read(number, ExtentSet([whole])) else {
            return try await remove(number)
        }
        let data = read.nonzero()
        guard let last = data.last else { return try await remove(number) }
        let written = ExtentSet(data.map { $0.extent })
        let zeros = ExtentSet([Extent(from: .zero, to: last.extent.end)]).subtracting(written)
        try await targetObjects.apply(
            .parts(truncate: last.extent.end - .zero, zeros: zeros, data: data, of: read), to: number, under: context)
        try await note(number, .written)
        var moved = Moved()
        moved.found = read.total
        moved.sent = written.total
        moved.zeroed = zeros.total
        return moved
    }

    /// An object that the target doesn't have yet.
    private func moveWhole(_ number: Int) async throws(VolumeError) -> Moved {
        let length = length(of: number)
        var moved = Moved()
        if canCopy, length == pieceSize, expectation.withLock({ $0.isLikely }) {
            let digest = try await sourceObjects.digest(
                of: number, in: Extent(offset: .zero, length: length), chunk: zeroBlock)
            if digest?.isFull(length, chunk: zeroBlock) == true {
                let copy = ObjectChange.copy(of: sourceObjects.name(of: number), from: sourceObjects.pool)
                try await targetObjects.apply(copy, to: number, under: context)
                try await note(number, .written)
                moved.found = length
                moved.copied = length
                return moved
            }
            expectation.withLock { $0.saw(full: false) }
        }
        guard let read = try await sourceObjects.read(number, ExtentSet([Extent(offset: .zero, length: length)])) else {
            try await note(number, .untouched)
            return moved
        }
        let data = read.nonzero()
        moved.found = read.total
        moved.sent = data.reduce(.zero) { $0 + $1.extent.length }
        expectation.withLock { $0.saw(full: moved.sent == pieceSize) }
        if !data.isEmpty {
            try await targetObjects.apply(
                .parts(truncate: nil, zeros: ExtentSet(), data: data, of: read), to: number, under: context)
        }
        try await note(number, data.isEmpty ? .untouched : .written)
        return moved
    }

    /// An object that the target may have: only what is dirty.
    private func moveParts(_ number: Int, _ dirty: ExtentSet, size: ByteCount) async throws(VolumeError) -> Moved {
        let whole = Extent(offset: .zero, length: length(of: number))
        let dirty = dirty.intersection(whole)
        let live = dirty.intersection(Extent(offset: .zero, length: size))
        let read = live.isEmpty ? nil : try await sourceObjects.read(number, live)
        let data = read?.nonzero() ?? []
        let written = ExtentSet(data.map { $0.extent })
        let zeros = dirty.subtracting(written)
        var moved = Moved()
        moved.found = read?.total ?? .zero
        moved.sent = written.total
        if dirty.isEmpty {
            // All that changed lies past the volume's end: the target was cut there when it got its size.
            try await note(number, .untouched)
            return moved
        }
        if mayExist(number) {
            moved.zeroed = zeros.total
            // An object that ends earlier than it did: cut it, rather than leave a tail of zeros.
            let cut = isMixed || dirty.end > ByteOffset(size.bytes) ? size : nil
            let rest = cut.map { zeros.intersection(Extent(offset: .zero, length: $0)) } ?? zeros
            try await targetObjects.apply(
                .parts(truncate: cut, zeros: rest, data: data, of: read), to: number, under: context)
        } else if !data.isEmpty {
            try await targetObjects.apply(
                .parts(truncate: nil, zeros: ExtentSet(), data: data, of: read), to: number, under: context)
        }
        try await note(number, data.isEmpty ? .emptied : .written)
        return moved
    }

    /// The bytes of an object that are within the volume.
    private func length(of number: Int) -> ByteCount {
        guard isPlain else { return pieceSize }
        return min(pieceSize, ByteCount(volumeSize.bytes - UInt64(number) * pieceSize.bytes))
    }

    private func mayExist(_ number: Int) -> Bool { before?.exists(number) ?? (base != nil || isRepeated) }

    private enum Outcome { case untouched, written, emptied, removed }

    /// Notes in the target's object map what became of an object.
    private func note(_ number: Int, _ outcome: Outcome) async throws(VolumeError) {
        guard let before else { return }
        let state: ObjectMap.State
        switch outcome {
        case .written: state = .exists
        case .removed: state = .absent
        case .untouched where !isRepeated: state = before[number]
        case .untouched, .emptied:
            // The OSD drops an operation that changes nothing, and an earlier run announced objects that it may or may
            // not have made: only the object itself knows.
            state = before.exists(number) ? try await observedState(of: number) : .absent
        }
        after.withLock { $0?[number] = state }
    }

    /// What librbd would find (librbd/operation/ObjectMapIterate.cc): clean is what no write touched since the newest
    /// snapshot.
    private func observedState(of number: Int) async throws(VolumeError) -> ObjectMap.State {
        guard let history = try await targetHistories.history(of: number),
            history.versions.contains(where: { $0.id == ObjectHistory.Version.head })
        else { return .absent }
        return !marksClean || history.newestSnapshot >= context.newestFirst.first ?? 0 ? .exists : .clean
    }

    func settle(upTo offset: ByteOffset) async throws(VolumeError) { try await saveMap() }
    func finish() async throws(VolumeError) { try await saveMap() }
    func close() async {}

    private func saveMap() async throws(VolumeError) {
        guard let store, let map = after.withLock({ $0 }) else { return }
        try await save(map, to: store)
    }

    /// Where nothing changed, as in most rounds that follow a writer, nothing is written.
    private func save(_ map: ObjectMap, to store: ObjectMapStore) async throws(VolumeError) {
        guard saved.withLock({ $0 != map }) else { return }
        try await store.save(map)
        saved.withLock { $0 = map }
    }
}

extension RBDSource {
    /// What a step needs to know of the source's objects.
    struct StepView: Sendable {
        let objects: DataObjects
        let objectCount: Int
        let isPlain: Bool
        /// Which objects exist in the step's goal; nothing if that can't be told without asking each.
        let map: ObjectMap?
        let baseMap: ObjectMap?
        let changedMap: ObjectMap?
    }

    fileprivate func view(of step: Step) async throws(VolumeError) -> StepView {
        let header = try await neededHeader()
        let goal = step.goal.snapshot
        let map = try await objectMap(of: goal?.id, header)
        var baseMap: ObjectMap?
        var changedMap: ObjectMap?
        if let base = step.base {
            baseMap = try await objectMap(of: base.id, header)
            changedMap = try await pool.changedObjects(since: base.id, to: goal?.id, header, known: (baseMap, map))
        }
        return StepView(
            objects: try pool.dataObjects(of: header), objectCount: header.striping.objectCount(of: step.size),
            isPlain: header.layout.isPlain, map: map, baseMap: baseMap,
            changedMap: changedMap)
    }
}
