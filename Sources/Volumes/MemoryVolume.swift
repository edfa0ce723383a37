internal import Synchronization

/// A volume that is nowhere but in memory: what simulations and tests move, from and to.
///
/// Several of them can stand at one `Place`, as several processes at one image; only the one that owns the unfinished
/// target writes to it.
package final class MemoryVolume: SourceVolume, TargetVolume {
    /// Called with an operation's name, as the protocols name it, before it takes effect: what it throws fails the
    /// operation. Those that change something call it once more, as "commit, done", when they did: what it throws then
    /// is an answer that was lost.
    package typealias Fault =
        @Sendable (_ operation: String, _ extent: Extent?) throws(VolumeError) -> Void

    package let address: String
    package let place: Place
    private let fault: Fault
    private let holder: UInt64
    private let first = Mutex<(identity: UInt64, writes: UInt64)?>(nil)

    package init(
        at place: Place = Place(), address: String = "memory:volume",
        fault: @escaping Fault = { (_, _) throws(VolumeError) in }
    ) {
        self.place = place
        self.address = address
        self.fault = fault
        holder = place.newNumber()
    }

    deinit { place.release(holder, hasDied: true) }

    /// Looks at what is there, or changes it, in one step.
    private func with<Value: Sendable>(
        _ operation: String, _ extent: Extent? = nil, changes: Bool = true,
        _ body: (inout Contents) throws(VolumeError) -> sending Value
    ) throws(VolumeError) -> Value {
        try fault(operation, extent)
        let value = try place.contents.withLock { contents throws(VolumeError) in try body(&contents) }
        if changes { try fault(operation + ", done", extent) }
        return value
    }

    private func missing(_ operation: String) -> VolumeError {
        VolumeError(.missing, operation, on: address, reason: "nothing is there")
    }

    // MARK: Volume

    package func describe() async throws(VolumeError) -> VolumeDescription {
        try with("describe", changes: false) { contents throws(VolumeError) in
            guard let body = contents.present else { throw self.missing("describe") }
            self.see(body)
            return VolumeDescription(
                identity: "\(self.address):\(body.identity)" + (contents.holdsSnapshots ? "" : ":\(body.writes)"),
                size: body.head.size,
                snapshots: body.kept.map(\.snapshot).filter { !$0.isTransient }, layout: body.layout,
                metadata: body.metadata)
        }
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        let (size, means, unit) = try with("open", changes: false) {
            contents throws(VolumeError) -> (ByteCount, ExtentMeans, ByteCount) in
            guard let body = contents.present else { throw self.missing("open") }
            self.see(body)
            let state = try body.state(revision, address: self.address)
            return (state.size, contents.means, contents.extentUnit)
        }
        return MemoryReader(volume: self, revision: revision, size: size, means: means, extentUnit: unit)
    }

    fileprivate func extents(
        of revision: Revision, in range: Extent, since base: Snapshot?
    ) throws(VolumeError) -> ExtentSet {
        try with("extents", range, changes: false) { contents throws(VolumeError) in
            guard let body = contents.present else { throw self.missing("extents") }
            let state = try body.state(revision, address: self.address)
            let range = range.intersection(Extent(offset: .zero, length: state.size))
            guard contents.means != .everything else { return ExtentSet([range]) }
            guard let base else { return state.allocated(in: range) }
            return state.differing(from: try body.state(.snapshot(base), address: self.address), in: range)
        }
    }

    fileprivate func read(
        _ revision: Revision, into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset
    ) throws(VolumeError) {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))
        try with("read", extent, changes: false) { contents throws(VolumeError) in
            guard let body = contents.present else { throw self.missing("read") }
            let state = try body.state(revision, address: self.address)
            try state.checkEnd(of: extent, "read", self.address)
            unsafe state.read(into: buffer, at: offset)
        }
    }

    // MARK: SourceVolume

    private func see(_ body: Body) {
        first.withLock { if $0 == nil { $0 = (body.identity, body.writes) } }
    }

    package func obstacles() async throws(VolumeError) -> [Obstacle] {
        try with("obstacles", changes: false) { contents throws(VolumeError) in
            guard let body = contents.finished else { throw self.missing("obstacles") }
            self.see(body)
            return []
        }
    }

    package func freeze(as name: String) async throws(VolumeError) -> Snapshot? {
        try with("freeze") { contents throws(VolumeError) in
            guard contents.holdsSnapshots else { return nil }
            guard contents.finished != nil else { throw self.missing("freeze") }
            return contents.finished?.keep(as: name, isProtected: false)
        }
    }

    package func thaw(_ name: String) async throws(VolumeError) {
        try with("thaw") { contents throws(VolumeError) in
            contents.finished?.kept.removeAll { $0.snapshot.name == name }
        }
    }

    package func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        try with("isUnchanged", changes: false) { contents throws(VolumeError) in
            guard let body = contents.finished else { throw self.missing("isUnchanged") }
            self.see(body)
            guard let snapshot else { return self.first.withLock { $0! == (body.identity, body.writes) } }
            guard let kept = body.kept.first(where: { $0.snapshot == snapshot }) else { return false }
            return kept.writes == body.writes
        }
    }

    // MARK: TargetVolume

    package func state() async throws(VolumeError) -> TargetState {
        try with("state", changes: false) { contents throws(VolumeError) in contents.targetState }
    }

    package func obstacles(to source: VolumeDescription, room: ByteCount) async throws(VolumeError) -> [Obstacle] {
        try with("obstacles", changes: false) { contents throws(VolumeError) in
            var found: [Obstacle] = []
            if contents.targetState == .foreign {
                found.append(Obstacle(.exists, "\(self.address) exists", remedy: "Choose another name."))
            }
            if !source.snapshots.isEmpty, !contents.holdsSnapshots {
                found.append(
                    Obstacle(
                        .unsupported, "\(self.address) can't hold snapshots",
                        remedy: "--snapshots none moves the head alone."))
            }
            return found
        }
    }

    package func make(as source: VolumeDescription, record: String) async throws(VolumeError) {
        try with("make") { contents throws(VolumeError) in
            guard contents.targetState == .absent else {
                throw VolumeError(.exists, "make", on: self.address, reason: "something is there already")
            }
            var body = contents.newBody(State(size: source.snapshots.first?.size ?? source.size))
            body.layout = source.layout
            contents.unfinished = body
            contents.record = record
        }
    }

    @discardableResult
    package func own() async throws(VolumeError) -> Bool {
        try with("own") { contents throws(VolumeError) in
            guard contents.unfinished != nil else { throw self.missing("own") }
            guard contents.owner == nil || contents.owner == self.holder else {
                throw VolumeError(.busy, "own", on: self.address, reason: "another is moving into it")
            }
            let hasFenced = contents.ownerHasDied
            contents.owner = self.holder
            contents.ownerHasDied = false
            return hasFenced
        }
    }

    package func save(record: String) async throws(VolumeError) {
        try with("save") { contents throws(VolumeError) in
            switch contents.targetState {
            case .unfinished, .committed: contents.record = record
            case .absent: throw self.missing("save")
            case .foreign: throw VolumeError(.exists, "save", on: self.address, reason: "it isn't this move's")
            }
        }
    }

    /// Changes the unfinished target, which must be this value's own.
    private func withOwn<Value: Sendable>(
        _ operation: String, _ extent: Extent? = nil, changes: Bool = true,
        _ change: (inout Body) throws(VolumeError) -> sending Value
    ) throws(VolumeError) -> Value {
        try with(operation, extent, changes: changes) { contents throws(VolumeError) in
            guard contents.owner == self.holder, var body = contents.unfinished.take() else {
                throw VolumeError(.failed, operation, on: self.address, reason: "the target isn't this process's")
            }
            // Taken out meanwhile, so that a change copies no block.
            do throws(VolumeError) {
                let value = try change(&body)
                contents.unfinished = body
                return value
            } catch {
                contents.unfinished = body
                throw error
            }
        }
    }

    package func kept() async throws(VolumeError) -> [Snapshot] {
        try withOwn("kept", changes: false) { body throws(VolumeError) in body.kept.map(\.snapshot) }
    }

    package func resize(to size: ByteCount) async throws(VolumeError) {
        try withOwn("resize") { body throws(VolumeError) in body.resize(to: size) }
    }

    package func keep(_ snapshot: Snapshot) async throws(VolumeError) {
        guard place.contents.withLock({ $0.holdsSnapshots }) else {
            throw VolumeError(.unsupported, "keep", on: address, reason: "it can't hold snapshots")
        }
        try withOwn("keep") { body throws(VolumeError) in
            _ = body.keep(as: snapshot.name, isProtected: snapshot.isProtected)
        }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        try withOwn("write", extent) { body throws(VolumeError) in
            try body.head.checkEnd(of: extent, "write", self.address)
            unsafe body.write(bytes, at: offset)
        }
    }

    package func zero(_ extent: Extent) async throws(VolumeError) {
        try withOwn("zero", extent) { body throws(VolumeError) in
            try body.head.checkEnd(of: extent, "zero", self.address)
            body.zero(extent)
        }
    }

    package func flush() async throws(VolumeError) {
        try withOwn("flush") { body throws(VolumeError) in body.settle() }
    }

    package func commit(as source: VolumeDescription) async throws(VolumeError) {
        try with("commit") { contents throws(VolumeError) in
            if case .committed = contents.targetState { return }
            guard contents.owner == self.holder, var body = contents.unfinished else {
                throw VolumeError(.failed, "commit", on: self.address, reason: "the target isn't this process's")
            }
            guard contents.finished == nil else {
                throw VolumeError(
                    .exists, "commit", on: self.address, reason: "somebody made one of that name meanwhile")
            }
            body.settle()
            body.metadata = source.metadata
            contents.finished = body
            contents.unfinished = nil
            contents.owner = nil
        }
    }

    package func forget() async throws(VolumeError) {
        try with("forget") { contents throws(VolumeError) in
            guard contents.unfinished == nil else {
                throw VolumeError(.failed, "forget", on: self.address, reason: "the move isn't over: it is unfinished")
            }
            contents.record = nil
        }
    }

    package func discard() async throws(VolumeError) {
        try with("discard") { contents throws(VolumeError) in
            if case .committed = contents.targetState {
                throw VolumeError(.exists, "discard", on: self.address, reason: "it is finished")
            }
            guard contents.owner == nil || contents.owner == self.holder else {
                throw VolumeError(.busy, "discard", on: self.address, reason: "another is moving into it")
            }
            contents.unfinished = nil
            contents.record = nil
            contents.owner = nil
            contents.ownerHasDied = false
        }
    }

    package func close() async { place.release(holder, hasDied: false) }

    package func route(from source: any Volume) async throws(VolumeError) -> (any Route)? { nil }
}

