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
    /// Whether the maps also tell which objects were written for each state. Without a valid fast diff librbd marks no
    /// object as unchanged since a snapshot.
    let tellWritten: Bool

    init(_ header: ImageHeader, _ maps: [ObjectMap]?) {
        let flags = header.snapshots.map(\.flags) + [header.flags]
        let isDiffValid = header.features.contains(.fastDiff) && flags.allSatisfy { $0 & Features.fastDiffInvalid == 0 }
        tellWritten = maps != nil && (header.snapshots.isEmpty || isDiffValid)
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
        (maps ?? []).enumerated().map { state, map in
            let states: Set<ObjectMap.State> = [.exists, .pending]
            let last = lastSet(of: state)
            return ObjectCount(
                count: map.count(in: states),
                inLastSet: last.clamped(to: 0..<map.count).filter { states.contains(map[$0]) })
        }
    }

    /// The objects that may be cut by the end of the image.
    func lastSet(of state: Int) -> Range<Int> {
        let total = count(of: state)
        let width = Int(striping.count)
        return max(0, (total - 1) / width * width)..<total
    }

    /// As `rbd du` counts them: whole objects, but only the bytes that the image has.
    func bytes(of objects: ObjectCount, in state: Int) -> ByteCount {
        let whole = Extent(offset: .zero, length: ByteCount(striping.objectSize))
        let image = Extent(offset: .zero, length: sizes[state])
        return objects.inLastSet.reduce(ByteCount(UInt64(objects.count) * striping.objectSize)) { sum, number in
            let within = ExtentSet(striping.imageExtents(of: whole, in: number)).intersection(image).total
            return sum - (whole.length - within)
        }
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

/// How many objects, and which of those that the image's end may cut.
struct ObjectCount: Sendable, Equatable {
    var count = 0
    var inLastSet: [Int] = []

    mutating func add(_ number: Int, lastSet: Range<Int>) {
        count += 1
        if lastSet.contains(number) { inLastSet.append(number) }
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
    private let tellWritten: Bool

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
        tellWritten = states.tellWritten
    }

    func ask(_ number: Int) async throws(VolumeError) -> Answer {
        // One question is enough for an object without older versions.
        if snapshots.isEmpty, tellWritten {
            if let extents = try await head.allocated(of: number) {
                return Answer(usage: ObjectUsage(head: extents), isInHead: !extents.isEmpty)
            }
        }
        guard let history = try await histories.history(of: number)?.keeping(Set(snapshots)) else { return Answer() }
        var answer = Answer()
        answer.isInHead = history.versions.last?.id == ObjectHistory.Version.head
        if !tellWritten {
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
            let view = version.snapshots.lazy.compactMap { views[$0] }.first ?? head
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
