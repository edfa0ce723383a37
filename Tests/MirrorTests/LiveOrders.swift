import Conformance
import Mirror
import Synchronization
import Volumes

/// Whoever watches over a run: gives orders at any time, and sees to it in the end that it comes to one.
final class LiveOperator: Sendable {
    enum Order: Sendable {
        case pause, resume, cutover, cancel, stop
        case throttle(MoveControls.Throttle)
        case bandwidth(ByteRate?)
        /// The guest's own, where nobody holds it still.
        case leave, comeBack
        /// Nothing stands in the way of an end any more.
        case hurry
        case giveUp
    }

    private struct State {
        /// The next is the last.
        var orders: [(at: Duration, order: Order)]
        var given: Set<String> = []
    }

    /// After that time it is hurried on, and after the other it is seen as hung.
    private static let patience = Duration.seconds(60)
    private static let longest = Duration.seconds(900)

    let controls: MoveControls
    let stop = StopRequest()
    private let guest: LiveGuest
    /// Whether the guest goes by itself.
    private let leaves: Bool
    private let state: Mutex<State>

    init(_ guest: LiveGuest, _ start: Duration, count: Int, leaves: Bool, _ random: inout SplitMix64) {
        controls = MoveControls()
        self.guest = guest
        self.leaves = leaves
        func moment(_ latest: Double) -> Duration { start + .seconds(Double.random(in: 0...latest, using: &random)) }
        func rate() -> ByteRate { ByteRate(bytesPerSecond: .random(in: 20_000...2_000_000, using: &random)) }
        var orders: [(at: Duration, order: Order)] = [
            (start + Self.patience, .hurry), (start + Self.longest, .giveUp),
        ]
        for _ in 0..<count {
            let at = moment(8)
            switch Int.random(in: 0..<14, using: &random) {
            case 0..<3:
                orders.append((at, .pause))
                orders.append((at + .seconds(Double.random(in: 0...6, using: &random)), .resume))
            case 3..<6: orders.append((at, .cutover))
            case 6..<9:
                let throttles: [MoveControls.Throttle] = [.auto, .off, .limit(rate())]
                orders.append((at, .throttle(throttles.randomElement(using: &random) ?? .auto)))
            case 9..<11: orders.append((at, .bandwidth(Bool.random(using: &random) ? rate() : nil)))
            case 11: orders.append((at, .cancel))
            default: orders.append((at, .stop))
            }
        }
        if leaves {
            let at = moment(10)
            orders.append((at, .leave))
            if Int.random(in: 0..<4, using: &random) == 0 {
                let back = at + .milliseconds(Int64.random(in: 1...2000, using: &random))
                orders.append((back, .comeBack))
                orders.append((back + .milliseconds(Int64.random(in: 1...5000, using: &random)), .leave))
            }
        }
        state = Mutex(State(orders: orders.sorted { $0.at > $1.at }))
    }

    var next: Duration? { state.withLock { $0.orders.last?.at } }

    /// Whether it asked for an end before the end.
    var hasStopped: Bool { stop.isAsked }
    var hasForced: Bool { controls.isCutoverAsked }
    var isHung: Bool { state.withLock { $0.orders.isEmpty } }
    /// Whether the guest came back in between.
    var hasReturned: Bool { state.withLock { $0.given.contains("comeBack") } }
    var hasPaused: Bool { state.withLock { $0.given.contains("pause") } }

    func act() {
        guard let order = state.withLock({ $0.orders.popLast()?.order }) else { return }
        state.withLock { _ = $0.given.insert("\(order)") }
        switch order {
        case .pause: controls.isPaused = true
        case .resume: controls.isPaused = false
        // Who waits until the clients have left can't be asked to.
        case .cutover: if !controls.isPaused && !leaves { controls.isCutoverAsked = true }
        case .cancel:
            controls.isCancelled = true
            controls.isPaused = false
            stop.ask()
        case .stop: stop.ask()
        case .throttle(let throttle): controls.throttle = throttle
        case .bandwidth(let rate): controls.bandwidth = rate
        case .leave: guest.leave()
        case .comeBack: guest.comeBack()
        case .hurry:
            controls.isPaused = false
            controls.throttle = .auto
            controls.bandwidth = nil
            guest.rest()
            if leaves { guest.leave() }
            controls.isCutoverAsked = true
        case .giveUp: stop.ask()
        }
    }
}
