import Conformance
import Mirror
import Synchronization
import Volumes

/// Whoever uses a volume while it is moved: a machine that writes, discards and resizes, and its owner, who takes,
/// removes, renames and protects snapshots. It remembers all that was acknowledged, apart from any volume.
final class LiveGuest: Sendable {
    enum Spot: Sendable { case source, target, away }

    /// What it does while it is held still.
    enum Stillness: Sendable {
        case still
        /// Goes on writing until the move has looked for the last time.
        case lateWrites
        /// Goes on writing, whatever anybody looks at.
        case defiant
    }

    /// How it goes about.
    struct Ways: Sendable {
        /// Bytes a second that it would write if nobody held it back.
        var rate = 100_000.0
        var largestWrite = 32_768
        var resizes = true
        /// Between two things that the owner does.
        var ownersPause = Duration.seconds(3)
        /// Sizes are multiples of it.
        var sector = 512
        var largestSize = 1200
        /// How much of the volume it writes to.
        var share = 1.0
    }

    struct Pause: Sendable {
        let start: Duration
        let end: Duration
        var length: Duration { end - start }
    }

    struct Kept: Sendable {
        var name: String
        var isProtected: Bool
        let bytes: [UInt8]
    }

    struct State {
        var random: SplitMix64
        var spot = Spot.source
        var isFrozen = false
        var stillness = Stillness.still
        /// Whether the move has looked for the last time whether the source was written to.
        var isClosing = false
        var bytes: [UInt8] = []
        var kept: [Kept] = []
        var names = 0
        var writes = 0
        var nextWrite = Duration.zero
        /// Administrators don't do that all the time.
        var nextResize = Duration.zero
        var nextOwner = Duration.zero
        var isResting = false
        var frozenSince: Duration?
        var pauses: [Pause] = []
        /// What must not have come about.
        var violations: [String] = []
        /// Whether it has the source open besides the target, and only reads there.
        var keepsSource = false
    }

    static let writer = Writer(title: "the guest", client: "guest")

    let site: Site
    let ways: Ways
    /// Any slice of it is unlike any other.
    private let noise: [UInt8]
    private let zeros: [UInt8]
    let state: Mutex<State>

    init(at site: Site, size: Int, ways: Ways, seed: UInt64) {
        self.site = site
        self.ways = ways
        var random = SplitMix64(seed: seed)
        noise = random.bytes(ways.largestWrite + 8192)
        zeros = [UInt8](repeating: 0, count: max(ways.largestSize * ways.sector, ways.largestWrite))
        state = Mutex(State(random: random, bytes: Array(zeros[0..<size])))
        site.source.attach(Self.writer)
    }

    var spot: Spot { state.withLock { $0.spot } }
    var isFrozen: Bool { state.withLock { $0.isFrozen } }
    var violations: [String] { state.withLock { $0.violations } }
    func accuse(_ what: String) { state.withLock { $0.violations.append(what) } }

    private func place(_ state: borrowing State) -> Place? {
        switch state.spot {
        case .source: site.source
        case .target: site.target
        case .away: nil
        }
    }

    // MARK: What it does by itself

    /// When it does something next.
    var next: Duration { state.withLock { min($0.nextWrite, $0.nextOwner) } }

    func act(_ now: Duration) {
        state.withLock { state in
            if state.nextWrite <= now { machine(&state, now) }
            if state.nextOwner <= now { owner(&state, now) }
        }
    }

    private func machine(_ state: inout State, _ now: Duration) {
        state.nextWrite = now + .milliseconds(5)
        guard let place = place(state), place.writers.contains(Self.writer) else { return }
        if state.isFrozen {
            switch state.stillness {
            case .still: return
            case .lateWrites where state.isClosing: return
            case .lateWrites, .defiant: break
            }
        }
        let count = change(&state, at: place, now)
        let limit = place.limit.map { Double($0.bytesPerSecond) } ?? .infinity
        let seconds = Double(count) / max(1, min(ways.rate, limit))
        state.nextWrite = now + .seconds(seconds * Double.random(in: 0.5...1.5, using: &state.random))
    }

    /// - Returns: How many bytes that counts for.
    private func change(_ state: inout State, at place: Place, _ now: Duration) -> Int {
        let size = state.bytes.count
        let reach = max(1, Int(Double(size) * ways.share))
        func extent(_ longest: Int, _ random: inout SplitMix64) -> Range<Int> {
            var start = Int.random(in: 0..<reach, using: &random)
            if Bool.random(using: &random) { start = start / 4096 * 4096 }
            return start..<min(size, start + Int.random(in: 1...longest, using: &random))
        }
        state.writes += 1
        switch Int.random(in: 0..<40, using: &state.random) {
        case 0 where ways.resizes && !state.isFrozen && state.nextResize <= now:
            if now > .zero { state.nextResize = now + .seconds(2) }
            let new = Int.random(in: 0...ways.largestSize, using: &state.random) * ways.sector
            place.resize(new)
            if new < size {
                state.bytes.removeLast(size - new)
            } else {
                state.bytes += zeros[0..<new - size]
            }
            return 4096
        case 1..<7 where size > 0:
            let range = extent(2 * ways.largestWrite, &state.random)
            place.zero(range.count, at: range.lowerBound)
            state.bytes.zero(range)
            return range.count
        case 7..<40 where size > 0:
            let range = extent(ways.largestWrite, &state.random)
            // Now and then the same as before, or zeros.
            let kind = Int.random(in: 0..<8, using: &state.random)
            let start = kind == 1 ? 0 : Int.random(in: 0..<noise.count - ways.largestWrite, using: &state.random)
            let new = kind == 0 ? Array(zeros[0..<range.count]) : Array(noise[start..<start + range.count])
            place.write(new, at: ByteOffset(UInt64(range.lowerBound)))
            state.bytes.put(new, at: range.lowerBound)
            return range.count
        default: return 512
        }
    }