/// One state of a volume in memory; the head moves on under it.
private struct MemoryReader: VolumeReader {
    let volume: MemoryVolume
    let revision: Revision
    let size: ByteCount
    let means: ExtentMeans
    let extentUnit: ByteCount

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try volume.extents(of: revision, in: range, since: base)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        unsafe try volume.read(revision, into: buffer, at: offset)
    }

    func close() async {}
}

// MARK: The place

extension MemoryVolume {
    /// What lies at an address: it outlives whoever works on it. Its methods are those of the volume's own user, the
    /// guest or the operator.
    package final class Place: Sendable {
        fileprivate let contents: Mutex<Contents>

        /// Nothing is there yet.
        /// - Parameter means: With `.everything`, all that is asked for counts as data and as changed.
        package init(
            holdsSnapshots: Bool = true, means: ExtentMeans = .objectExtents, extentUnit: ByteCount = .mebibytes(4)
        ) {
            contents = Mutex(Contents(holdsSnapshots: holdsSnapshots, means: means, extentUnit: extentUnit))
        }

        fileprivate func newNumber() -> UInt64 { contents.withLock { $0.newNumber() } }

        fileprivate func release(_ holder: UInt64, hasDied: Bool) {
            contents.withLock { contents in
                guard contents.owner == holder else { return }
                contents.owner = nil
                contents.ownerHasDied = hasDied
            }
        }

        /// Makes a finished volume of zeros that Godwit did not begin.
        package func make(size: ByteCount, layout: Layout? = nil, metadata: [String: String] = [:]) {
            contents.withLock { contents in
                precondition(contents.finished == nil, "a volume is there already")
                var body = contents.newBody(State(size: size))
                body.layout = layout
                body.metadata = metadata
                contents.finished = body
            }
        }

        /// Removes the finished volume.
        package func remove() { contents.withLock { $0.finished = nil } }

        /// What is there: "finished", "unfinished", "record".
        package var names: [String] {
            contents.withLock { contents in
                [
                    contents.finished.map { _ in "finished" }, contents.unfinished.map { _ in "unfinished" },
                    contents.record.map { _ in "record" },
                ].compactMap(\.self)
            }
        }

        private func change<Value: Sendable>(_ change: (inout Body) -> sending Value) -> Value {
            contents.withLock { contents in
                guard var body = contents.finished.take() else { preconditionFailure("no volume is there") }
                let value = change(&body)
                contents.finished = body
                return value
            }
        }

        /// The guest writes.
        package func write(_ bytes: [UInt8], at offset: ByteOffset) {
            change { body in
                precondition(offset.bytes + UInt64(bytes.count) <= body.head.size.bytes, "past the end")
                unsafe bytes.withUnsafeBytes { unsafe body.write($0, at: offset) }
            }
        }

        /// The guest discards.
        package func zero(_ extent: Extent) { change { $0.zero(extent) } }

        package func resize(to size: ByteCount) { change { $0.resize(to: size) } }

        @discardableResult
        package func takeSnapshot(_ name: String, isProtected: Bool = false) -> Snapshot {
            change { $0.keep(as: name, isProtected: isProtected) }
        }

        package func removeSnapshot(_ name: String) { change { $0.kept.removeAll { $0.snapshot.name == name } } }

        /// All that are held, those that `freeze` made among them, oldest first.
        package var snapshots: [Snapshot] { contents.withLock { $0.present?.kept.map(\.snapshot) ?? [] } }

        /// What is in the volume that is there, finished or not.
        package func bytes(of revision: Revision = .head) -> [UInt8] {
            contents.withLock { contents in
                guard let state = try? contents.present?.state(revision, address: "") else { return [] }
                var bytes = [UInt8](repeating: 0, count: Int(state.size.bytes))
                unsafe bytes.withUnsafeMutableBytes { unsafe state.read(into: $0, at: .zero) }
                return bytes
            }
        }

        /// The blocks of the head that hold something.
        package var allocated: ByteCount {
            contents.withLock { ByteCount(UInt64($0.present?.head.blocks.count ?? 0) * State.block) }
        }

        /// Whoever owned the unfinished target is gone, and of the blocks that were written since it was last flushed
        /// only those survive that `survives` says.
        package func crash(survives: (ByteOffset) -> Bool = { _ in true }) {
            contents.withLock { contents in
                contents.ownerHasDied = contents.ownerHasDied || contents.owner != nil
                contents.owner = nil
                contents.unfinished?.lose(butThose: survives)
            }
        }
    }
}

