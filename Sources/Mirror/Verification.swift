internal import Checksums
internal import DirtyMap
internal import Synchronization
package import Volumes

/// Compares two volumes: size, every snapshot, head.
package struct Verification: Sendable {
    package struct Difference: Sendable, Codable, CustomStringConvertible {
        /// The snapshot's name; nothing for the head.
        package var snapshot: String?
        package var description: String
        /// Where the first differing bytes are.
        package var offset: UInt64?
        package var length: UInt64?
    }

    /// Compared at once: each is an object or a piece of as many bytes on both sides.
    private static let workers = 16

    let source: any Volume
    let target: any Volume
    let base: Snapshot?
    let progress: WorkProgress
    let stop: StopRequest

    /// - Parameter base: `SourceVolume.base`: what isn't dirty since then is taken for equal.
    package init(
        source: any Volume, target: any Volume, base: Snapshot? = nil, progress: WorkProgress, stop: StopRequest
    ) {
        self.source = source
        self.target = target
        self.base = base
        self.progress = progress
        self.stop = stop
    }

    /// All that both have, or should have.
    package func run() async throws(MoveError) -> [Difference] {
        let ours = try await staged(.source) { () throws(VolumeError) in try await source.describe() }
        let theirs = try await staged(.source) { () throws(VolumeError) in try await target.describe() }
        let (names, others) = (ours.snapshots.map(\.name), theirs.snapshots.map(\.name))
        var found: [Difference] = []
        // By their bytes: two spellings that Swift's strings hold equal are two names to a volume.
        func key(_ name: String) -> [UInt8] { Array(name.utf8) }
        let (ourKeys, theirKeys) = (Set(names.map(key)), Set(others.map(key)))
        for name in names where !theirKeys.contains(key(name)) {
            found.append(Difference(snapshot: name, description: "snapshot \(name): missing at \(target.address)"))
        }
        for name in others where !ourKeys.contains(key(name)) {
            found.append(Difference(snapshot: name, description: "snapshot \(name): missing at \(source.address)"))
        }
        if found.isEmpty, names.map(key) != others.map(key) {
            found.append(Difference(description: "snapshots: not in the same order"))
        }
        return found + (try await run(names.filter { theirKeys.contains(key($0)) }, head: .head))
    }

    /// Certain snapshots by their names, and the source's `head` with the target's.
    ///
    /// - Parameters:
    ///   - head: Nothing to leave it out.
    ///   - part: Only this of the head, if it can be told in the space of the comparison.
    func run(
        _ snapshots: [String], head: Revision?, within part: Walk.Verified.Moved? = nil
    ) async throws(MoveError) -> [Difference] {
        var found: [Difference] = []
        if !snapshots.isEmpty { try await compare(snapshots, into: &found) }
        if let head { try await compare(head, .head, nil, within: part, into: &found) }
        return found
    }

    private func compare(_ snapshots: [String], into found: inout [Difference]) async throws(MoveError) {
        let ours = try await staged(.source) { () throws(VolumeError) in try await source.describe().snapshots }
        let theirs = try await staged(.target) { () throws(VolumeError) in try await target.describe().snapshots }
        for name in snapshots {
            guard let our = ours.first(where: { $0.isNamed(name) }),
                let their = theirs.first(where: { $0.isNamed(name) })
            else { continue }
            if our.isProtected != their.isProtected {
                found.append(
                    Difference(snapshot: name, description: "snapshot \(name): protected on one side only"))
            }
            try await compare(.snapshot(our), .snapshot(their), name, into: &found)
        }
    }

    private func compare(
        _ ours: Revision, _ theirs: Revision, _ snapshot: String?, within part: Walk.Verified.Moved? = nil,
        into found: inout [Difference]
    ) async throws(MoveError) {
        let title = snapshot.map { "snapshot \($0)" } ?? "head"
        progress.begin("comparing \(title)")
        let comparison = try await staged(.underWay) { () throws(VolumeError) in
            try await self.comparison(of: ours, with: theirs)
        }
        let sizes = comparison.sizes
        guard sizes.ours == sizes.theirs else {
            await comparison.close()
            found.append(
                Difference(
                    snapshot: snapshot,
                    description: "\(title): \(sizes.ours.bytes) bytes at \(source.address), "
                        + "\(sizes.theirs.bytes) at \(target.address)"))
            return
        }
        let isStopped: Bool
        do throws(VolumeError) {
            let (difference, wasStopped) = try await first(in: comparison, of: ours, within: part, snapshot, title)
            if let difference { found.append(difference) }
            isStopped = wasStopped
        } catch {
            await comparison.close()
            throw MoveError(error, at: .underWay)
        }
        await comparison.close()
        if isStopped { throw MoveError(.resumable, ["stopped while comparing \(title)"]) }
    }

    /// The shortest way to compare two states.
    private func comparison(
        of ours: Revision, with theirs: Revision
    ) async throws(VolumeError) -> any Comparison {
        if let shorter = try await source.comparison(of: ours, with: target, at: theirs) { return shorter }
        let left = try await source.open(ours)
        do throws(VolumeError) {
            let right = try await target.open(theirs)
            if let far = right as? any DigestingReader {
                return DigestComparison(near: left, far: far, isFarOurs: false, base: base)
            }
            if let far = left as? any DigestingReader {
                return DigestComparison(near: right, far: far, isFarOurs: true, base: nil)
            }
            return ReadComparison(left: left, right: right, base: base)
        } catch {
            await left.close()
            throw error
        }
    }

    /// The first difference that stays one: what was changed at the source since the state that is compared isn't.
    private func firstDifference(
        in piece: Extent, of comparison: any Comparison, since state: Snapshot?
    ) async throws(VolumeError) -> Extent? {
        guard let marked = source as? any MarkedVolume, let state else {
            return try await comparison.firstDifference(in: piece)
        }
        var rest = piece
        while !rest.isEmpty, let found = try await comparison.firstDifference(in: rest) {
            // Asked after it was read: whatever was read of a change was marked before.
            guard let changes = marked.changes(since: state, in: found) else { return found }
            if let left = ExtentSet([found]).subtracting(changes).extents.first { return left }
            rest = Extent(from: max(found.end, changes.end), to: rest.end)
        }
        return nil
    }

    private func work(
        on pieces: Pieces, of comparison: any Comparison, since state: Snapshot?, _ earliest: Earliest
    ) async {
        while let piece = pieces.next() {
            do throws(VolumeError) {
                if let extent = try await firstDifference(in: piece.extent, of: comparison, since: state) {
                    earliest.note(extent)
                    // Those before this piece were given out already; those after don't matter any more.
                    pieces.endEarly()
                }
                progress.advance(by: piece.dirty)
                pieces.finish(piece)
            } catch {
                return pieces.fail(piece, error)
            }
        }
    }

    private func first(
        in comparison: any Comparison, of ours: Revision, within part: Walk.Verified.Moved?, _ snapshot: String?,
        _ title: String
    ) async throws(VolumeError) -> (difference: Difference?, wasStopped: Bool) {
        let map = DirtyMap(
            size: comparison.space,
            granularity: Granularity(min(comparison.pieceSize, Granularity.standard.size)) ?? .standard)
        if let part, !part.isResized, part.space == comparison.space {
            for extent in part.extents.extents { map.mark(extent) }
        } else {
            try await comparison.findExtents { map.mark($0) }
        }
        progress.expect(map.dirtyBytes)
        let pieces = Pieces(map, size: comparison.pieceSize, grain: map.granularity.size, from: .zero, stop: stop)
        let earliest = Earliest()
        await withTaskGroup { group in
            for _ in 0..<Self.workers {
                group.addTask { await self.work(on: pieces, of: comparison, since: ours.snapshot, earliest) }
            }
        }
        if let failure = pieces.failure { throw failure }
        if let extent = earliest.extent {
            let range = "bytes \(extent.offset.bytes) to \(extent.end.bytes - 1)"
            return (
                Difference(
                    snapshot: snapshot, description: "\(title): differs first at \(range)", offset: extent.offset.bytes,
                    length: extent.length.bytes), false
            )
        }
        return (nil, !map.isClean)
    }
}

