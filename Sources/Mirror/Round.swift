internal import DirtyMap
internal import Synchronization
internal import Volumes

/// Brings the target from one state to the next: fills the dirty map, and moves its pieces, a bounded number at a time.
struct Round {
    /// How often a later run's starting point is made durable: what a kill costs at most is moved again.
    private static let settleInterval = Duration.seconds(5)
    /// More requests than this gain nothing: the OSDs are busy by then (Docs/Decisions/0003).
    private static let mostWorkers = 64
    /// Waiting for one piece longer than this is worth a word.
    private static let patience = Duration.seconds(10)

    let mover: any StepMover
    let options: MoveOptions
    let progress: WorkProgress
    let stop: StopRequest
    /// Makes durable that everything before an offset was moved.
    let settle: @Sendable (ByteOffset) async throws(VolumeError) -> Void

    enum Outcome: Equatable { case finished, stopped }

    /// - Parameter start: Everything before was moved by an earlier run.
    func run(from start: ByteOffset) async throws(VolumeError) -> Outcome {
        let map = DirtyMap(size: mover.space, granularity: granularity)
        // The earlier run's chunks may have been others.
        let start = min(start, ByteOffset(mover.space.bytes)).rounded(downTo: mover.pieceSize)
        try await mover.findExtents { map.mark($0) }
        let total = map.dirtyBytes
        map.clear(Extent(from: .zero, to: start))
        progress.expect(total, done: total - map.dirtyBytes)

        let pieces = Pieces(map, size: mover.pieceSize, from: start, bandwidth: options.bandwidth, stop: stop)
        let upkeepFailure = await withTaskGroup(of: VolumeError?.self) { group in
            group.addTask { await self.keepUp(pieces) }
            await withTaskGroup { workers in
                for _ in 0..<workerCount { workers.addTask { await self.work(on: pieces) } }
            }
            group.cancelAll()
            return await group.next() ?? nil
        }
        if let failure = pieces.failure ?? upkeepFailure {
            // What was done stands; saying so may fail like the work did, and the first reason is the one to tell.
            try? await settle(pieces.settled)
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
                let moved = try await mover.move(piece)
                progress.advance(by: piece.length, moved)
                let wait = pieces.finish(piece, moved)
                if wait > .zero { await pause(wait) }
            } catch {
                return pieces.fail(piece, error)
            }
        }
    }

    /// Sleeps, but not through a stop.
    private func pause(_ duration: Duration) async {
        let end = ContinuousClock.now + duration
        while !stop.isAsked, ContinuousClock.now < end {
            try? await Task.sleep(for: min(.milliseconds(100), end - ContinuousClock.now))
        }
    }

    /// Settles now and then, and says when nothing moves.
    private func keepUp(_ pieces: Pieces) async -> VolumeError? {
        var lastSettled = ContinuousClock.now
        var lastDone = (amount: progress.current.done, at: ContinuousClock.now)
        while true {
            guard (try? await Task.sleep(for: .milliseconds(250))) != nil else { return nil }
            let now = ContinuousClock.now
            let done = progress.current.done
            if done != lastDone.amount { lastDone = (done, now) }
            if now - lastDone.at > Self.patience {
                progress.notice("no answer from the volumes for \((now - lastDone.at).components.seconds) s")
            }
            guard now - lastSettled > Self.settleInterval, !Task.isCancelled else { continue }
            do throws(VolumeError) {
                try await settle(pieces.settled)
            } catch {
                stop.ask()
                return error
            }
            lastSettled = now
        }
    }

    private var workerCount: Int {
        max(1, min(Self.mostWorkers, Int(options.inFlight.bytes / max(1, mover.pieceSize.bytes))))
    }

    /// A chunk must not be larger than a piece, or a piece couldn't be taken by itself.
    private var granularity: Granularity {
        options.granularity.size <= mover.pieceSize
            ? options.granularity : Granularity(mover.pieceSize) ?? options.granularity
    }
}
