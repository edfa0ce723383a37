import Conformance
import Convergence
import Cutover
import Gate
import Mirror
import Synchronization
import Volumes

/// A volume, its place to be, and clients that go on with it through a gate, whatever becomes of the move.
final class Scene: Sendable {
    static let size = 1 << 18

    let source = MemoryVolume.Place(extentUnit: .kibibytes(64))
    let target = MemoryVolume.Place(extentUnit: .kibibytes(64))
    let ledger = Ledger(size: size)
    let violations = Violations()
    let seed: UInt64
    /// Whether the last round moves the head itself, instead of a state of it.
    let takesStillHeads: Bool

    init(seed: UInt64, takesStillHeads: Bool = false) {
        (self.seed, self.takesStillHeads) = (seed, takesStillHeads)
        source.make(size: ByteCount(UInt64(Self.size)))
    }

    /// Whether the record says that the clients are at the target.
    var saysSwitched: Bool { target.record?.contains("\"phase\":\"switched\"") ?? (target.names == ["finished"]) }

    func run(
        _ fate: Fate = Fate(), maxPause: Duration = .seconds(2), cutover: LiveOptions.Cutover = .manual,
        through wrap: @Sendable (any TargetVolume, Gate) -> any TargetVolume = { target, _ in target }
    ) -> Run {
        Run(self, fate, maxPause: maxPause, cutover: cutover, through: wrap)
    }

    /// While nobody serves the volume, somebody discards some of it, unless it was left already.
    func discard(_ sectors: Range<Int>) {
        guard !saysSwitched else { return }
        source.zero(sectors.extent)
        ledger.begin(sectors, 0)
        ledger.end(sectors, 0)
    }

    /// All that was acknowledged is there, and nothing else.
    func check(_ gate: Gate) async {
        do throws(VolumeError) {
            let bytes = try await gate.bytes(in: 0..<Self.size)
            if let what = ledger.violation(bytes) { violations.note("through the gate: \(what)") }
        } catch {
            violations.note("it can't be read: \(error)")
        }
    }
}

/// What befalls a run: all that it asks of its volumes comes by here.
final class Fate: Sendable {
    /// One operation: "target commit, done", "source isUnchanged".
    enum Place: Sendable {
        case named(String)
        /// The first of that name after another.
        case after(String, String)
        /// The target's, counted from one.
        case number(Int)
    }

    enum Blow: Sendable {
        case once(VolumeError.Kind)
        /// From there on the target doesn't answer.
        case silence
        case death
    }

    private struct State {
        var isArmed: Bool
        var count = 0
        var seen: Set<String> = []
        var isStruck = false
        var isSilent = false
        var isDead = false
    }

    private let place: Place?
    private let blow: Blow
    private let state: Mutex<State>

    /// - Parameter isArmed: Whether it may befall from the beginning on, and not only once a test says so.
    init(_ place: Place? = nil, _ blow: Blow = .once(.failed), isArmed: Bool = true) {
        (self.place, self.blow) = (place, blow)
        state = Mutex(State(isArmed: isArmed))
    }

    var isStruck: Bool { state.withLock(\.isStruck) }
    var isDead: Bool { state.withLock(\.isDead) }
    func arm() { state.withLock { $0.isArmed = true } }

    func pass(_ object: String, _ operation: String) throws(VolumeError) {
        let name = "\(object) \(operation)"
        let kind: VolumeError.Kind? = state.withLock { state in
            if state.isDead { return .busy }
            if object == "target" { state.count += 1 }
            if state.isArmed, !state.isStruck, isAt(name, &state) {
                state.isStruck = true
                switch blow {
                case .once(let kind): return kind
                case .silence:
                    state.isSilent = true
                    // Who opens it notices as well.
                    if object == "client" { return .unreachable }
                case .death:
                    state.isDead = true
                    return .busy
                }
            }
            state.seen.insert(name)
            return state.isSilent && object == "target" ? .unreachable : nil
        }
        if let kind { throw VolumeError(kind, operation, on: object, reason: "it was to fail") }
    }

