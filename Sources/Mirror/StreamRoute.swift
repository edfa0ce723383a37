internal import Synchronization
package import Volumes

/// From any volume to any other: reads what may be dirty, leaves out zeros, and writes the rest.
struct StreamRoute: Route {
    let source: any Volume
    let target: any TargetVolume
    let granularity: Granularity

    func begin(_ step: Step, resumed: ByteOffset?) async throws(VolumeError) -> any StepMover {
        let reader = try await source.open(step.goal)
        return StreamMover(
            reader: reader, target: target, step: step, mayHoldData: step.base != nil || resumed != nil || step.isMixed,
            pieceSize: max(granularity.size, .mebibytes(1)))
    }
}

private final class StreamMover: StepMover {
    /// As many extents are remembered: 16 MiB of them. What lies in a dirty chunk beside them is moved as well, if there
    /// are more.
    private static let mostExtents = 1 << 20
    let reader: any VolumeReader
    let target: any TargetVolume
    let step: Step
    /// Whether the target may hold other bytes than zeros where the source has none.
    let mayHoldData: Bool
    let pieceSize: ByteCount
    /// What was found, in order; nothing if it was too much.
    private let found = Mutex<ExtentSet?>(ExtentSet())

    init(reader: any VolumeReader, target: any TargetVolume, step: Step, mayHoldData: Bool, pieceSize: ByteCount) {
        self.reader = reader
        self.target = target
        self.step = step
        self.mayHoldData = mayHoldData
        self.pieceSize = pieceSize
    }

    var space: ByteCount { reader.size }
    var grain: ByteCount { Granularity.smallest }
    var means: ExtentMeans { reader.means }

    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError) {
        guard !step.isMixed else {
            // The target may hold anything where the source has nothing.
            self.found.withLock { $0 = nil }
            return found(Extent(offset: .zero, length: reader.size))
        }
        try await forEachWindow(of: reader.size, unit: reader.extentUnit) { window throws(VolumeError) in
            // In whole blocks: half a block of zeros makes no hole.
            let extents = try await reader.extents(in: window, since: step.base).extents.map { extent in
                Extent(
                    from: extent.offset.rounded(downTo: zeroBlock),
                    to: min(extent.end.rounded(upTo: zeroBlock), window.end))
            }
            self.found.withLock { known in
                for extent in extents { known?.append(extent) }
                if known?.extents.count ?? 0 > Self.mostExtents { known = nil }
            }
            for extent in extents { found(extent) }
        }
    }

    var dirtied: ByteCount? { found.withLock { $0?.total } }

    func move(_ piece: Extent) async throws(VolumeError) -> Moved {
        let dirty = found.withLock { $0?.within(piece) } ?? ExtentSet([piece])
        var moved = Moved()
        for extent in dirty.extents {
            moved += unsafe try await withIOBuffer(of: extent.length) { buffer throws(VolumeError) in
                try await unsafe reader.read(into: buffer, at: extent.offset)
                return try await unsafe put(UnsafeRawBufferPointer(buffer), extent)
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
    func close() async { await reader.close() }
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
