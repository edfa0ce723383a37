import Conformance
import Mirror
import Synchronization
import Volumes

/// What befalls one run, and how long each of its operations takes: all that it asks of its two volumes and of the hold
/// comes by here.
final class LiveFate: Sendable {
    enum Kind: CaseIterable, Sendable {
        /// The process ends: nothing that comes after has an effect.
        case death
        /// One operation fails, and those after it do not.
        case once
        /// One volume doesn't answer for a while.
        case silence
    }

    struct Blow: Sendable {
        let kind: Kind
        let place: Place
    }

    /// Which operation.
    enum Place: Sendable {
        /// Counted from one.
        case number(Int)
        /// The first of that name.
        case first(String)
    }

    /// Those between which a hand-over may be torn apart.
    static let telling = [
        "source limit, done", "target furnish", "hold rehearse", "hold freeze", "hold freeze, done",
        "source isUnchanged", "target commit", "target commit, done", "hold switchOver", "hold switchOver, done",
        "hold leaveSource", "hold leaveSource, done", "target uncommit", "target uncommit, done", "hold thaw",
        "hold thaw, done", "source release", "source lift", "source retire", "source retire, done", "target forget",
        "target keep, done", "target drop, done", "target alter, done",
    ]

    /// How fast the volumes are.
    struct Speed: Sendable {
        /// What an operation takes besides its bytes.
        var latency: Duration
        /// The same of one that reads or writes bytes.
        var dataLatency: Duration
        var readRate: Double
        var writeRate: Double
    }

    private struct State {
        var count = 0
        var isDead = false
        /// The operation that the blow fell on first.
        var blownAt: (number: Int, object: String)?
        var silences = 0
        var hasLifted = false
        var struck: String?
        var random: SplitMix64
        var trace: UInt64 = 0
        var log: [String] = []
    }

    /// Operations of one volume, or of the hold, that a silence lasts.
    private static let silence = 4
    private static let longestLog = 4000

    private let time: VirtualTime
    private let guest: LiveGuest
    private let speed: Speed
    private let blow: Blow?
    private let keepsLog: Bool
    /// Told that the process has ended.
    private let died: @Sendable () -> Void
    private let state: Mutex<State>

    init(
        _ time: VirtualTime, _ guest: LiveGuest, _ speed: Speed, _ blow: Blow?, seed: UInt64, keepsLog: Bool = false,
        died: @escaping @Sendable () -> Void = {}
    ) {
        self.died = died
        self.time = time
        self.guest = guest
        self.speed = speed
        self.blow = blow
        self.keepsLog = keepsLog
        state = Mutex(State(random: SplitMix64(seed: seed)))
    }

    var isDead: Bool { state.withLock { $0.isDead } }
    /// The operation that failed.
    var struck: String? { state.withLock { $0.struck } }
    /// Whether it came so far that it took back what an earlier run had left.
    var hasLifted: Bool { state.withLock { $0.hasLifted } }
    var operations: Int { state.withLock { $0.count } }
    /// All that was asked, and when, in one number.
    var trace: UInt64 { state.withLock { $0.trace } }
    var log: [String] { state.withLock { $0.log } }

    func fault(of volume: String) -> MemoryVolume.Fault {
        { (operation, extent) throws(VolumeError) in
            try self.pass(volume, operation, extent)
        }
    }

    /// An operation is about to take effect, or to be answered.
    func pass(_ object: String, _ operation: String, _ extent: Extent? = nil) throws(VolumeError) {
        let name = "\(object) \(operation)"
        let now = time.now
        let (failure, cost, hasDied) = state.withLock { state -> (VolumeError.Kind?, Duration, Bool) in
            if state.isDead { return (.failed, .zero, false) }
            if name == "source lift" { state.hasLifted = true }
            state.count += 1
            var mixed = SplitMix64(seed: state.trace)
            state.trace = name.utf8.reduce(mixed.next()) { $0 &* 31 &+ UInt64($1) }
            state.trace ^= UInt64(bitPattern: now.components.attoseconds) &+ (extent?.offset.bytes ?? 0)
            if keepsLog {
                if state.log.count >= 2 * Self.longestLog { state.log.removeFirst(Self.longestLog) }
                state.log.append("\(state.count) \(now.seconds) \(name) \(extent.map { "\($0)" } ?? "")")
            }
            let failure = strike(name, object, &state)
            return (failure, costs(operation, extent, &state.random), state.isDead)
        }
        if hasDied { died() }
        if let failure {
            throw VolumeError(failure, operation, on: "\(object), operation \(operations)", reason: "it was to fail")
        }
        time.spend(cost)
        // The last look whether the source was written to; then a new round, or the end.
        if name == "source isUnchanged" { guest.close(true) }
        if name == "source freeze" { guest.close(false) }
    }

    private func strike(_ name: String, _ object: String, _ state: inout State) -> VolumeError.Kind? {
        guard let blow else { return nil }
        if state.blownAt == nil {
            switch blow.place {
            case .number(let number): if state.count == number { state.blownAt = (number, object) }
            case .first(let operation): if name == operation { state.blownAt = (state.count, object) }
            }
        }
        guard let blown = state.blownAt else { return nil }
        switch blow.kind {
        case .death:
            state.isDead = true
        case .once:
            guard state.count == blown.number else { return nil }
        case .silence:
            guard object == blown.object, state.silences < Self.silence else { return nil }
            state.silences += 1
        }
        state.struck = state.struck ?? name
        return blow.kind == .silence ? .unreachable : .failed
    }

    private func costs(_ operation: String, _ extent: Extent?, _ random: inout SplitMix64) -> Duration {
        guard !operation.hasSuffix(", done") else { return .zero }
        let share = Double.random(in: 0.5...1.5, using: &random)
        switch operation {
        case "read": return bytes(extent, at: speed.readRate) + .seconds(speed.dataLatency.seconds * share)
        case "write": return bytes(extent, at: speed.writeRate) + .seconds(speed.dataLatency.seconds * share)
        case "zero": return .seconds(speed.dataLatency.seconds * share)
        default: return .seconds(speed.latency.seconds * share)
        }
    }

    private func bytes(_ extent: Extent?, at rate: Double) -> Duration {
        .seconds(Double(extent?.length.bytes ?? 0) / rate)
    }
}