private struct Contents {
    let holdsSnapshots: Bool
    let means: ExtentMeans
    let extentUnit: ByteCount
    var finished: Body?
    var unfinished: Body?
    var record: String?
    /// Who owns the unfinished target.
    var owner: UInt64?
    /// The last owner went without closing.
    var ownerHasDied = false
    private var lastNumber: UInt64 = 0

    init(holdsSnapshots: Bool, means: ExtentMeans, extentUnit: ByteCount) {
        self.holdsSnapshots = holdsSnapshots
        self.means = means
        self.extentUnit = extentUnit
    }

    mutating func newNumber() -> UInt64 {
        lastNumber += 1
        return lastNumber
    }

    mutating func newBody(_ head: State) -> Body { Body(identity: newNumber(), head: head) }

    var targetState: TargetState {
        switch (finished, unfinished, record) {
        case (nil, nil, nil): .absent
        case (nil, _, let record): .unfinished(record: record ?? "")
        case (_?, nil, let record?): .committed(record: record)
        case (_?, _, _): .foreign
        }
    }

    /// What describing and opening find.
    var present: Body? { finished ?? unfinished }
}

/// A volume with its history.
private struct Body {
    struct Kept {
        var snapshot: Snapshot
        let state: State
        let writes: UInt64
    }

