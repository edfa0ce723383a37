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
        let isDiffValid =
            header.features.contains(.fastDiff) && flags.allSatisfy { $0 & UInt64(RBD_FLAG_FAST_DIFF_INVALID) == 0 }
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

    /// Asking each of more objects than this takes hours.
    private static let mostUnknown = 1 << 26

    /// The objects that any state may have.
    func candidates() throws(VolumeError) -> ObjectRuns {
        var runs: [Range<Int>] = []
        if let maps {
            maps.dropFirst().reduce(maps[0]) { $0.union($1) }.existingRuns(with: nil) { runs.append($0) }
        } else {
            let most = sizes.indices.map { count(of: $0) }.max() ?? 0
            guard most <= Self.mostUnknown else {
                throw VolumeError(
                    .unsupported, "object map", on: "image",
                    reason: "it has none to be believed, and \(most) objects are too many to ask each")
            }
            runs.append(0..<most)
        }
        return ObjectRuns(runs: runs)
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
    func missing(unless present: ObjectMap) -> ExtentSet {
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
        var last = 0
        (maps?.last ?? present).existingRuns(with: nil) { run in
            add(last..<run.lowerBound)
            last = run.upperBound
        }
        if last < total { add(last..<total) }
        return ExtentSet(extents)
    }
}

/// Numbers of objects, as runs.
struct ObjectRuns: Sendable {
    let runs: [Range<Int>]

    /// So many numbers at a time, short runs together.
    func batches(of most: Int) -> some Sequence<[Int]> {
        sequence(state: (run: 0, number: runs.first?.lowerBound ?? 0)) { state in
            var batch: [Int] = []
            while state.run < runs.count, batch.count < most {
                let end = min(runs[state.run].upperBound, state.number + most - batch.count)
                batch += state.number..<end
                state.number = end
                if end == runs[state.run].upperBound {
                    state.run += 1
                    if state.run < runs.count { state.number = runs[state.run].lowerBound }
                }
            }
            return batch.isEmpty ? nil : batch
        }
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
    private let objectSize: ByteCount
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
        objectSize = ByteCount(states.striping.objectSize)
        self.isExact = isExact
        tellWritten = states.tellWritten
    }

    func ask(_ number: Int) async throws(VolumeError) -> Answer {
        // One question is enough for an object without older versions.
        if snapshots.isEmpty, tellWritten {
            if let extents = try await head.allocated(of: number, upTo: objectSize) {
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
            if let told = try await view.allocated(of: number, upTo: objectSize) {
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