/// The earliest of the differences that several workers found.
private final class Earliest: Sendable {
    private let found = Mutex<Extent?>(nil)
    var extent: Extent? { found.withLock { $0 } }
    func note(_ extent: Extent) {
        found.withLock { known in if known.map({ extent.offset < $0.offset }) ?? true { known = extent } }
    }
}

/// Reads both sides.
private struct ReadComparison: Comparison {
    let left: any VolumeReader
    let right: any VolumeReader
    /// What `left` is asked for its extents since.
    let base: Snapshot?
    let pieceSize = ByteCount.mebibytes(1)
    var sizes: (ours: ByteCount, theirs: ByteCount) { (left.size, right.size) }
    var space: ByteCount { left.size }

    func findExtents(_ found: @Sendable (Extent) -> Void) async throws(VolumeError) {
        try await forEachExtent(of: base == nil ? [left, right] : [left], since: base, found)
    }

    func firstDifference(in piece: Extent) async throws(VolumeError) -> Extent? {
        try await firstDifferenceByReading(left, right, in: piece)
    }

    func close() async {
        await left.close()
        await right.close()
    }
}

/// What has to be compared: all that any of the readers may have data in, or what differs from `base`.
func forEachExtent(
    of readers: [any VolumeReader], since base: Snapshot?, _ found: (Extent) -> Void
) async throws(VolumeError) {
    for reader in readers {
        try await forEachWindow(of: reader.size, unit: reader.extentUnit) { window throws(VolumeError) in
            for extent in try await reader.extents(in: window, since: base).extents { found(extent) }
        }
    }
}
