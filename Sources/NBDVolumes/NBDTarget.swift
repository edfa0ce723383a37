internal import Synchronization
package import Volumes

/// An export to move into: bytes that are there already, and nothing else.
///
/// It can't be made, renamed or marked, and holds no record. So: what it is to be is written over what is there, which
/// must be zeros, unless the operator says that it may be lost; until the commit its first MiB is kept back, so that it
/// doesn't look finished; and a move that ended before that begins anew (Docs/Decisions/0009). States other than
/// `absent` and `foreign` are those of this value, and end with it.
///
/// Onto a base only what differs from it is written, straight where it belongs: a move that ended before its end leaves
/// neither state there, and the next one, of the same or more, makes it whole.
package final class NBDTarget: TargetVolume {
    /// What is asked for and zeroed at once while it is made.
    private static let makers = 8
    /// In which servers make holes, unless larger ones: the clusters of a qcow2 image, if nothing else was said.
    private static let holeBlock = ByteCount.kibibytes(64)

    /// What the export holds before the move.
    package enum Holding: Sendable {
        /// Zeros; anything else is refused.
        case zeros
        /// Anything, which may be lost.
        case anything
        /// The source's base (`SourceVolume.base`): what isn't written over stays.
        case base
    }

    package let address: String
    let export: NBDExport
    private let holding: Holding
    private let notice: @Sendable (String) -> Void
    private let isStopped: @Sendable () -> Bool

    private enum Phase: Equatable {
        /// As the server has it.
        case untouched
        case unfinished(record: String)
        case committed(record: String)
        case over
    }

    private struct State {
        var phase = Phase.untouched
        /// The volume's, which may be less than the export's.
        var size: ByteCount
        var isOwned = false
        var withheld: Withheld?
    }

    private let held: Mutex<State>

    /// - Parameters:
    ///   - holding: As the operator says.
    ///   - notice: Is told what takes long.
    package init(
        _ export: NBDExport, holding: Holding, notice: @escaping @Sendable (String) -> Void = { _ in },
        isStopped: @escaping @Sendable () -> Bool = { false }
    ) {
        (self.export, self.holding, self.notice, self.isStopped) = (export, holding, notice, isStopped)
        address = export.address.text
        held = Mutex(State(size: export.size))
    }

    package static func connect(
        to address: NBDAddress, holding: Holding, patience: Patience = .standard,
        notice: @escaping @Sendable (String) -> Void = { _ in }, isStopped: @escaping @Sendable () -> Bool = { false }
    ) async throws(VolumeError) -> NBDTarget {
        NBDTarget(
            try await NBDExport.connect(to: address, patience: patience), holding: holding, notice: notice,
            isStopped: isStopped)
    }

    // MARK: What is there

    package func state() async throws(VolumeError) -> TargetState {
        switch held.withLock({ $0.phase }) {
        case .unfinished(let record): return .unfinished(record: record)
        case .committed(let record): return .committed(record: record)
        case .over: return .foreign
        case .untouched where holding != .zeros: return .absent
        case .untouched: return try await mayHoldData() ? .foreign : .absent
        }
    }

    private func mayHoldData() async throws(VolumeError) -> Bool {
        guard export.knowsZeros else { return true }
        for window in export.whole.parts(ofAtMost: RequestShape.mostStatus) {
            if try await !export.data(in: window).isEmpty { return true }
        }
        return false
    }

    package func describe() async throws(VolumeError) -> VolumeDescription {
        VolumeDescription(identity: export.identity, size: held.withLock { $0.size })
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        guard revision == .head else { throw export.noSnapshots("open") }
        return NBDTargetReader(target: self, size: held.withLock { $0.size })
    }

    package func obstacles(to source: VolumeDescription, room: ByteCount) async throws(VolumeError) -> [Obstacle] {
        var found: [Obstacle] = []
        if export.isReadOnly {
            found.append(
                Obstacle(.forbidden, "\(address) is exported read-only", remedy: "Have the server let it be written."))
        }
        if try await state() == .foreign {
            let fact =
                export.knowsZeros ? "\(address) holds data" : "\(address) may hold data: its server doesn't tell"
            found.append(
                Obstacle(.exists, fact, remedy: "If all of it may be lost, say so: --overwrite. Or choose another."))
        }
        if !source.snapshots.isEmpty {
            found.append(
                Obstacle(
                    .unsupported,
                    "the source has \(source.snapshots.count) snapshots, and an NBD export can't hold snapshots",
                    remedy: "--snapshots none moves the head alone."))
        }
        if source.size > export.size {
            found.append(
                Obstacle(
                    .unsupported,
                    "\(address) has \(export.size.bytes) bytes, fewer than the source's \(source.size.bytes)",
                    remedy: "Have the server export a larger one: a client can't make it grow."))
        }
        return found
    }

    package func losses(from source: VolumeDescription) -> [String] {
        var losses: [String] = []
        if !source.metadata.isEmpty {
            losses.append("the metadata (\(source.metadata.count) keys): an NBD export holds none")
        }
        if source.size < export.size {
            let rest = holding == .base ? "stay as they are" : "are zeros"
            losses.append("the size: the export has \(export.size.bytes) bytes; those after the source's end \(rest)")
        }
        if !export.flushes {
            losses.append("certainty: the server has no flush, so when what it acknowledged is durable is up to it")
        }
        return losses
    }

    // MARK: Making it

    package func make(as source: VolumeDescription, record: String) async throws(VolumeError) {
        guard source.snapshots.isEmpty else { throw export.noSnapshots("make") }
        guard try await state() == .absent else {
            throw VolumeError(
                .exists, "make", on: address, reason: "it holds data",
                advice: "If all of it may be lost, say so: --overwrite.")
        }
        try refuseTooLarge(source.size)
        if holding != .base { try await clear() }
        held.withLock { state in
            state.phase = .unfinished(record: record)
            state.size = source.size
            // A base looks finished whatever is kept back.
            state.withheld = Withheld(ofExport: holding == .base ? .zero : export.size)
        }
    }

    /// Makes zeros of all that isn't known to be.
    private func clear() async throws(VolumeError) {
        let windows = Array(export.whole.parts(ofAtMost: RequestShape.mostStatus))
        let done = Atomic<Int>(0)
        _ = try await concurrently(windows, limit: Self.makers) { window throws(VolumeError) in
            for extent in try await self.export.data(in: window).extents {
                for part in extent.parts(ofAtMost: RequestShape.mostZeros) {
                    guard !self.isStopped() else {
                        throw VolumeError(
                            .busy, "make", on: self.address, reason: "stopped while what it held was overwritten",
                            advice: "Give the command again with --overwrite.")
                    }
                    self.notice(
                        "overwriting what \(self.address) held: "
                            + "\(done.load(ordering: .relaxed)) of \(windows.count) GiB")
                    try await self.export.zero(part)
                }
            }
            done.add(1, ordering: .relaxed)
        }
        try await export.flush()
    }

    private func refuseTooLarge(_ size: ByteCount) throws(VolumeError) {
        guard size <= export.size else {
            throw VolumeError(
                .unsupported, "resize", on: address,
                reason: "the export has \(export.size.bytes) bytes, and \(size.bytes) are needed",
                advice: "Have the server export a larger one.")
        }
    }

    @discardableResult
    package func own() async throws(VolumeError) -> Bool {
        try held.withLock { state throws(VolumeError) in
            switch state.phase {
            case .unfinished: state.isOwned = true
            case .committed: break
            case .untouched, .over:
                throw VolumeError(.exists, "own", on: address, reason: "no move of this process is under way there")
            }
        }
        return false
    }

    package func save(record: String) async throws(VolumeError) {
        try held.withLock { state throws(VolumeError) in
            switch state.phase {
            case .unfinished: state.phase = .unfinished(record: record)
            case .committed: state.phase = .committed(record: record)
            case .untouched, .over:
                throw VolumeError(.missing, "save", on: address, reason: "no move of this process is under way there")
            }
        }
    }

    package func kept() async throws(VolumeError) -> [Snapshot] { [] }

    package func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot { throw export.noSnapshots("keep") }

    package func resize(to size: ByteCount) async throws(VolumeError) {
        try refuseTooLarge(size)
        let former = try changing { $0.size }
        // What comes back is zeros.
        if size < former { try await zero(Extent(from: ByteOffset(size.bytes), to: ByteOffset(former.bytes))) }
        try changing { $0.size = size }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        // Needed: pointers are not Sendable. Safe: used before this returns.
        nonisolated(unsafe) let data = unsafe bytes
        let rest = try changing { state in
            unsafe state.withheld?.write(data, at: offset) ?? Extent(offset: offset, length: .zero)
        }
        guard !rest.isEmpty else { return }
        let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[Int((rest.offset - offset).bytes)...])
        try await unsafe export.write(part, at: rest.offset)
    }

    package func zero(_ extent: Extent) async throws(VolumeError) {
        let rest = try changing { state in
            var extent = extent
            if !extent.isEmpty, extent.end.bytes == state.size.bytes, holding != .base {
                // What comes after the volume's end is zeros anyway: with it, the last block can become a hole.
                let end = min(extent.end.rounded(upTo: Self.holeBlock), export.whole.end)
                extent = Extent(from: extent.offset, to: end)
            }
            return state.withheld?.zero(extent) ?? Extent(offset: extent.offset, length: .zero)
        }
        if !rest.isEmpty { try await export.zero(rest) }
    }

    package func flush() async throws(VolumeError) { try await export.flush() }

    /// What only the owner of an unfinished target may do.
    @discardableResult
    private func changing<Value: Sendable>(_ body: (inout State) -> Value) throws(VolumeError) -> Value {
        try held.withLock { state throws(VolumeError) in
            guard case .unfinished = state.phase, state.isOwned else {
                throw VolumeError(.failed, "own", on: address, reason: "the target isn't this process's")
            }
            return body(&state)
        }
    }

    /// Fills what is kept back of a read.
    /// - Returns: Where the rest is.
    func readWithheld(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) -> Extent {
        // Needed: pointers are not Sendable. Safe: used before this returns.
        nonisolated(unsafe) let buffer = unsafe buffer
        return held.withLock { state in
            unsafe state.withheld?.read(into: buffer, at: offset)
                ?? Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))
        }
    }

    var withheldData: ExtentSet { held.withLock { $0.withheld?.data ?? ExtentSet() } }

    // MARK: The end

    package func commit(as source: VolumeDescription) async throws(VolumeError) {
        if case .committed = try await state() { return }
        let withheld = try changing { $0.withheld }
        try await export.flush()
        for extents in withheld?.releases ?? [] {
            for extent in extents {
                unsafe try await withIOBuffer(of: extent.length) { buffer throws(VolumeError) in
                    _ = unsafe withheld?.read(into: buffer, at: extent.offset)
                    try await unsafe export.write(UnsafeRawBufferPointer(buffer), at: extent.offset)
                }
            }
            try await export.flush()
        }
        held.withLock { state in
            guard case .unfinished(let record) = state.phase else { return }
            (state.phase, state.isOwned, state.withheld) = (.committed(record: record), false, nil)
        }
    }

    package func forget() async throws(VolumeError) {
        try held.withLock { state throws(VolumeError) in
            switch state.phase {
            case .committed: state.phase = .over
            case .untouched, .over: break
            case .unfinished:
                throw VolumeError(.failed, "forget", on: address, reason: "the move isn't over: it is unfinished")
            }
        }
    }

    /// Makes zeros of all that was written.
    package func discard() async throws(VolumeError) {
        switch held.withLock({ $0.phase }) {
        case .untouched: return
        case .committed, .over:
            throw VolumeError(
                .exists, "discard", on: address, reason: "it is finished, and so no longer Godwit's to remove")
        case .unfinished: break
        }
        guard holding != .base else {
            throw VolumeError(
                .unsupported, "discard", on: address, reason: "what was written over can't be brought back",
                advice: "The same move, given again, makes it whole.")
        }
        try await clear()
        held.withLock { $0 = State(size: export.size) }
    }

    package func close() async { held.withLock { $0.isOwned = false } }

    package func route(from source: any Volume) async throws(VolumeError) -> (any Route)? { nil }
}

/// A target as it will be: with what is kept back.
struct NBDTargetReader: VolumeReader {
    let target: NBDTarget
    let size: ByteCount
    let extentUnit = ByteCount.kibibytes(64)
    var means: ExtentMeans { target.export.knowsZeros ? .blockStatus : .everything }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        guard base == nil else { throw target.export.noSnapshots("extents") }
        let range = range.intersection(Extent(offset: .zero, length: size))
        return try await target.export.data(in: range).union(target.withheldData).intersection(range)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let rest = unsafe target.readWithheld(into: buffer, at: offset)
        guard !rest.isEmpty else { return }
        let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[Int((rest.offset - offset).bytes)...])
        try await unsafe target.export.read(into: part, at: rest.offset)
    }

    func close() async {}
}

extension NBDExport {
    var whole: Extent { Extent(offset: .zero, length: size) }
}