    let identity: UInt64
    var head: State
    var kept: [Kept] = []
    var layout: Layout?
    var metadata: [String: String] = [:]
    /// Counts whatever changed the head.
    var writes: UInt64 = 0
    private var lastSnapshot: UInt64 = 0
    /// The blocks written since the last flush, as they were before; nothing for one that was a hole.
    private var unsettled: [UInt64: [UInt8]?] = [:]

    init(identity: UInt64, head: State) {
        self.identity = identity
        self.head = head
    }

    func state(_ revision: Revision, address: String) throws(VolumeError) -> State {
        guard case .snapshot(let snapshot) = revision else { return head }
        guard let found = kept.first(where: { $0.snapshot.id == snapshot.id && $0.snapshot.name == snapshot.name })
        else {
            throw VolumeError(.missing, "open", on: "\(address)@\(snapshot.name)", reason: "there is no such snapshot")
        }
        return found.state
    }

    mutating func keep(as name: String, isProtected: Bool) -> Snapshot {
        if let index = kept.firstIndex(where: { $0.snapshot.name == name }) {
            let old = kept[index].snapshot
            kept[index].snapshot = Snapshot(
                id: old.id, name: name, size: old.size, isProtected: old.isProtected || isProtected)
            return kept[index].snapshot
        }
        settle()
        lastSnapshot += 1
        let snapshot = Snapshot(id: lastSnapshot, name: name, size: head.size, isProtected: isProtected)
        kept.append(Kept(snapshot: snapshot, state: head, writes: writes))
        return snapshot
    }