    private func isAt(_ name: String, _ state: inout State) -> Bool {
        switch place {
        case .named(let wanted): name == wanted
        case .after(let wanted, let before): name == wanted && state.seen.contains(before)
        case .number(let number): state.count == number
        case nil: false
        }
    }
}

/// One run of the command.
final class Run: Sendable {
    let scene: Scene
    let fate: Fate
    let gate = Gate()
    let hold: GateHold
    let stop = StopRequest()
    let controls = MoveControls()
    let status = LiveStatus()
    private let move: Move
    private let isOver = Mutex(false)

    fileprivate init(
        _ scene: Scene, _ fate: Fate, maxPause: Duration, cutover: LiveOptions.Cutover,
        through wrap: @Sendable (any TargetVolume, Gate) -> any TargetVolume
    ) {
        (self.scene, self.fate) = (scene, fate)
        let source = MemoryVolume(at: scene.source, address: "memory:source") { (operation, _) throws(VolumeError) in
            if Self.isChange(operation), scene.saysSwitched {
                scene.violations.note("\(operation) at the source, while the record says that its clients left it")
            }
            try fate.pass("source", operation)
        }
        let target = MemoryVolume(at: scene.target, address: "memory:target") { (operation, _) throws(VolumeError) in
            try fate.pass("target", operation)
        }
        hold = GateHold(title: "a gate", gate: gate, source: source) { () throws(VolumeError) in
            // As its users have it: a connection of its own.
            MemoryVolume(at: scene.target, address: "memory:target") { (operation, _) throws(VolumeError) in
                if Self.isChange(operation), !scene.saysSwitched {
                    scene.violations.note("\(operation) at the target, before the record says so")
                }
                try fate.pass("client", operation)
            }
        }
        var options = MoveOptions()
        options.granularity = Granularity(Granularity.smallest)!
        options.inFlight = .kibibytes(64)
        var live = LiveOptions()
        live.hold = hold
        live.cutover = cutover
        live.convergence = Convergence.Settings(maxPause: maxPause)
        options.live = live
        controls.isCutoverAsked = cutover == .manual
        let way = wrap(target, gate)
        move = Move(
            from: source, to: scene.takesStillHeads ? StillTarget(inner: way) : way, options: options, stop: stop,
            controls: controls, status: status)
    }

    private static func isChange(_ operation: String) -> Bool {
        ["write", "zero", "discard", "flush"].contains { operation == $0 || operation == $0 + ", done" }
    }

    /// The move, with its clients at work as soon as they can, and for a while after it; `body` meanwhile.
    /// - Returns: What it failed with.
    @discardableResult
    func go(_ body: @Sendable @escaping (Run) async throws -> Void = { _ in }) async throws -> MoveError? {
        let crew = Crew(
            gate: gate, ledger: scene.ledger, seed: scene.ledger.newStamp() &+ scene.seed, violations: scene.violations)
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                while !self.gate.hasOpened, !self.isOver.withLock({ $0 }) {
                    try await Task.sleep(for: .milliseconds(1))
                }
                if self.gate.hasOpened { await crew.work { self.isOver.withLock { $0 } } }
            }
            group.addTask { try await body(self) }
            let failure = await run()
            // They go on where they are.
            if !gate.isShut, !fate.isDead { try await Task.sleep(for: .milliseconds(20)) }
            isOver.withLock { $0 = true }
            if gate.isShut || fate.isDead { gate.abandon() }
            try await group.waitForAll()
            if gate.hasOpened, !fate.isDead { await scene.check(gate) }
            return failure
        }
    }

    private func run() async -> MoveError? {
        do throws(MoveError) {
            _ = try await move.run()
            try await staged(.underWay) { () throws(VolumeError) in try await hold.leaveSource() }
            return nil
        } catch {
            return error
        }
    }
}
