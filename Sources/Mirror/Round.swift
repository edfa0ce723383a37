internal import DirtyMap
internal import Synchronization
internal import Volumes

/// Brings the target from one state to the next: fills the dirty map, and moves its pieces, a bounded number at a time.
struct Round {
    /// How often a later run's starting point is made durable: what a kill costs at most is moved again.
    private static let settleInterval = Duration.seconds(5)
    /// More requests than this gain nothing: the OSDs are busy by then (Docs/Decisions/0003).
    private static let mostWorkers = 64
    let mover: any StepMover
    let options: MoveOptions
    let pacing: Pacing
    let time: Timekeeper
    let progress: WorkProgress
    let stop: StopRequest
    /// Makes durable that everything before an offset was moved.
    let settle: @Sendable (ByteOffset) async throws(VolumeError) -> Void

    enum Outcome: Equatable { case finished, stopped }

    /// Finds what is dirty.
    ///
    /// - Parameter start: Everything before was moved by an earlier run.
    func fill(from start: ByteOffset) async throws(VolumeError) -> DirtyMap {
        let map = try newMap()
        try await mover.findExtents { map.mark($0) }
        let total = map.dirtyBytes
        map.clear(Extent(from: .zero, to: settled(start)))
        progress.expect(total, done: total - map.dirtyBytes)
        return map
    }

    /// The earlier run's chunks may have been others.
    private func settled(_ start: ByteOffset) -> ByteOffset {
        min(start, ByteOffset(mover.space.bytes)).rounded(downTo: mover.pieceSize)
    }

    /// Moves what is dirty.
    func drain(_ map: DirtyMap, from start: ByteOffset) async throws(VolumeError) -> Outcome {
        let pieces = Pieces(map, size: mover.pieceSize, grain: mover.grain, from: settled(start), stop: stop)
        let settleFailure = await withTaskGroup(of: VolumeError?.self) { group in
            group.addTask { await self.settleRegularly(pieces) }
            await withTaskGroup { workers in
                for _ in 0..<workerCount { workers.addTask { await self.work(on: pieces) } }
            }
            group.cancelAll()
            return await group.reduce(nil) { $0 ?? $1 }
        }
        if let failure = pieces.failure ?? settleFailure {
            // What was done stands. Saying so may fail like the work did, and the first reason is the one to tell; a
            // volume that doesn't answer isn't asked once more.
            if failure.kind != .unreachable { try? await settle(pieces.settled) }
            throw failure
        }
        guard map.isClean else {
            try await settle(pieces.settled)
            return .stopped
        }
        return .finished
    }

    private func work(on pieces: Pieces) async {
        while let piece = pieces.next() {
            do throws(VolumeError) {
                let counted = await pacing.wait(for: piece.extent, stop: stop, progress)
                // What only waited to be moved isn't under way.
                guard !stop.isAsked else { return pieces.giveBack(piece) }
                let moved = try await mover.move(piece.extent)
                pacing.end(counted: counted, moved: max(moved.found, moved.sent + moved.copied))
                progress.advance(by: piece.dirty, moved)
                pieces.finish(piece)
            } catch {
                return pieces.fail(piece, error)
            }
        }
    }

    /// Makes durable now and then what was done.
    private func settleRegularly(_ pieces: Pieces) async -> VolumeError? {
        while true {
            await time.sleep(Self.settleInterval)
            guard !Task.isCancelled else { return nil }
            do throws(VolumeError) {
                try await settle(pieces.settled)
            } catch {
                stop.ask()
                return error
            }
        }
    }

    private var workerCount: Int {
        max(1, min(Self.mostWorkers, Int(options.inFlight.bytes / max(1, mover.pieceSize.bytes))))
    }

    /// Not coarser than a piece, or a piece couldn't be taken by itself.
    private var granularity: Granularity {
        Granularity(min(options.granularity.size, mover.pieceSize)) ?? options.granularity
    }

    /// A map that takes more than this is a slip of the granularity.
    private static let largestMap = ByteCount.gibibytes(4)

    private func newMap() throws(VolumeError) -> DirtyMap {
        let memory = ByteCount(UInt64(mover.space.pieces(of: granularity.size)) / 8)
        guard memory <= Self.largestMap else {
            throw VolumeError(
                .failed, "dirty map", on: "a volume of \(mover.space.bytes) bytes",
                reason: "it would take \(memory.bytes) bytes of memory",
                advice: "Give a larger --granularity; the same command goes on then.")
        }
        return DirtyMap(size: mover.space, granularity: granularity)
    }
}
