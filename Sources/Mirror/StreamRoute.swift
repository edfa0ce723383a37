package import Volumes

/// From any volume to any other: reads what may be dirty, leaves out zeros, and writes the rest.
struct StreamRoute: Route {
    let source: any Volume
    let target: any TargetVolume
    let granularity: Granularity

    func begin(_ step: Step, resumed: ByteOffset?) async throws(VolumeError) -> any StepMover {
        let reader = try await source.open(step.goal)
        return StreamMover(
            reader: reader, target: target, base: step.base, mayHoldData: step.base != nil || resumed != nil,
            pieceSize: max(granularity.size, .mebibytes(1)))
    }
}

private struct StreamMover: StepMover {
    let reader: any VolumeReader
    let target: any TargetVolume
    let base: Snapshot?
    /// Whether the target may hold other bytes than zeros where the source has none.
    let mayHoldData: Bool
    let pieceSize: ByteCount

    var space: ByteCount { reader.size }
    var grain: ByteCount { Granularity.smallest }
    var means: ExtentMeans { reader.means }

    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError) {
        try await forEachWindow(of: reader.size, unit: reader.extentUnit) { window throws(VolumeError) in
            for extent in try await reader.extents(in: window, since: base).extents { found(extent) }
        }
    }

    func move(_ piece: Extent) async throws(VolumeError) -> Moved {
        unsafe try await withIOBuffer(of: piece.length) { buffer throws(VolumeError) in
            try await unsafe reader.read(into: buffer, at: piece.offset)
            return try await unsafe put(UnsafeRawBufferPointer(buffer), piece)
        }
    }

    /// Writes what isn't zeros of a piece that was read.
    private func put(_ bytes: UnsafeRawBufferPointer, _ piece: Extent) async throws(VolumeError) -> Moved {
        var moved = Moved()
        moved.found = piece.length
        var data = ExtentSet()
        unsafe forEachDataRun(in: bytes, at: piece.offset) { data.append($0) }
        for run in data.extents {
            let start = Int((run.offset - piece.offset).bytes)
            let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<start + Int(run.length.bytes)])
            try await unsafe target.write(part, at: run.offset)
            moved.sent += run.length
        }
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
