import Conformance
import Cutover
import Mirror
import Synchronization
import Volumes

/// Holds the simulated guest, as well as it is told to.
final class LiveHold: WriterHold {
    enum Call: CaseIterable, Sendable { case prepare, adopt, rehearse, freeze, switchOver, leaveSource, thaw }

    enum Slip: CaseIterable, Sendable {
        case failsBefore
        /// It has its effect all the same.
        case failsAfter
        /// Throws only after a long time, without an effect.
        case hangs
        /// The same, and has its effect in the end.
        case hangsAndDoes
        /// Says that the guest is frozen, and it goes on writing.
        case lies
    }

    /// Knows of no other run's.
    private struct State {
        var hasFrozen = false
        /// What goes wrong, once.
        var slip: (call: Call, slip: Slip)?
        var hasSlipped = false
    }

    static let limit = Duration.seconds(3)

    private let time: VirtualTime
    private let guest: LiveGuest
    private let fate: LiveFate
    private let latency: Duration
    let clientsAtSource: Int
    private let state: Mutex<State>

    /// - Parameter clients: Whether the guest keeps the source open while it is held still.
    init(
        _ time: VirtualTime, _ guest: LiveGuest, _ fate: LiveFate, clients: Int, latency: Duration,
        slip: (call: Call, slip: Slip)?
    ) {
        self.time = time
        self.guest = guest
        self.fate = fate
        self.latency = latency
        clientsAtSource = clients
        state = Mutex(State(slip: slip))
    }

    let title = "the simulated guest"
    var hasSlipped: Bool { state.withLock { $0.hasSlipped } }

    func prepare() async throws(VolumeError) { try await call(.prepare, "prepare") {} }

    func adopt() async throws(VolumeError) {
        try await call(.adopt, "adopt") { self.state.withLock { $0.hasFrozen = true } }
    }

    func rehearse() async throws(VolumeError) -> Duration {
        try await call(.rehearse, "rehearse") {}
        return latency
    }

    func freeze() async throws(VolumeError) {
        let slip = state.withLock { $0.slip }
        let lies = slip?.call == .freeze && slip?.slip == .lies
        try await call(.freeze, "freeze") { [self] in
            state.withLock { $0.hasFrozen = true }
            // Who keeps it open can't be seen writing after the last look.
            guest.freeze(
                time.now, closes: clientsAtSource == 0, lies ? (clientsAtSource == 0 ? .defiant : .lateWrites) : .still)
        }
    }

    func switchOver() async throws(VolumeError) {
        // Who keeps the source open isn't sent on while he runs: nobody else could tell.
        guard clientsAtSource == 0 || guest.spot != .source || guest.isFrozen else {
            throw VolumeError(.busy, "switchOver", on: title, reason: "it is running")
        }
        try await call(.switchOver, "switchOver") { [self] in
            guest.checkSwitch()
            guest.switchOver(time.now, keepsSource: clientsAtSource > 0)
            state.withLock { $0.hasFrozen = false }
        }
    }

    func leaveSource() async throws(VolumeError) { try await call(.leaveSource, "leaveSource") { guest.leaveSource() } }

    func thaw() async throws(VolumeError) {
        guard state.withLock({ $0.hasFrozen }) else { return }
        guard guest.spot != .target else {
            throw VolumeError(.busy, "thaw", on: title, reason: "it is at the target already")
        }
        try await call(.thaw, "thaw") { [self] in
            guest.thaw(time.now)
            state.withLock { $0.hasFrozen = false }
        }
    }

    private func call(_ call: Call, _ name: String, _ effect: () -> Void) async throws(VolumeError) {
        try fate.pass("hold", name)
        await time.sleep(latency)
        let slip: Slip? = state.withLock { state in
            guard let slip = state.slip, slip.call == call else { return nil }
            state.slip = nil
            state.hasSlipped = true
            return slip.slip
        }
        func failure(_ kind: VolumeError.Kind) -> VolumeError {
            VolumeError(kind, name, on: title, reason: "it was to fail")
        }
        switch slip {
        case .failsBefore: throw failure(.failed)
        case .failsAfter:
            effect()
            throw failure(.failed)
        case .hangs:
            await time.sleep(Self.limit)
            throw failure(.unreachable)
        case .hangsAndDoes:
            await time.sleep(Self.limit)
            effect()
            throw failure(.unreachable)
        case .lies, nil:
            effect()
        }
        try fate.pass("hold", name + ", done")
    }
}
