import Conformance
import Mirror
import Synchronization
import Volumes

/// A still move over a lossy link to another host, decided by one seed: a source with a past, that is changed between
/// runs, and runs that end at any operation, at any byte, with either host.
///
/// What the source held when the move last found it unchanged is what the target holds in the end.
final class StillLossySimulation: Sendable {
    private static let mostRuns = 30

    private let site: Site
    private let guest: LiveGuest
    private let way: FarTarget
    private let time = VirtualTime()
    private let speed: LiveFate.Speed
    private let verifies: Bool
    private let befallen: Int
    private let random: Mutex<SplitMix64>
    /// What the source held when it was last looked at.
    private let expected = Mutex<Holdings?>(nil)
    private let log = Mutex<[String]>([])
    private let keepsLog: Bool

    init(seed: UInt64, keepsLog: Bool = false) {
        var random = SplitMix64(seed: seed)
        let means: ExtentMeans = Int.random(in: 0..<4, using: &random) == 0 ? .everything : .objectExtents
        site = Site(source: Place(means: means, extentUnit: .kibibytes(64)))
        let ways = LiveGuest.Ways(
            sector: Int.random(in: 0..<4, using: &random) == 0 ? 4096 : 512, largestSize: 600)
        let size = Int.random(in: 0...ways.largestSize, using: &random) * ways.sector
        site.source.make(size: ByteCount(UInt64(size)), metadata: ["owner": "somebody"])
        guest = LiveGuest(at: site, size: size, ways: ways, seed: random.next())
        guest.leave()
        guest.live(Int.random(in: 0...20, using: &random))
        speed = LiveFate.Speed(
            latency: .milliseconds(Int64.random(in: 0...2, using: &random)), dataLatency: .microseconds(50),
            readRate: 1e7, writeRate: 1e7)
        verifies = Bool.random(using: &random)
        befallen = Int.random(in: 0...5, using: &random)
        way = FarTarget(site, time, seed: random.next())
        self.random = Mutex(random)
        self.keepsLog = keepsLog
    }

    private func draw<Value: Sendable>(_ body: (inout SplitMix64) -> Value) -> Value { random.withLock { body(&$0) } }

    /// The last operations.
    var lines: [String] { log.withLock { $0 } }

    /// What went wrong, first of all; nothing if nothing did.
    func run() async -> String? {
        await withTaskExecutorPreference(time) {
            let what = await history()
            await way.close()
            return what
        }
    }

    private func history() async -> String? {
        for number in 0..<Self.mostRuns {
            switch await oneRun(isBefallen: number < befallen) {
            case .ended:
                await way.settle()
                guard let expected = expected.withLock({ $0 }) else {
                    return "it ended without asking whether anybody wrote"
                }
                if let what = expected.differences(at: site).first { return what }
                return site.source.marks.isEmpty ? nil : "left on the source: \(site.source.marks)"
            case .wentWrong(let what): return "run \(number + 1): \(what)"
            case .interrupted: break
            }
            if let unrecorded = try? await site.unrecordedTransients(), !unrecorded.isEmpty {
                return "\(unrecorded) on the source are in no record"
            }
            await time.sleep(way.rest(.seconds(draw { Double.random(in: 0...3, using: &$0) })))
            guest.live(draw { Int.random(in: 0...2, using: &$0) })
            if draw({ Int.random(in: 0..<8, using: &$0) == 0 }), let what = await giveUp() { return what }
        }
        return "no end after \(Self.mostRuns) runs"
    }

    private enum RunEnd {
        case ended
        case interrupted
        case wentWrong(String)
    }

    private func blow(_ isBefallen: Bool) -> LiveFate.Blow? {
        guard isBefallen else { return nil }
        return draw { random in
            guard Bool.random(using: &random) else { return nil }
            return LiveFate.Blow(
                kind: LiveFate.Kind.allCases.randomElement(using: &random) ?? .once,
                place: .number(Int.random(in: 1...150, using: &random)))
        }
    }

    private func oneRun(isBefallen: Bool) async -> RunEnd {
        let seed = draw { $0.next() }
        let fate = LiveFate(time, guest, speed, blow(isBefallen), seed: seed, keepsLog: keepsLog) { [way] in way.cut() }
        way.begin(fate, breaks: isBefallen)
        var options = Site.options
        (options.verifies, options.inFlight) = (verifies, way.inFlight)
        let source = Site.sourceVolume(at: site.source) { [self] (operation, extent) throws(VolumeError) in
            if operation == "isUnchanged" { expected.withLock { $0 = Holdings(of: site.source) } }
            try fate.pass("source", operation, extent)
        }
        var failure: MoveError?
        do throws(MoveError) {
            let target = try await staged(.target) { () throws(VolumeError) in try await way.open() }
            _ = try await Move(from: source, to: target, options: options, time: time.keeper).run()
        } catch {
            failure = error
        }
        let wasDisturbed = way.wasDisturbed
        let struck = way.struck
        way.cut()
        log.withLock { log in
            log += fate.log + ["-- \(failure?.lines.joined(separator: " | ") ?? "ended"); \(struck ?? "")"]
        }
        guard let failure else { return .ended }
        // Of the very last operation only the answer was lost.
        if site.target.names == ["finished"] { return .ended }
        if fate.struck == nil, !wasDisturbed {
            return .wentWrong("nothing befell it, and it failed: \(failure.kind) \(failure.lines)")
        }
        return .interrupted
    }

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
        return site.target.names.isEmpty && site.transients.isEmpty ? nil : "giving up left something"
    }
}