    private mutating func touch(_ extent: Extent) {
        writes += 1
        guard !extent.isEmpty else { return }
        for number in State.blocks(of: extent) where unsettled[number] == nil {
            unsettled.updateValue(head.blocks[number], forKey: number)
        }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) {
        touch(Extent(offset: offset, length: ByteCount(UInt64(bytes.count))))
        unsafe head.write(bytes, at: offset)
    }

    mutating func zero(_ extent: Extent) {
        touch(extent)
        head.zero(extent)
    }

    mutating func resize(to size: ByteCount) {
        writes += 1
        // What a crash brings back must not reach past the end that was.
        if size < head.size {
            let cut = Extent(from: ByteOffset(size.bytes), to: ByteOffset(head.size.bytes))
            for number in State.blocks(of: cut) { unsettled[number] = nil }
        }
        head.resize(to: size)
    }

    mutating func settle() { unsettled = [:] }

    mutating func lose(butThose survives: (ByteOffset) -> Bool) {
        for (number, block) in unsettled.sorted(by: { $0.key < $1.key })
        where !survives(ByteOffset(number * State.block)) {
            head.blocks[number] = block
        }
        settle()
    }
}

/// The bytes of one state: the blocks that were written, and zeros between.
private struct State {
    /// Bytes: the smallest thing that is told from zeros.
    static let block = zeroBlock.bytes

    private(set) var size: ByteCount
    /// By their number; each is whole, and zeros past the volume's end.
    var blocks: [UInt64: [UInt8]] = [:]

