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

    private let map: DirtyMap
    private let size: ByteCount
    private let state: Mutex<State>
    private let stop: StopRequest

    /// - Parameter size: No piece crosses a multiple of it.
    init(_ map: DirtyMap, size: ByteCount, from start: ByteOffset, stop: StopRequest) {
        self.map = map
        self.size = size
        self.stop = stop
        state = Mutex(State(cursor: start, frontier: Frontier(from: start)))
    }

    /// The next piece; nothing once all are given out, or one failed, or a stop was asked for.
    func next() -> Extent? {
        guard !stop.isAsked else { return nil }
        return state.withLock { state in
            guard state.failure == nil, let piece = map.take(from: state.cursor, limit: size, boundary: size) else {
                return nil
            }
            state.cursor = piece.end
            state.frontier.begin(piece)
            return piece
        }
    }

    func finish(_ piece: Extent) { state.withLock { $0.frontier.end(piece) } }

    /// Takes a piece back that wasn't moved.
    func giveBack(_ piece: Extent) { map.mark(piece) }

    /// Takes a piece back that couldn't be moved, and lets no more out.
    func fail(_ piece: Extent, _ error: VolumeError) {
        giveBack(piece)
        state.withLock { state in state.failure = state.failure ?? error }
    }

    /// Lets no more out, as those to come don't matter any more.
    func endEarly() { state.withLock { $0.cursor = ByteOffset(map.size.bytes) } }

    /// Everything before was moved.
    var settled: ByteOffset { state.withLock { $0.frontier.settled } }
    var failure: VolumeError? { state.withLock { $0.failure } }
}
