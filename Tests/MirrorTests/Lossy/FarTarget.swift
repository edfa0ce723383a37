import Conformance
import Glibc
import NBDVolumes
import NIOCore
import Relay
import RemoteVolumes
import Synchronization
import Volumes

@testable import RelayServer

/// A target at another host: a receiver, moves at the near side, and the lossy link between them. Decided by a seed.
final class FarTarget: TargetWay, Dialer {
    /// What befalls the link while a run uses it.
    enum Blow: Sendable {
        case line(Line.Break)
        /// Nothing moves for so long.
        case stall(Duration)
        /// The receiver dies, and comes back.
        case death
    }

    /// Once it comes to that.
    enum Place: Sendable {
        /// Bytes that were sent in a run, of all connections.
        case bytes(Line.Way, Int)
        /// What the receiver is about to do, or has done and not answered.
        case operation(String, number: Int)
    }

    struct Setting {
        var options = RelayOptions()
        /// One way, about.
        var latency: Duration
        /// Bytes a second.
        var rate: Double
        var inFlight: ByteCount
    }

    /// One life of the receiver.
    private final class Receiver: Sendable {
        let isDead = Atomic(false)
        let sessions = Mutex<Sessions?>(nil)
    }

    private struct State {
        var random: SplitMix64
        var lines: [Line] = []
        var receiver: Receiver?
        /// The receiver is dead until then.
        var isDownUntil = Duration.zero
        var fate: LiveFate?
        var blow: (blow: Blow, place: Place)?
        var sent: [Line.Way: Int] = [:]
        var done: [String: Int] = [:]
        var wasDisturbed = false
        var struck: String?
    }

    /// Where the near side loses an answer, and must look what became of what it asked; those that tell most, more
    /// often.
    private static let telling = [
        "make", "own", "drop", "alter", "resize", "zero", "furnish", "uncommit", "forget", "state", "describe", "kept",
        "open", "write", "write", "write", "keep", "keep", "flush", "flush", "flush", "flush", "save", "save", "save",
        "save", "commit", "commit", "commit",
    ]

    /// What a hand-over asks for, one after another, once it has reckoned by the last round's bytes how long it will
    /// take, and what that reckoning leaves out: the last change, the flush, the arrival's record, what is kept, a
    /// verification's opening, digests and closing, the record of the commit, the commit.
    private static let roundTrips = 9.0

    private let site: Site
    private let time: VirtualTime
    private let setting: Setting
    private let (nearLoop, farLoop): (VirtualLoop, VirtualLoop)
    private let state: Mutex<State>

    init(_ site: Site, _ time: VirtualTime, seed: UInt64) {
        (self.site, self.time) = (site, time)
        (nearLoop, farLoop) = (VirtualLoop(time), VirtualLoop(time))
        var random = SplitMix64(seed: seed)
        setting = Setting(&random)
        state = Mutex(State(random: random))
    }

    var wasDisturbed: Bool { state.withLock { $0.wasDisturbed } }
    /// What befell the run that is under way, in words.
    var struck: String? { state.withLock { $0.struck } }
    var inFlight: ByteCount { setting.inFlight }
    var pauseAllowance: Duration { .seconds(Self.roundTrips * 2 * 1.5 * setting.latency.seconds) }

    // MARK: Runs

    func begin(_ fate: LiveFate?, breaks: Bool) {
        state.withLock { state in
            state.fate = fate
            (state.sent, state.done) = ([:], [:])
            state.lines.removeAll { !$0.isOpenAtFarEnd && !$0.near.isActive }
            state.wasDisturbed = state.lines.contains { $0.isOpenAtFarEnd } || time.now < state.isDownUntil
            state.struck = nil
            state.blow = breaks && Int.random(in: 0..<4, using: &state.random) > 0 ? Self.blow(&state.random) : nil
        }
    }