    init(size: ByteCount) { self.size = size }

    /// The numbers of the blocks that `extent` touches.
    static func blocks(of extent: Extent) -> Range<UInt64> {
        extent.isEmpty ? 0..<0 : extent.offset.bytes / block..<(extent.end.bytes + block - 1) / block
    }

    func checkEnd(of extent: Extent, _ operation: String, _ address: String) throws(VolumeError) {
        guard extent.end.bytes <= size.bytes else {
            throw VolumeError(
                operation == "read" ? .damaged : .failed, operation, on: "\(address) at byte \(extent.offset.bytes)",
                reason: "\(extent.length.bytes) bytes reach past the end at \(size.bytes)")
        }
    }

    /// Hands on each block that `extent` touches: the part of the block, and where that stands from the extent's start.
    private static func forEachPart(of extent: Extent, _ body: (UInt64, Range<Int>, Int) -> Void) {
        for number in blocks(of: extent) {
            let start = number * block
            let part = extent.intersection(Extent(offset: ByteOffset(start), length: ByteCount(block)))
            let low = Int(part.offset.bytes - start)
            body(number, low..<low + Int(part.length.bytes), Int((part.offset - extent.offset).bytes))
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) {
        Self.forEachPart(of: Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))) { number, part, place in
            let goal = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + part.count])
            if let bytes = blocks[number] {
                unsafe goal.copyBytes(from: bytes[part])
            } else {
                unsafe goal.initializeMemory(as: UInt8.self, repeating: 0)
            }
        }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) {
        Self.forEachPart(of: Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))) { number, part, place in
            let source = unsafe UnsafeRawBufferPointer(rebasing: bytes[place..<place + part.count])
            unsafe blocks[number, default: [UInt8](repeating: 0, count: Int(Self.block))].withUnsafeMutableBytes {
                unsafe UnsafeMutableRawBufferPointer(rebasing: $0[part]).copyMemory(from: source)
            }
        }
    }

    mutating func zero(_ extent: Extent) {
        // A hole up to the end takes the last block whole: nothing is past the end.
        let isUpToEnd = extent.end.bytes == size.bytes
        Self.forEachPart(of: extent) { number, part, _ in
            let isLast = isUpToEnd && extent.end.bytes <= (number + 1) * Self.block
            if part.lowerBound == 0, part.count == Int(Self.block) || isLast {
                blocks[number] = nil
            } else if blocks[number] != nil {
                unsafe blocks[number]?.withUnsafeMutableBytes { bytes in
                    _ = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[part]).initializeMemory(
                        as: UInt8.self, repeating: 0)
                }
            }
        }
    }

    mutating func resize(to size: ByteCount) {
        if size < self.size { zero(Extent(from: ByteOffset(size.bytes), to: ByteOffset(self.size.bytes))) }
        self.size = size
    }

    func allocated(in range: Extent) -> ExtentSet {
        extents(blocks.keys, in: range)
    }

    /// Where the bytes differ. What is past the older state's end counts as zeros there.
    func differing(from base: State, in range: Extent) -> ExtentSet {
        let zeros = [UInt8](repeating: 0, count: Int(Self.block))
        let numbers = Set(blocks.keys).union(base.blocks.keys)
        let changed = numbers.filter { number in
            unsafe (blocks[number] ?? zeros).withUnsafeBytes { new in
                unsafe (base.blocks[number] ?? zeros).withUnsafeBytes { unsafe firstDifferingRun(new, $0) != nil }
            }
        }
        return extents(changed, in: range)
    }

    private func extents(_ numbers: some Sequence<UInt64>, in range: Extent) -> ExtentSet {
        let touched = Self.blocks(of: range)
        var found = ExtentSet()
        for number in numbers.filter({ touched.contains($0) }).sorted() {
            found.append(
                Extent(offset: ByteOffset(number * Self.block), length: ByteCount(Self.block)).intersection(range))
        }
        return found
    }
}