    private func owner(_ state: inout State, _ now: Duration) {
        state.nextOwner =
            now + .seconds(ways.ownersPause.seconds * Double.random(in: 0.1...2, using: &state.random))
        // Between the move's last look and the switch nobody could tell.
        guard !state.isClosing, !state.isResting else { return }
        // Who has left the source finds the volume at the target, as soon as it is there.
        guard state.spot != .away || !site.target.names.contains("finished") else { return }
        let place = state.spot == .target ? site.target : site.source
        let index = state.kept.indices.randomElement(using: &state.random)
        switch (Int.random(in: 0..<10, using: &state.random), index) {
        case (0..<5, _) where state.kept.count < 6:
            let name = newName(&state)
            let isProtected = Int.random(in: 0..<4, using: &state.random) == 0
            place.takeSnapshot(name, isProtected: isProtected)
            state.kept.append(Kept(name: name, isProtected: isProtected, bytes: state.bytes))
        case (5..<7, let index?):
            guard !state.kept[index].isProtected else { return }
            place.removeSnapshot(state.kept[index].name)
            state.kept.remove(at: index)
        case (7, let index?):
            let name = newName(&state)
            place.alterSnapshot(state.kept[index].name, to: name, isProtected: state.kept[index].isProtected)
            state.kept[index].name = name
        case (8..., let index?):
            let isProtected = !state.kept[index].isProtected
            place.alterSnapshot(state.kept[index].name, to: state.kept[index].name, isProtected: isProtected)
            state.kept[index].isProtected = isProtected
        default: return
        }
    }

    /// Often one that was used before.
    private func newName(_ state: inout State) -> String {
        let free = (0..<4).map { "daily-\($0)" }.filter { name in !state.kept.contains { $0.name == name } }
        if let name = free.randomElement(using: &state.random) { return name }
        state.names += 1
        return "ünique \(state.names)"
    }

    /// A past, before anybody moves it.
    func live(_ times: Int) {
        state.withLock { state in
            for _ in 0..<times {
                if Int.random(in: 0..<4, using: &state.random) == 0 { owner(&state, .zero) }
                _ = change(&state, at: site.source, .zero)
            }
        }
    }

    // MARK: What is done to it

    /// - Parameter closes: Whether it closes the volume meanwhile.
    func freeze(_ now: Duration, closes: Bool, _ stillness: Stillness) {
        state.withLock { state in
            guard state.spot == .source else { return state.violations.append("asked to freeze at \(state.spot)") }
            state.isFrozen = true
            state.stillness = stillness
            state.frozenSince = state.frozenSince ?? now
            if closes, stillness == .still { site.source.detach(Self.writer) }
        }
    }

    func thaw(_ now: Duration) {
        state.withLock { state in
            if state.spot == .target {
                state.violations.append("let go on at the source while it was at the target")
            }
            guard state.spot == .source else { return }
            site.source.attach(Self.writer)
            goOn(&state, now)
        }
    }

    /// - Parameter keepsSource: Whether it has the source open until it is told to leave it.
    func switchOver(_ now: Duration, keepsSource: Bool) {
        state.withLock { state in
            guard state.spot == .source else { return }
            if keepsSource { state.keepsSource = true } else { site.source.detach(Self.writer) }
            guard site.target.names.contains("finished") else {
                return state.violations.append("sent on to a target that isn't finished")
            }
            site.target.attach(Self.writer)
            state.spot = .target
            goOn(&state, now)
        }
    }

    func leaveSource() {
        state.withLock { state in
            guard state.spot == .target else { return state.violations.append("asked to leave the source it runs at") }
            site.source.detach(Self.writer)
            state.keepsSource = false
        }
    }

    private func goOn(_ state: inout State, _ now: Duration) {
        if let since = state.frozenSince { state.pauses.append(Pause(start: since, end: now)) }
        state.frozenSince = nil
        state.isFrozen = false
        state.isClosing = false
        state.stillness = .still
        state.nextWrite = now
    }

    /// It closes the source by itself, to be opened again at the target.
    func leave() {
        state.withLock { state in
            guard state.spot == .source, !state.isFrozen else { return }
            site.source.detach(Self.writer)
            state.spot = .away
        }
    }

    /// It is opened again where it was; not once the move has looked for the last time.
    func comeBack() {
        state.withLock { state in
            guard state.spot == .away, !state.isClosing else { return }
            site.source.attach(Self.writer)
            state.spot = .source
        }
    }

    func arrive() {
        state.withLock { state in
            site.target.attach(Self.writer)
            state.spot = .target
        }
    }

    /// Its owner leaves it alone from now on.
    func rest() { state.withLock { $0.isResting = true } }

    /// Whether the move has looked for the last time.
    func close(_ isClosing: Bool) { state.withLock { $0.isClosing = isClosing } }

    func takePauses() -> [Pause] {
        state.withLock { state in
            defer { state.pauses = [] }
            return state.pauses
        }
    }
}

// Of a test's many bytes none is looked at by itself.
extension [UInt8] {
    fileprivate mutating func put(_ bytes: [UInt8], at offset: Int) {
        unsafe withUnsafeMutableBytes { whole in
            unsafe UnsafeMutableRawBufferPointer(rebasing: whole[offset..<offset + bytes.count]).copyBytes(from: bytes)
        }
    }

    fileprivate mutating func zero(_ range: Range<Int>) {
        unsafe withUnsafeMutableBytes { whole in
            _ = unsafe UnsafeMutableRawBufferPointer(rebasing: whole[range]).initializeMemory(
                as: UInt8.self, repeating: 0)
        }
    }
}