    private static func blow(_ random: inout SplitMix64) -> (Blow, Place) {
        let blow: Blow =
            switch Int.random(in: 0..<8, using: &random) {
            case 0..<2: .line(.reset)
            case 2..<4: .line(.silence)
            case 4: .stall(.seconds(Double.random(in: 0.1...8, using: &random)))
            default: .death
            }
        if Int.random(in: 0..<3, using: &random) == 0 {
            let way = Line.Way.allCases.randomElement(using: &random) ?? .there
            let most = [300, 3000, 30_000, 300_000].randomElement(using: &random) ?? 300
            return (blow, .bytes(way, Int.random(in: 1...most, using: &random)))
        }
        let name = telling.randomElement(using: &random) ?? "commit"
        let isDone = Bool.random(using: &random)
        // The others come about once in a run.
        let isFrequent = ["write", "zero", "save", "keep", "kept", "flush"].contains(name)
        let number = isFrequent ? [1, 1, 2, 3, 5, 8, 20].randomElement(using: &random) ?? 1 : 1
        return (blow, .operation(name + (isDone ? ", done" : ""), number: number))
    }

    func open() async throws(VolumeError) -> any TargetVolume {
        let address = RelayAddress(server: .tcp(host: "far", port: 10_808), target: "rbd:slow/v")
        guard let target = try await RemoteTarget.connect(to: address, options: setting.options, dialer: self) else {
            throw VolumeError(.unsupported, "connect", on: address.text, reason: "it is no receiver")
        }
        return target
    }

    func cut() {
        let lines = state.withLock { state in
            state.fate = nil
            state.blow = nil
            return state.lines
        }
        for line in lines {
            line.end(from: line.near)
            nearLoop.execute { line.near.close(promise: nil) }
        }
    }

    /// What it had sent is the receiver's, which lives on.
    func crash(seed: UInt64) {}

    /// Often at once, while what the one before had sent is on its way still.
    func rest(_ drawn: Duration) -> Duration {
        state.withLock { Int.random(in: 0..<3, using: &$0.random) == 0 ? drawn / 100 : drawn }
    }

    func settle() async {
        // As long as it takes an end to notice that the other is gone.
        for _ in 0..<600 {
            let isOver = state.withLock { state in
                state.lines.removeAll { !$0.isOpenAtFarEnd && !$0.near.isActive }
                return state.lines.isEmpty && time.now >= state.isDownUntil
            }
            if isOver { break }
            await time.sleep(.milliseconds(100))
        }
        // And its session to let go.
        await time.sleep(.milliseconds(50))
    }

    func close() async {
        cut()
        kill(losing: false)
        await settle()
    }

    // MARK: The link

    func connect<Prepared: Sendable>(
        to server: NBDAddress.Server, limit: Duration,
        _ initialize: @escaping @Sendable (any Channel) -> EventLoopFuture<Prepared>
    ) async throws -> Prepared {
        // There and back.
        await time.sleep(setting.latency * 2)
        guard let receiver = standing() else {
            state.withLock { $0.wasDisturbed = true }
            throw IOError(errnoCode: ECONNREFUSED, reason: "connect")
        }
        let (near, far) = (LineEnd(on: nearLoop, isEager: true), LineEnd(on: farLoop, isEager: false))
        let line = state.withLock { state in
            let line = Line(
                time, near: (near, nearLoop), far: (far, farLoop), latency: setting.latency, rate: setting.rate,
                seed: state.random.next()
            ) { [weak self] way, count in self?.spend(way, count) }
            state.lines.append(line)
            return line
        }
        farLoop.execute { [farLoop] in
            guard let sessions = receiver.sessions.withLock({ $0 }) else { return }
            try? far.pipeline.syncOperations.addHandler(RelayConnection(among: sessions, nil, on: farLoop))
            far.connect(line)
        }
        return try await nearLoop.flatSubmit {
            let prepared = initialize(near)
            near.connect(line)
            return prepared
        }.get()
    }

    /// Bytes are about to be sent.
    private func spend(_ way: Line.Way, _ count: Int) -> (Int, Line.Break)? {
        let (blow, room) = state.withLock { state -> (Blow?, Int) in
            let before = state.sent[way, default: 0]
            state.sent[way] = before + count
            guard let (blow, place) = state.blow, case .bytes(way, let most) = place, before + count >= most else {
                return (nil, 0)
            }
            state.blow = nil
            state.wasDisturbed = true
            state.struck = "\(blow) after \(most) bytes \(way)"
            return (blow, most - before)
        }
        switch blow {
        case nil: return nil
        case .line(let kind): return (room, kind)
        case .stall(let delay):
            stall(for: delay)
            return nil
        case .death:
            kill(losing: true)
            return (room, .reset)
        }
    }

