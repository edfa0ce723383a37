import Conformance
import Glibc
import NIOCore
import Synchronization
import Volumes

/// A simulated connection between two ends: what is sent at one arrives at the other in order, in pieces, and late; up
/// to the byte at which it breaks.
final class Line: Sendable {
    enum Way: Sendable, CaseIterable {
        /// From the near side to the far one.
        case there
        case back
    }

    /// How a connection breaks.
    enum Break: Sendable, CaseIterable {
        /// Both ends are told soon, each by itself.
        case reset
        /// Nothing arrives any more: the ends find out by themselves (`noticeDeadPeers`).
        case silence
    }

    private struct State {
        var random: SplitMix64
        /// When the last of what was sent so far arrives.
        var last: [Way: Duration] = [:]
        var hasEnded: Set<Way> = []
        /// Whether nothing that is sent arrives any more.
        var isBroken = false
        /// Where what was on its way as it broke arrives all the same.
        var isKept: Set<Way> = []
    }

    /// Pieces that one write is cut into at most, so that a long one costs no more than a short one.
    private static let mostPieces = 12

    let near: LineEnd
    let far: LineEnd
    private let time: VirtualTime
    private let loops: [Way: VirtualLoop]
    private let latency: Duration
    /// Bytes a second.
    private let rate: Double
    /// Told how many bytes are about to be sent: says how many of them arrive, and how it breaks then; nothing if all do.
    private let budget: @Sendable (Way, Int) -> (Int, Break)?
    private let state: Mutex<State>

    init(
        _ time: VirtualTime, near: (LineEnd, VirtualLoop), far: (LineEnd, VirtualLoop), latency: Duration, rate: Double,
        seed: UInt64, budget: @escaping @Sendable (Way, Int) -> (Int, Break)?
    ) {
        self.time = time
        (self.near, self.far) = (near.0, far.0)
        loops = [.there: far.1, .back: near.1]
        (self.latency, self.rate, self.budget) = (latency, rate, budget)
        state = Mutex(State(random: SplitMix64(seed: seed)))
    }

    /// Whether both ends still have it.
    var stands: Bool { state.withLock { !$0.isBroken && $0.hasEnded.isEmpty } }
    /// Whether the far end still has it.
    var isOpenAtFarEnd: Bool { far.isActive }

    private func end(_ way: Way) -> LineEnd { way == .there ? far : near }

    /// When what is sent now arrives.
    private func arrival(_ way: Way, _ count: Int, _ state: inout State) -> Duration {
        let delay = latency.seconds * Double.random(in: 0.5...1.5, using: &state.random) + Double(count) / rate
        // A long delay of one piece delays those behind it.
        let moment = max(state.last[way] ?? .zero, time.now + .seconds(delay))
        state.last[way] = moment
        return moment
    }

    private func at(_ moment: Duration, _ way: Way, _ body: @escaping @Sendable () -> Void) {
        guard let loop = loops[way] else { return }
        time.call(at: moment) { loop.execute(body) }
    }

    /// - Parameter taken: Told, once, whether there is room for more.
    func send(_ bytes: ByteBuffer, from sender: LineEnd, taken: @escaping @Sendable (Bool) -> Void) {
        let way: Way = sender === near ? .there : .back
        let end = end(way)
        let limit = budget(way, bytes.readableBytes)
        var rest = bytes
        let pieces: [(Duration, ByteBuffer)]? = state.withLock { state in
            guard !state.isBroken, !state.hasEnded.contains(way) else { return nil }
            if let (room, _) = limit {
                rest = rest.getSlice(at: rest.readerIndex, length: min(room, rest.readableBytes)) ?? ByteBuffer()
            }
            var pieces: [(Duration, ByteBuffer)] = []
            let least = rest.readableBytes / Self.mostPieces + 1
            while rest.readableBytes > 0 {
                let wanted = [1, 20, 400, 1460, 1 << 16].randomElement(using: &state.random) ?? 1
                let count = min(rest.readableBytes, max(least, wanted))
                guard let piece = rest.readSlice(length: count) else { break }
                pieces.append((arrival(way, count, &state), ByteBuffer(bytes: piece.readableBytesView)))
            }
            return pieces
        }
        guard let pieces else { return at(time.now, way == .there ? .back : .there) { taken(true) } }
        for (moment, piece) in pieces {
            at(moment, way) { [self] in
                if state.withLock({ !$0.isBroken || $0.isKept.contains(way) }) { end.receive(piece) }
            }
        }
        let last = pieces.last?.0 ?? time.now
        at(last, way == .there ? .back : .there) { taken(true) }
        if let (_, kind) = limit { `break`(kind, keeping: way) }
    }

    /// An end has closed it: the other is told after all that was sent before.
    func end(from sender: LineEnd) {
        let way: Way = sender === near ? .there : .back
        let moment: Duration? = state.withLock { state in
            guard state.hasEnded.insert(way).inserted, !state.isBroken else { return nil }
            return arrival(way, 0, &state)
        }
        guard let moment else { return }
        let end = end(way)
        at(moment, way) { end.endInput() }
    }

    /// All that is sent from now on is delayed by so much, and what is on its way stays where it was.
    func stall(for delay: Duration) {
        state.withLock { state in
            for way in Way.allCases { state.last[way] = max(state.last[way] ?? .zero, time.now) + delay }
        }
    }

    /// - Parameter way: Where all that is on its way arrives; elsewhere it does, or doesn't.
    func `break`(_ kind: Break, keeping kept: Way? = nil) {
        let moments: [Way: Duration] = state.withLock { state in
            guard !state.isBroken else { return [:] }
            state.isBroken = true
            var moments: [Way: Duration] = [:]
            for way in Way.allCases {
                if way == kept || Bool.random(using: &state.random) { state.isKept.insert(way) }
                let wait: Double =
                    switch kind {
                    case .reset: latency.seconds * Double.random(in: 0...3, using: &state.random)
                    case .silence: Double.random(in: 10...30, using: &state.random)
                    }
                // All of it before its receiver is told.
                let last = state.isKept.contains(way) ? state.last[way] ?? .zero : .zero
                moments[way] = max(last, time.now + .seconds(wait))
            }
            return moments
        }
        for way in Way.allCases {
            guard let moment = moments[way] else { continue }
            let end = end(way)
            at(moment, way) { end.fail(IOError(errnoCode: kind == .reset ? ECONNRESET : ETIMEDOUT, reason: "read")) }
        }
    }
}
