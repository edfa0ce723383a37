internal import CCeph
internal import Volumes

/// The states of an image, its snapshots oldest first and then its head, and which objects each has.
struct States: Sendable {
    let striping: Striping
    /// Of each state.
    let sizes: [ByteCount]
    /// The snapshots' ids.
    let snapshots: [UInt64]
    /// One for each state; nothing where one of them can't be believed.
    private let maps: [ObjectMap]?

    init(_ header: ImageHeader, _ maps: [ObjectMap]?) {
        striping = header.striping
        sizes = header.snapshots.map(\.size) + [header.size]
        snapshots = header.snapshots.map(\.id)
        self.maps = maps
    }

    /// Whether object maps tell which objects exist.
    var areKnown: Bool { maps != nil }

    /// How many objects a state may have.
    func count(of state: Int) -> Int { striping.objectCount(of: sizes[state]) }

    /// The objects that any state may have.
    func candidates(inBatchesOf most: Int) -> [[Int]] {
        var batches: [[Int]] = [[]]
        func add(_ numbers: Range<Int>) {
            for number in numbers {
                if batches[batches.count - 1].count == most { batches.append([]) }
                batches[batches.count - 1].append(number)
            }
        }
        guard let maps else {
            add(0..<(sizes.indices.map { count(of: $0) }.max() ?? 0))
            return batches
        }
        maps.dropFirst().reduce(maps[0]) { $0.union($1) }.existingRuns(with: nil, add)
        return batches
    }

    /// How many objects were written for each state, as the object maps say.
    func written() -> [ObjectCount] {
        (maps ?? []).map { map in
            let isLastWritten = map.count > 0 && [.exists, .pending].contains(map[map.count - 1])
            return ObjectCount(count: map.count(in: [.exists, .pending]), hasLast: isLastWritten)
        }
    }

    /// As `rbd du` counts them: whole objects, but no more than the image has bytes.
    func bytes(of objects: ObjectCount, size: ByteCount) -> ByteCount {
        let whole = ByteCount(UInt64(objects.count) * striping.objectSize)
        let past = ByteCount(UInt64(striping.objectCount(of: size)) * striping.objectSize) - size
        // Of striped images any object of the last set may be cut.
        return objects.hasLast && striping.count == 1 ? whole - past : whole
    }

    /// Where the head has no object of its own.
    /// - Parameter present: Its objects, where no map tells.
    func missing(unless present: Set<Int>) -> ExtentSet {
        let total = count(of: sizes.count - 1)
        var extents: [Extent] = []
        let whole = Extent(offset: .zero, length: ByteCount(striping.objectSize))
        func add(_ numbers: Range<Int>) {
            guard striping.count > 1 else {
                guard !numbers.isEmpty else { return }
                extents.append(
                    Extent(
                        from: ByteOffset(UInt64(numbers.lowerBound) * striping.objectSize),
                        to: ByteOffset(UInt64(numbers.upperBound) * striping.objectSize)))
                return
            }
            for number in numbers { extents += striping.imageExtents(of: whole, in: number) }
        }
        if let head = maps?.last {
            var last = 0
            head.existingRuns(with: nil) { run in
                add(last..<run.lowerBound)
                last = run.upperBound
            }
            if last < total { add(last..<total) }
        } else {
            for number in 0..<total where !present.contains(number) { add(number..<(number + 1)) }
        }
        return ExtentSet(extents)
    }
}

/// How many objects, and whether the last that an image may have is among them.
struct ObjectCount: Sendable, Equatable {
    var count = 0
    var hasLast = false

    mutating func add(_ number: Int, lastOf total: Int) {
        count += 1
        if number == total - 1 { hasLast = true }
    }
}

/// Asks objects for what they hold.
struct ObjectReader: Sendable {
    private let histories: DataObjects
    /// The head's view, and each snapshot's.
    private let views: [UInt64: DataObjects]
    private let head: DataObjects
    private let snapshots: [UInt64]
    private let isExact: Bool
    private let areKnown: Bool

    struct Answer: Sendable {
        var usage = ObjectUsage()
        var isBySize = false
        var isInHead = false
        /// States that it was written for.
        var writtenStates: [Int] = []
    }

    init(_ objects: DataObjects, _ states: States, isExact: Bool) throws(VolumeError) {
        head = objects
        histories = try objects.showing(CCEPH_SNAP_DIR)
        var views: [UInt64: DataObjects] = [:]
        for snapshot in states.snapshots { views[snapshot] = try objects.showing(snapshot) }
        self.views = views
        snapshots = states.snapshots
        self.isExact = isExact
        areKnown = states.areKnown
    }

    func ask(_ number: Int) async throws(VolumeError) -> Answer {
        // One question is enough for an object without older versions.
        if snapshots.isEmpty, areKnown {
            if let extents = try await head.allocated(of: number) {
                return Answer(usage: ObjectUsage(head: extents.total), isInHead: !extents.isEmpty)
            }
        }
        guard let history = try await histories.history(of: number) else { return Answer() }
        var answer = Answer()
        answer.isInHead = history.versions.last?.id == ObjectHistory.Version.head
        if !areKnown {
            let bases = [nil] + snapshots.map { $0 as UInt64? }
            let goals = snapshots.map { $0 as UInt64? } + [nil]
            for (state, (base, goal)) in zip(bases, goals).enumerated() {
                if case .written = history.change(since: base, to: goal) { answer.writtenStates.append(state) }
            }
        }
        guard isExact else { return answer }
        var extents: [ExtentSet] = []
        for version in history.versions {
            let whole = ExtentSet([Extent(offset: .zero, length: version.size)])
            let isHead = version.id == ObjectHistory.Version.head
            // What no snapshot shows any more is being given back.
            let view = isHead ? head : version.snapshots.lazy.compactMap { views[$0] }.first
            guard let view, !whole.subtracting(version.shared).isEmpty || isHead else {
                extents.append(ExtentSet())
                continue
            }
            if let told = try await view.allocated(of: number) {
                extents.append(told)
            } else {
                extents.append(whole)
                answer.isBySize = true
            }
        }
        answer.usage = ObjectUsage(history, allocated: extents)
        return answer
    }
}
