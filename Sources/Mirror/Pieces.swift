internal import DirtyMap
internal import Synchronization
internal import Volumes

/// Gives out the dirty pieces of a map in order, to several workers, and keeps account of them.
final class Pieces: Sendable {
    private struct State {
        var cursor: ByteOffset
        var frontier: Frontier
        var failure: VolumeError?
    }

    struct Piece: Sendable {
        let extent: Extent
        /// How much of it was dirty.
        let dirty: ByteCount
    }

    private let map: DirtyMap
    private let size: ByteCount
    private let grain: ByteCount
    private let state: Mutex<State>
    private let stop: StopRequest

    /// - Parameters:
    ///   - size: No piece crosses a multiple of it. The map's granularity, or a multiple of that.
    ///   - grain: A piece begins and ends at a multiple of it, clean chunks within or not.
    init(_ map: DirtyMap, size: ByteCount, grain: ByteCount, from start: ByteOffset, stop: StopRequest) {
        self.map = map
        self.size = size
        self.grain = max(grain, map.granularity.size)
        self.stop = stop
        state = Mutex(State(cursor: start, frontier: Frontier(from: start)))
    }

    /// The next piece; nothing once all are given out, or one failed, or a stop was asked for.
    func next() -> Piece? {
        guard !stop.isAsked else { return nil }
        return state.withLock { state in
            guard state.failure == nil, let run = map.take(from: state.cursor, limit: size, boundary: size) else {
                return nil
            }
            let end = min(run.end.rounded(upTo: grain), ByteOffset(map.size.bytes))
            let extent = Extent(from: run.offset.rounded(downTo: grain), to: end)
            var dirty = run.length
            while let more = map.take(from: run.end, within: extent) { dirty += more.length }
            state.cursor = extent.end
            state.frontier.begin(extent)
            return Piece(extent: extent, dirty: dirty)
        }
    }

    func finish(_ piece: Piece) { state.withLock { $0.frontier.end(piece.extent) } }

    /// Takes a piece back that wasn't moved.
    func giveBack(_ piece: Piece) { map.mark(piece.extent) }

    /// Takes a piece back that couldn't be moved, and lets no more out.
    func fail(_ piece: Piece, _ error: VolumeError) {
        giveBack(piece)
        state.withLock { state in state.failure = state.failure ?? error }
    }

    /// Lets no more out, as those to come don't matter any more.
    func endEarly() { state.withLock { $0.cursor = ByteOffset(map.size.bytes) } }

    /// Everything before was moved.
    var settled: ByteOffset { state.withLock { $0.frontier.settled } }
    var failure: VolumeError? { state.withLock { $0.failure } }
}
