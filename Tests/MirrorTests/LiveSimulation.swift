import Conformance
import Convergence
import Cutover
import Foundation
import Mirror
import Synchronization
import Volumes

/// A live move with all that can befall it, decided by one seed: a guest that goes on writing, its owner, runs that end
/// at any operation, a hold that fails, hangs or lies, records that are torn, and an operator who changes his mind.
///
/// What is checked is seen from the two places and from the guest, and not from the move.
final class LiveSimulation: Sendable {
    struct Setting {
        var options: MoveOptions
        var live: LiveOptions
        var ways = LiveGuest.Ways()
        var speed: LiveFate.Speed
        var waits: Bool
        var means = ExtentMeans.objectExtents
        var clients: Int
        var holdLatency: Duration
        /// The limit that the guest's owner gave it.
        var limit: ByteRate?
        var befallen: Int
    }

    struct State {
        var random: SplitMix64
        var trace: [UInt64] = []
        var log: [String] = []
    }

    static let mostRuns = 30

    let seed: UInt64
    let fault: LiveFault?
    let keepsLog: Bool
    let setting: Setting
    let site: Site
    let way: any TargetWay
    let guest: LiveGuest
    let time = VirtualTime()
    let state: Mutex<State>
    /// Who watches over the run that is under way.
    let watch = Mutex<LiveOperator?>(nil)

    /// - Parameter newWay: How the target is reached.
    init(
        seed: UInt64, fault: LiveFault? = nil, keepsLog: Bool = false,
        by newWay: (Site, VirtualTime) -> any TargetWay = { site, _ in NearTarget(site) }
    ) {
        self.seed = seed
        self.fault = fault
        self.keepsLog = keepsLog
        var random = SplitMix64(seed: seed)
        var setting = Setting(&random)
        if fault != nil { setting.options.verifies = false }
        if fault == .overlooksThatTheSourceWasWrittenTo { setting.clients = 1 }
        if fault == .skipsTheFence { setting.clients = 0 }
        setting.means = Int.random(in: 0..<6, using: &random) == 0 ? .everything : .objectExtents
        site = Site(source: Place(means: setting.means, extentUnit: .kibibytes(64)))
        let size = Int.random(in: 0...setting.ways.largestSize, using: &random) * setting.ways.sector
        site.source.make(size: ByteCount(UInt64(size)), metadata: ["owner": "somebody"])
        site.source.limit = setting.limit
        guest = LiveGuest(at: site, size: size, ways: setting.ways, seed: random.next())
        guest.live(Int.random(in: 0...20, using: &random))
        self.setting = setting
        way = newWay(site, time)
        state = Mutex(State(random: random))
    }

    func draw<Value: Sendable>(_ body: (inout SplitMix64) -> Value) -> Value { state.withLock { body(&$0.random) } }
    func oneIn(_ count: Int) -> Bool { draw { Int.random(in: 0..<count, using: &$0) == 0 } }

    /// What went wrong, first of all; nothing if nothing did.
    func run() async -> String? {
        time.whilePassing { [weak self] end in self?.pass(to: end) }
        return await withTaskExecutorPreference(time) {
            let what = await history()
            await way.close()
            return what
        }
    }

    /// The guest, its owner and the operator act while time passes.
    private func pass(to end: Duration) {
        while true {
            let watch = watch.withLock { $0 }
            let order = watch?.next ?? end + .seconds(1)
            let next = min(order, guest.next)
            guard next <= end else { return }
            time.now = next
            if order <= guest.next { watch?.act() } else { guest.act(next) }
            guest.checkPlaces()
        }
    }

    private func history() async -> String? {
        for number in 0..<Self.mostRuns {
            let end = await oneRun(isBefallen: number < setting.befallen)
            if let violation = guest.violations.first { return "run \(number + 1): \(violation)" }
            switch end {
            case .ended:
                if setting.waits { guest.arrive() }
                time.spend(.seconds(1))
                await way.settle()
                guest.checkEnd(limit: setting.limit, rest: setting.live.source)
                return guest.violations.first.map { "the end: \($0)" }
            case .wentWrong(let what): return "run \(number + 1): \(what)"
            case .interrupted: break
            case .cancelled: if let what = await giveUp() { return what }
            }
            do {
                let unrecorded = try await site.unrecordedTransients()
                if !unrecorded.isEmpty { return "\(unrecorded) on the source are in no record" }
            } catch {
                return "the record can't be looked at: \(error)"
            }
            guest.close(false)
            await time.sleep(way.rest(.seconds(draw { Double.random(in: 0...3, using: &$0) })))
            if oneIn(12), let what = await tear() { return what }
            if oneIn(10), let what = await giveUp() { return what }
            if setting.waits, oneIn(2), site.target.names.first != "finished" { guest.comeBack() }
        }
        return "no end after \(Self.mostRuns) runs"
    }

    enum RunEnd {
        case ended
        case interrupted
        case cancelled
        case wentWrong(String)
    }

    // MARK: What befalls a run

    func blow(_ isBefallen: Bool) -> LiveFate.Blow? {
        guard isBefallen, !oneIn(4) else { return nil }
        return draw { random in
            let longest = [20, 100, 400].randomElement(using: &random) ?? 100
            let number = Int.random(in: 1...longest, using: &random)
            let name = Bool.random(using: &random) ? LiveFate.telling.randomElement(using: &random) : nil
            return LiveFate.Blow(
                kind: LiveFate.Kind.allCases.randomElement(using: &random) ?? .once,
                place: name.map { .first($0) } ?? .number(number))
        }
    }

