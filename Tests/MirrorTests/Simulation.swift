import Conformance
import Mirror
import Synchronization
import Volumes

/// A move with all that can befall it, decided by one seed: a source with a past, a guest that goes on writing, runs
/// that end at any operation, writes that are lost with them, and a target that was given up and begun anew.
///
/// What is checked is seen from the two places and not from the move: what the source held when the move last found it
/// unchanged is what the target holds in the end.
struct Simulation {
    private let seed: UInt64
    private let fault: PlantedFault?
    private let site: Site
    private let guest: Guest
    private var random: SplitMix64
    private var options = Site.options

    init(seed: UInt64, fault: PlantedFault? = nil) {
        self.seed = seed
        self.fault = fault
        random = SplitMix64(seed: seed)
        let means: ExtentMeans = Int.random(in: 0..<4, using: &random) == 0 ? .everything : .objectExtents
        site = Site(source: Place(means: means, extentUnit: .kibibytes(64)))
        // Some are so large that a later run doesn't begin at the start of a step.
        let sector = Int.random(in: 0..<4, using: &random) == 0 ? 8192 : 512
        let size = Int.random(in: 0...300, using: &random) * sector
        site.source.make(size)
        guest = Guest(at: site.source, size: size, sector: sector, seed: random.next())
        options.verifies = fault == nil && Bool.random(using: &random)
    }

    /// What went wrong, first of all; nothing if nothing did.
    mutating func run() async throws -> String? {
        for _ in 0..<Int.random(in: 0...12, using: &random) { guest.act() }
        let befallen = Int.random(in: 0...5, using: &random)
        for number in 0..<40 {
            switch await oneRun(isBefallen: number < befallen) {
            case .ended:
                guard let expected = guest.expected else { return "it ended without asking whether anybody wrote" }
                return expected.differences(at: site).first
            case .wentWrong(let what): return what
            case .interrupted: break
            }
            let unrecorded = try await site.unrecordedTransients()
            if !unrecorded.isEmpty { return "\(unrecorded) on the source are in no record" }
            for _ in 0..<Int.random(in: 0...2, using: &random) { guest.act() }
            if Int.random(in: 0..<8, using: &random) == 0, let what = await giveUp() { return what }
        }
        return "no end after 40 runs"
    }

    private enum RunEnd {
        case ended
        case interrupted
        case wentWrong(String)
    }

    private mutating func oneRun(isBefallen: Bool) async -> RunEnd {
        let kind: Mishap.Kind = Bool.random(using: &random) ? .death : .once
        let place = isBefallen ? Int.random(in: 1...120, using: &random) : nil
        // While a guest goes on, a move doesn't end: it is busy only until here.
        var guestActs: Set<Int> = []
        for _ in 0..<Int.random(in: 0...3, using: &random) { guestActs.insert(Int.random(in: 1...100, using: &random)) }
        let mishap = Mishap(kind, at: place) { [guest, guestActs] number, operation in
            if guestActs.contains(number) { guest.act() }
            if operation == "isUnchanged" { guest.remember() }
        }
        let (site, options, fault) = (site, options, fault)
        do throws(MoveError) {
            _ = try await site.move(
                options, sourceFault: mishap.fault, targetFault: mishap.fault,
                throughSource: { if let fault { FaultySource($0, fault) } else { $0 } },
                throughTarget: { if let fault { FaultyTarget($0, fault) } else { $0 } })
            return .ended
        } catch {
            // Of the very last operation only the answer was lost.
            if site.target.names == ["finished"] { return .ended }
            // A run that nothing befell has no reason to fail.
            guard mishap.hasHappened else { return .wentWrong("\(error.kind): \(error.lines)") }
            // What wasn't flushed may be lost with a process that died, or with its host after an orderly end.
            if kind == .death || Bool.random(using: &random) {
                var lost = SplitMix64(seed: random.next())
                site.target.crash { _ in Bool.random(using: &lost) }
            }
            return .interrupted
        }
    }

    private mutating func giveUp() async -> String? {
        guard site.target.names.contains("unfinished") else { return nil }
        do throws(MoveError) {
            _ = try await site.abort()
        } catch {
            return "can't be given up: \(error.lines)"
        }
        return site.target.names.isEmpty && site.transients.isEmpty ? nil : "giving up left something"
    }
}

/// Whoever uses the source: writes, discards, resizes, takes snapshots.
private final class Guest: Sendable {
    private struct State {
        var random: SplitMix64
        var size: Int
        var snapshots = 0
        var expected: Holdings?
    }
    private let place: Place
    /// Sizes are multiples of it.
    private let sector: Int
    private let state: Mutex<State>

    init(at place: Place, size: Int, sector: Int, seed: UInt64) {
        self.place = place
        self.sector = sector
        state = Mutex(State(random: SplitMix64(seed: seed), size: size))
    }

    var expected: Holdings? { state.withLock { $0.expected } }

    /// What the target is to hold, if nothing is found to have changed.
    func remember() { state.withLock { $0.expected = Holdings(of: place) } }

    func act() {
        state.withLock { state in
            let size = state.size
            switch Int.random(in: 0..<10, using: &state.random) {
            case 0..<5 where size > 0:
                let start = Int.random(in: 0..<size, using: &state.random)
                let count = min(size - start, Int.random(in: 1...20_000, using: &state.random))
                // Few values, so that a block often becomes again what it was; zeros among them.
                place.write(UInt8.random(in: 0...3, using: &state.random), count, at: start)
            case 5..<7 where size > 0:
                let start = Int.random(in: 0..<size, using: &state.random)
                place.zero(min(size - start, Int.random(in: 1...40_000, using: &state.random)), at: start)
            case 7:
                state.size = Int.random(in: 0...300, using: &state.random) * sector
                place.resize(state.size)
            default:
                guard state.snapshots < 8 else { return }
                state.snapshots += 1
                place.takeSnapshot("s\(state.snapshots)", isProtected: Bool.random(using: &state.random))
            }
        }
    }
}