    private func stall(for delay: Duration) {
        for line in state.withLock({ $0.lines }) { line.stall(for: delay) }
    }

    // MARK: The receiver

    /// Who listens; nothing while nobody does.
    private func standing() -> Receiver? {
        state.withLock { state -> Receiver? in
            guard time.now >= state.isDownUntil else { return nil }
            if let receiver = state.receiver { return receiver }
            let receiver = Receiver()
            let sessions = Sessions(
                Allowances([.images(pool: "slow", namespace: "", access: Self.access)]), limits: RelayLimits(),
                notice: { _ in }, executor: time, time: time.keeper
            ) { [site, weak self] address, _ throws(VolumeError) in
                Site.targetVolume(at: site.target) { [weak self] (operation, extent) throws(VolumeError) in
                    try self?.pass(operation, extent, receiver)
                }
            }
            receiver.sessions.withLock { $0 = sessions }
            state.receiver = receiver
            return receiver
        }
    }

    private static let access: RBDAddress = {
        guard case .images(_, _, let access) = try? Allowance("rbd:slow") else { preconditionFailure("a pool") }
        return access
    }()

    /// The receiver is about to do something, or has done it.
    private func pass(_ operation: String, _ extent: Extent?, _ receiver: Receiver) throws(VolumeError) {
        func checkLife() throws(VolumeError) {
            guard receiver.isDead.load(ordering: .relaxed) else { return }
            throw VolumeError(.failed, operation, on: "the target", reason: "its receiver is dead")
        }
        try checkLife()
        let (blow, lines, fate) = state.withLock { state -> (Blow?, [Line], LiveFate?) in
            state.done[operation, default: 0] += 1
            guard case (let blow, .operation(operation, let number))? = state.blow,
                state.done[operation] == number
            else { return (nil, [], state.fate) }
            state.blow = nil
            state.wasDisturbed = true
            state.struck = "\(blow) at \(operation) \(number)"
            return (blow, state.lines, state.fate)
        }
        switch blow {
        case .line(let kind): for line in lines { line.break(kind) }
        case .stall(let delay): stall(for: delay)
        case .death: kill(losing: true)
        case nil: break
        }
        try checkLife()
        // Whoever asked for it may have died meanwhile: it is done all the same.
        guard let fate, !fate.isDead else { return }
        do throws(VolumeError) {
            try fate.pass("target", operation, extent)
        } catch {
            if !fate.isDead { throw error }
        }
    }

    /// The receiver dies.
    private func kill(losing: Bool) {
        let (lines, seed) = state.withLock { state in
            state.receiver?.isDead.store(true, ordering: .relaxed)
            state.receiver = nil
            state.isDownUntil = time.now + .seconds(Double.random(in: 0...2, using: &state.random))
            return (state.lines, state.random.next())
        }
        var lost = SplitMix64(seed: seed)
        let isHost = Bool.random(using: &lost)
        if losing { site.target.crash { _ in Bool.random(using: &lost) } }
        for line in lines {
            // A host that is gone tells nobody.
            line.break(isHost && losing ? .silence : .reset)
            farLoop.execute { line.far.close(promise: nil) }
        }
    }
}

extension FarTarget.Setting {
    init(_ random: inout SplitMix64) {
        latency = .microseconds(Int64([200, 2000, 10_000, 40_000].randomElement(using: &random) ?? 200))
        rate = [1e6, 1e7, 1e8].randomElement(using: &random) ?? 1e7
        inFlight = [ByteCount(1), .kibibytes(64), .mebibytes(1)].randomElement(using: &random) ?? ByteCount(1)
        options.connections = Int.random(in: 1...4, using: &random)
        options.compress = RelayOptions.Compress.allCases.randomElement(using: &random) ?? .auto
        options.acceleration = Int.random(in: 1...8, using: &random)
    }
}