    func slip(_ isBefallen: Bool) -> (call: LiveHold.Call, slip: LiveHold.Slip)? {
        guard isBefallen, oneIn(2) else { return nil }
        // What goes wrong here is seen only where somebody writes that ought to be still.
        if oneIn(5) || fault == .overlooksThatTheSourceWasWrittenTo || fault == .skipsTheFence {
            return (.freeze, .lies)
        }
        return draw { random in
            let calls: [LiveHold.Call] = [
                .freeze, .freeze, .freeze, .switchOver, .switchOver, .thaw, .leaveSource, .rehearse,
            ]
            return (
                calls.randomElement(using: &random) ?? .freeze,
                LiveHold.Slip.allCases.randomElement(using: &random) ?? .failsBefore
            )
        }
    }

    // MARK: Torn records

    /// A record that was torn is refused, and nothing is changed; as it was, the move goes on.
    private func tear() async -> String? {
        await way.settle()
        guard let record = site.target.record, !record.isEmpty else { return nil }
        let torn = draw { String(record.prefix(Int.random(in: 1..<record.count, using: &$0))) }
        site.target.record = torn
        defer { site.target.record = record }
        func look() -> [String] {
            [site.target.names, site.transients, site.source.marks, ["\(guest.spot) \(guest.isFrozen)"]].flatMap(\.self)
        }
        let before = look()
        let fate = LiveFate(time, guest, setting.speed, nil, seed: 0)
        let hold = LiveHold(
            time, guest, fate, clients: setting.clients, latency: setting.holdLatency, slip: nil)
        let watcher = draw { LiveOperator(guest, time.now, count: 0, leaves: false, &$0) }
        let failure = await attempt(fate, watcher, hold)
        way.cut()
        guard let failure else { return "a torn record was gone on from: \(torn)" }
        // What can't be described any more isn't looked at further.
        guard failure.kind == .noTarget || failure.kind == .noSource else {
            return "a torn record is refused as \(failure.kind): \(failure.lines)"
        }
        if site.target.record != torn || look() != before { return "a torn record was refused, and something changed" }
        return guest.violations.first
    }

    // MARK: Giving up

    /// As 'godwit abort' does.
    private func giveUp() async -> String? {
        await way.settle()
        guard site.target.names.contains("unfinished") else { return nil }
        do throws(MoveError) {
            way.begin(nil, breaks: false)
            let target = try await staged(.target) { () throws(VolumeError) in try await way.open() }
            _ = try await site.abort(target)
        } catch {
            return "can't be given up: \(error.lines)"
        }
        way.cut()
        await way.settle()
        // It knows no hold: who is held still is to be let go on by hand.
        if guest.isFrozen { guest.thaw(time.now) }
        guest.checkGivenUp(limit: setting.limit)
        return guest.violations.first
    }
}

extension LiveSimulation.Setting {
    init(_ random: inout SplitMix64) {
        func roughly(_ low: Double, _ high: Double) -> Double {
            low * pow(high / low, Double.random(in: 0...1, using: &random))
        }
        options = Site.options
        options.verifies = Int.random(in: 0..<4, using: &random) == 0
        live = LiveOptions()
        speed = LiveFate.Speed(
            latency: .milliseconds(Int64.random(in: 0...2, using: &random)),
            dataLatency: .microseconds(Int64.random(in: 10...100, using: &random)),
            readRate: roughly(2e5, 2e7), writeRate: roughly(2e5, 2e7))
        ways.rate = roughly(5e3, 4e6)
        ways.largestWrite = [4096, 16_384, 65_536].randomElement(using: &random) ?? 4096
        ways.resizes = Bool.random(using: &random)
        ways.ownersPause = .seconds(roughly(0.5, 30))
        ways.sector = Int.random(in: 0..<8, using: &random) == 0 ? 4096 : 512
        ways.share = Bool.random(using: &random) ? 1 : 0.2
        waits = Int.random(in: 0..<5, using: &random) == 0
        clients = Int.random(in: 0...1, using: &random)
        holdLatency = .milliseconds(Int64.random(in: 1...15, using: &random))
        limit =
            Int.random(in: 0..<3, using: &random) == 0
            ? ByteRate(bytesPerSecond: UInt64(roughly(2e4, 4e6))) : nil
        befallen = Int.random(in: 0..<4, using: &random) == 0 ? 0 : Int.random(in: 1...4, using: &random)
        live.convergence = Convergence.Settings(
            maxPause: .milliseconds(Int64.random(in: 250...1500, using: &random)),
            throttle: Int.random(in: 0..<5, using: &random) > 0 ? .now : .never,
            floor: ByteRate(bytesPerSecond: UInt64(roughly(8e3, 1e6))),
            maxRounds: Int.random(in: 3...30, using: &random))
        live.cutover = Int.random(in: 0..<5, using: &random) == 0 ? .manual : .auto
        live.fence = Int.random(in: 0..<4, using: &random) == 0 ? .blocklist : .release
        live.source = Retirement.allCases.randomElement(using: &random) ?? .keep
    }
}
