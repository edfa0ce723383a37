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
    let holder: UInt64
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
    func with<Value: Sendable>(
        _ operation: String, _ extent: Extent? = nil, changes: Bool = true,
        _ body: (inout MemoryContents) throws(VolumeError) -> sending Value
    ) throws(VolumeError) -> Value {
        try fault(operation, extent)
        let value = try place.contents.withLock { contents throws(VolumeError) in try body(&contents) }
        if changes { try fault(operation + ", done", extent) }
        return value
    }

    func missing(_ operation: String) -> VolumeError {
        VolumeError(.missing, operation, on: address, reason: "nothing is there")
    }

    // MARK: Volume

    package func describe() async throws(VolumeError) -> VolumeDescription {
        try with("describe", changes: false) { contents throws(VolumeError) in
            guard let body = contents.present else { throw self.missing("describe") }
            self.see(body)
            var description = VolumeDescription(
                identity: "\(self.address):\(body.identity)" + (contents.holdsSnapshots ? "" : ":\(body.writes)"),
                size: body.head.size,
                snapshots: body.kept.map(\.snapshot).filter { !$0.isTransient }, layout: body.layout,
                metadata: body.usersMetadata)
            description.movedTo = body.metadata[MemoryMark.moved]
            return description
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

    private func see(_ body: MemoryBody) {
        first.withLock { if $0 == nil { $0 = (body.identity, body.writes) } }
    }

    package func obstacles() async throws(VolumeError) -> [Obstacle] {
        try with("obstacles", changes: false) { contents throws(VolumeError) in
            guard let body = contents.finished else { throw self.missing("obstacles") }
            self.see(body)
            return []
        }
    }

    package func standing() async throws(VolumeError) -> Standing {
        try with("standing", changes: false) { contents throws(VolumeError) in
            guard let body = contents.finished else { throw self.missing("standing") }
            let all = body.kept.map(\.snapshot)
            return Standing(
                size: body.head.size, snapshots: all.filter { !$0.isTransient }, transients: all.filter(\.isTransient))
        }
    }

    package func freeze(as name: String) async throws(VolumeError) -> Snapshot? {
        try with("freeze") { contents throws(VolumeError) in
            guard contents.holdsSnapshots else { return nil }
            guard contents.finished != nil else { throw self.missing("freeze") }
            return contents.finished?.keep(as: name, isProtected: false)
        }
    }

    package func holds(_ snapshot: Snapshot) async throws(VolumeError) -> Bool {
        try with("holds", changes: false) { contents throws(VolumeError) in
            contents.finished?.kept.contains { $0.snapshot.id == snapshot.id } == true
        }
    }

    package func thaw(_ name: String) async throws(VolumeError) {
        try with("thaw") { contents throws(VolumeError) in
            contents.finished?.kept.removeAll { $0.snapshot.isNamed(name) }
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
            var body = contents.newBody(MemoryState(size: source.snapshots.first?.size ?? source.size))
            body.layout = source.layout
            contents.unfinished = body
            contents.record = record
        }
    }

    @discardableResult
    package func own() async throws(VolumeError) -> Bool {
        try with("own") { contents throws(VolumeError) in
            if case .committed = contents.targetState { return false }
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
        _ change: (inout MemoryBody) throws(VolumeError) -> sending Value
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

    @discardableResult
    package func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot {
        guard place.contents.withLock({ $0.holdsSnapshots }) else {
            throw VolumeError(.unsupported, "keep", on: address, reason: "it can't hold snapshots")
        }
        return try withOwn("keep") { body throws(VolumeError) in
            body.keep(as: snapshot.name, isProtected: snapshot.isProtected)
        }
    }

    package func alter(_ kept: Snapshot, to snapshot: Snapshot) async throws(VolumeError) {
        try withOwn("alter") { body throws(VolumeError) in
            body.alter(kept.id, name: snapshot.name, isProtected: snapshot.isProtected)
        }
    }

    package func drop(_ kept: Snapshot) async throws(VolumeError) {
        try withOwn("drop") { body throws(VolumeError) in body.kept.removeAll { $0.snapshot.id == kept.id } }
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

    package func furnish(as source: VolumeDescription) async throws(VolumeError) {
        try withOwn("furnish") { body throws(VolumeError) in body.metadata = source.metadata }
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
struct MemoryReader: VolumeReader {
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
