internal import Checksums
internal import Synchronization
package import Volumes

/// From any volume to any other: reads what may be dirty, leaves out zeros, and writes the rest.
struct StreamRoute: Route {
    let source: any Volume
    let target: any TargetVolume
    let granularity: Granularity

    func begin(_ step: Step, resumed: ByteOffset?) async throws(VolumeError) -> any StepMover {
        let reader = try await source.open(step.goal)
        let there: (any VolumeReader)?
        do throws(VolumeError) {
            // What stands in a cache of the target's own is nothing that another reader sees.
            if step.isMixed { try await target.flush() }
            there = step.isMixed ? try await target.open(.head) : nil
        } catch {
            await reader.close()
            throw error
        }
        return StreamMover(
            reader: reader, target: target, there: there, step: step,
            mayHoldData: step.base != nil || resumed != nil || step.isMixed,
            pieceSize: max(granularity.size, .mebibytes(1)))
    }
}

private final class StreamMover: StepMover {
    /// As many extents are remembered: 16 MiB of them. What lies in a dirty chunk beside them is moved as well, if there
    /// are more.
    private static let mostExtents = 1 << 20
    let reader: any VolumeReader
    let target: any TargetVolume
    /// What the target holds so far, where that may be anything: only what is otherwise is written.
    let there: (any VolumeReader)?
    let step: Step
    /// Whether the target may hold other bytes than zeros where the source has none.
    let mayHoldData: Bool
    let pieceSize: ByteCount
    /// What was found, in order; nothing if it was too much.
    private let found = Mutex<ExtentSet?>(nil)

    init(
        reader: any VolumeReader, target: any TargetVolume, there: (any VolumeReader)?, step: Step, mayHoldData: Bool,
        pieceSize: ByteCount
    ) {
        self.reader = reader
        self.target = target
        self.there = there
        self.step = step
        self.mayHoldData = mayHoldData
        self.pieceSize = pieceSize
    }

    var space: ByteCount { reader.size }
    var grain: ByteCount { Granularity.smallest }
    var means: ExtentMeans { reader.means }

    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError) {
        var known = try await extents(of: reader, since: there == nil ? step.base : nil, found)
        if let there {
            // Elsewhere both are zeros.
            let more = try await extents(of: there, since: nil, found)
            known = known.flatMap { known in more.map(known.union) }
        }
        self.found.withLock { $0 = known }
    }

    /// Hands on the extents of a state.
    /// - Returns: All of them, unless they are too many to be remembered.
    private func extents(
        of state: any VolumeReader, since base: Snapshot?, _ found: @Sendable (Extent) -> Void
    ) async throws(VolumeError) -> ExtentSet? {
        var known: ExtentSet? = ExtentSet()
        try await forEachWindow(of: state.size, unit: state.extentUnit) { window throws(VolumeError) in
            for extent in try await state.extents(in: window, since: base).extents {
                // In whole blocks: half a block of zeros makes no hole.
                let blocks = Extent(
                    from: extent.offset.rounded(downTo: zeroBlock),
                    to: min(extent.end.rounded(upTo: zeroBlock), window.end))
                known?.append(blocks)
                found(blocks)
            }
            if known?.extents.count ?? 0 > Self.mostExtents { known = nil }
        }
        return known
    }

    var dirtied: ByteCount? { found.withLock { $0?.total } }

    func move(_ piece: Extent) async throws(VolumeError) -> Moved {
        let dirty = found.withLock { $0?.within(piece) } ?? ExtentSet([piece])
        var moved = Moved()
        for extent in dirty.extents {
            moved += unsafe try await withIOBuffer(of: extent.length) { buffer throws(VolumeError) in
                try await unsafe reader.read(into: buffer, at: extent.offset)
                let bytes = UnsafeRawBufferPointer(buffer)
                guard let there else { return try await unsafe put(bytes, extent) }
                var moved = Moved()
                for other in try await unsafe there.differences(from: bytes, at: extent.offset).extents {
                    let start = Int((other.offset - extent.offset).bytes)
                    let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<start + Int(other.length.bytes)])
                    moved += try await unsafe put(part, other)
                }
                return moved
            }
        }
        return moved
    }

    /// Writes what isn't zeros of a piece that was read.
    private func put(_ bytes: UnsafeRawBufferPointer, _ piece: Extent) async throws(VolumeError) -> Moved {
        var moved = Moved()
        moved.found = piece.length
        var data = ExtentSet()
        unsafe forEachDataRun(in: bytes, at: piece.offset) { data.append($0) }
        try await unsafe target.write(data, of: bytes, at: piece.offset)
        moved.sent = data.total
        guard mayHoldData else { return moved }
        for hole in ExtentSet([piece]).subtracting(data).extents {
            try await target.zero(hole)
            moved.zeroed += hole.length
        }
        return moved
    }

    func settle(upTo offset: ByteOffset) async throws(VolumeError) { try await target.flush() }
    func finish() async throws(VolumeError) { try await target.flush() }

    func close() async {
        await reader.close()
        await there?.close()
    }
}

extension VolumeReader {
    /// Where this state holds other bytes than those, in chunks.
    /// - Parameter offset: Where they would stand; a multiple of 4 KiB.
    fileprivate func differences(
        from bytes: UnsafeRawBufferPointer, at offset: ByteOffset
    ) async throws(VolumeError) -> ExtentSet {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        var found = ExtentSet()
        for part in extent.parts(ofAtMost: .mebibytes(16)) {
            let start = Int((part.offset - offset).bytes)
            let ours = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<start + Int(part.length.bytes)])
            if let there = self as? any DigestingReader {
                // Of what agrees only the hashes are sent: of 64 KiB a hash is 1/8192.
                let chunk = ByteCount.kibibytes(64)
                let theirs = try await there.digests(of: part, chunk: chunk)
                let digests = unsafe chunkDigests(ours, chunk: chunk)
                guard theirs.count == digests.count else {
                    throw VolumeError(.damaged, "digests", on: "the target", reason: "too few hashes came")
                }
                for (piece, digests) in zip(part.parts(ofAtMost: chunk), zip(digests, theirs))
                where digests.0 != digests.1 {
                    found.append(piece)
                }
            } else {
                try await unsafe withIOBuffer(of: part.length) { theirs throws(VolumeError) in
                    try await unsafe read(into: theirs, at: part.offset)
                    for piece in part.parts(ofAtMost: zeroBlock) {
                        let start = Int((piece.offset - part.offset).bytes)
                        let range = start..<start + Int(piece.length.bytes)
                        let mine = unsafe UnsafeRawBufferPointer(rebasing: ours[range])
                        let other = unsafe UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(theirs)[range])
                        if unsafe firstDifferingRun(mine, other) != nil { found.append(piece) }
                    }
                }
            }
        }
        return found
    }
}

/// Walks over a volume in windows that are multiples of `unit`, so that nothing is asked twice.
package func forEachWindow(
    of size: ByteCount, unit: ByteCount, _ body: (Extent) async throws(VolumeError) -> Void
) async throws(VolumeError) {
    // What bounds the list of extents that one answer holds.
    let most = ByteCount.gibibytes(1)
    let length = ByteCount(max(most.bytes / unit.bytes, 1) * unit.bytes)
    var start = ByteOffset.zero
    while start.bytes < size.bytes {
        let end = min(start + length, ByteOffset(size.bytes))
        try await body(Extent(from: start, to: end))
        start = end
    }
}
