import Conformance
import Convergence
import Cutover
import Foundation
import Mirror
import Synchronization
import Volumes

@testable import Tracker

typealias Place = MemoryVolume.Place

/// A volume in memory that holds no snapshots, as a file holds none.
struct Unsnapped: TrackableVolume {
    let inner: MemoryVolume
    let changed: @Sendable () -> Duration?

    var address: String { inner.address }
    var retirements: Set<Retirement> { [.keep, .rename] }
    func describe() async throws(VolumeError) -> VolumeDescription { try await inner.describe() }
    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader { try await inner.open(revision) }
    func standing() async throws(VolumeError) -> Standing { try await inner.standing() }
    func obstacles() async throws(VolumeError) -> [Obstacle] { try await inner.obstacles() }
    func freeze(as name: String) async throws(VolumeError) -> Snapshot? { nil }
    func thaw(_ name: String) async throws(VolumeError) {}
    func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        try await inner.isUnchanged(since: snapshot)
    }
    func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk {
        try await inner.attach(revision, isWritable: isWritable)
    }
    func lastingIdentity() async throws(VolumeError) -> String { "memory:source" }
    func lastChange() async throws(VolumeError) -> Duration? { changed() }
    func retire(to target: String, _ rest: Retirement) async throws(VolumeError) {
        try await inner.retire(to: target, rest)
    }
}

/// Several clients that write through a gate which marks, until they are held still, or their server is killed.
final class Clients: WriterHold {
    enum Fault: CaseIterable, Sendable { case marksAfterTheWrite }

    private struct State {
        /// As a gate is before the move has the source for itself.
        var isShut = true
        var isKilled = false
        var inside = 0
        /// Since 1970, as the clock of the host would have it.
        var changed = Duration.zero
        /// What the volume was when they were last sent on, and whether the target was the same then, each time.
        var atSwitch: [UInt8]?
        var areRight = true
    }

    let title = "the clients"
    let clientsAtSource = 0
    private let source: Place
    private let target: Place
    private let marks: Marks
    private let size: Int
    private let fault: Fault?
    private let state: Mutex<State>

    init(_ source: Place, _ target: Place, _ marks: Marks, size: Int, changed: Duration, fault: Fault?) {
        (self.source, self.target, self.marks, self.size, self.fault) = (source, target, marks, size, fault)
        state = Mutex(State(changed: changed))
    }

    var changed: Duration { state.withLock { $0.changed } }
    /// Whether the target was what the source is, whenever they were sent on.
    var areRight: Bool { state.withLock { $0.areRight } }
    /// What they had written by then; nothing if they weren't sent on.
    var atSwitch: [UInt8]? { state.withLock { $0.atSwitch } }
    func kill() { state.withLock { $0.isKilled = true } }

    private func pause(_ random: inout SplitMix64) async {
        for _ in 0..<Int.random(in: 0...2, using: &random) { await Task.yield() }
        if Int.random(in: 0..<8, using: &random) == 0 { try? await Task.sleep(for: .microseconds(50)) }
    }

    func write(seed: UInt64) async {
        var random = SplitMix64(seed: seed)
        while !state.withLock({ $0.isKilled }) {
            await pause(&random)
            let isIn = state.withLock { state in
                guard !state.isShut, !state.isKilled else { return false }
                state.inside += 1
                return true
            }
            guard isIn else { continue }
            // Most of it in one part, as clients do.
            let start = Int.random(in: 0..<(Bool.random(using: &random) ? size / 8 : size), using: &random)
            let count = min(size - start, Int.random(in: 1...12_000, using: &random))
            let extent = (start..<start + count).extent
            if fault != .marksAfterTheWrite { marks.begin(extent) }
            await pause(&random)
            // Killed with it under way, it is carried out or not.
            if !state.withLock({ $0.isKilled }) || Bool.random(using: &random) {
                if Int.random(in: 0..<4, using: &random) == 0 {
                    source.zero(extent)
                } else {
                    let bytes = [UInt8](repeating: UInt8.random(in: 0...4, using: &random), count: count)
                    source.write(bytes, at: extent.offset)
                }
                state.withLock { $0.changed = wallClock() }
            }
            await pause(&random)
            if fault == .marksAfterTheWrite { marks.begin(extent) }
            // As a gate does it: nobody is still before his change is told to be over.
            if !state.withLock({ $0.isKilled }) { marks.didChange(extent) }
            state.withLock { $0.inside -= 1 }
        }
    }

    func prepare() async throws(VolumeError) {}
    func adopt() async throws(VolumeError) {}
    func begin() async throws(VolumeError) { try await thaw() }
    func rehearse() async throws(VolumeError) -> Duration { .zero }
    func freeze() async throws(VolumeError) {
        state.withLock { $0.isShut = true }
        while state.withLock({ $0.inside > 0 && !$0.isKilled }) { try? await Task.sleep(for: .microseconds(50)) }
    }
    func switchOver() async throws(VolumeError) {
        let bytes = source.bytes()
        let isRight = bytes == target.bytes()
        state.withLock { state in
            state.atSwitch = bytes
            state.areRight = state.areRight && isRight
            state.isKilled = true
        }
    }
    func thaw() async throws(VolumeError) { state.withLock { $0.isShut = false } }
}

/// A move beneath clients that go on writing, decided (but for how threads run) by one seed: its process is killed at any
/// operation, the host may be started anew, and others may write while nobody serves the volume.
struct MoveSimulation {
    /// How much faster the move's clock goes than the real one, so that rounds don't wait for each other.
    private static let speed = 200.0

    private var random: SplitMix64
    private let scratch: Scratch
    private let source = Place(holdsSnapshots: false, extentUnit: .kibibytes(64))
    private let target = Place(extentUnit: .kibibytes(64))
    private let size: Int
    private let fault: Clients.Fault?
    private var boot = 1
    private var changed = wallClock()
    /// What the target has to be in the end: whatever becomes of the source once nobody is at it any more.
    private var atSwitch: [UInt8]?
    private(set) var trusted = 0
    private(set) var rounds = 0

    init(seed: UInt64, fault: Clients.Fault? = nil) throws {
        random = SplitMix64(seed: seed)
        scratch = try Scratch()
        size = Int.random(in: 40...600, using: &random) * 2048
        source.make(size: ByteCount(UInt64(size)))
        for place in 0..<size / 16_384 where Bool.random(using: &random) {
            source.write(
                [UInt8](repeating: UInt8(1 + place % 4), count: 5000), at: ByteOffset(UInt64(place * 16_384 / 2)))
        }
        self.fault = fault
    }

    /// What went wrong, first of all; nothing if nothing did.
    mutating func run() async throws -> String? {
        let befallen = Int.random(in: 0...5, using: &random)
        for number in 0..<12 {
            switch try await oneRun(isBefallen: number < befallen) {
            case .wrong(let what): return "run \(number + 1): \(what)"
            case .ended:
                guard let atSwitch, target.names == ["finished"] else { return "it ended without a switch" }
                return target.bytes() == atSwitch ? nil : "the target differs in the end"
            case .killed: break
            }
            try befall()
        }
        return "no end"
    }

    private var marksPath: String { scratch.file("m") }

    /// Between two runs.
    private mutating func befall() throws {
        var lost = SplitMix64(seed: random.next())
        target.crash { _ in Bool.random(using: &lost) }
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
            // The host is started anew, and what it had of the marks on its disk is anything: not a mark of them, here.
            boot += 1
            guard let file = FileHandle(forUpdatingAtPath: marksPath) else { return }
            let start = UInt64(2 * MarksHeader.room + 4096)
            let end = try file.seekToEnd()
            try file.seek(toOffset: start)
            if end > start { try file.write(contentsOf: [UInt8](repeating: 0, count: Int(end - start))) }
            try file.close()
        case 1:
            // Somebody else writes, long after.
            let start = Int.random(in: 0..<size, using: &random)
            source.write([9], at: ByteOffset(UInt64(start)))
            changed = max(changed, wallClock()) + .seconds(2)
        default: break
        }
    }

    private func opened(_ circumstances: Circumstances) async throws -> Marks {
        let path = marksPath
        return try await whileBusy { try Marks(at: path, of: circumstances) }
    }

    private enum End {
        case ended
        case killed
        case wrong(String)
    }

    private mutating func oneRun(isBefallen: Bool) async throws -> End {
        let place = isBefallen ? Int.random(in: 1...200, using: &random) : Int.max
        let count = Mutex(0)
        let fault: MemoryVolume.Fault = { (operation, _) throws(VolumeError) in
            let number = count.withLock { count in
                count += 1
                return count
            }
            if number >= place {
                throw VolumeError(.failed, operation, on: "operation \(number)", reason: "the process is dead")
            }
        }
        let since = changed
        let marks = try await opened(
            Circumstances(
                identity: "memory:source", size: ByteCount(UInt64(size)),
                granularity: Granularity(Granularity.smallest)!, boot: "boot \(boot)", changed: since))
        if marks.finding == .trusted { trusted += 1 }
        let clients = Clients(source, target, marks, size: size, changed: since, fault: self.fault)
        let volume = Unsnapped(
            inner: MemoryVolume(at: source, address: "memory:source", fault: fault), changed: { since })
        let tracked = TrackedSource(volume, identity: "memory:source", marks: marks, changed: since)
        let controls = MoveControls(throttle: .off)
        let options = moveOptions(clients)
        let target = target
        let seeds = (0..<3).map { _ in random.next() }
        let patience = Duration.milliseconds(Int.random(in: 5...60, using: &random))
        let result: Result<Report, MoveError> = await withTaskGroup(of: Result<Report, MoveError>?.self) { group in
            for seed in seeds {
                group.addTask {
                    await clients.write(seed: seed)
                    return nil
                }
            }
            group.addTask {
                try? await Task.sleep(for: patience)
                controls.isCutoverAsked = true
                return nil
            }
            group.addTask {
                let move = Move(
                    from: tracked, to: MemoryVolume(at: target, address: "memory:target", fault: fault),
                    options: options, controls: controls, time: Self.time)
                let result: Result<Report, MoveError>
                do throws(MoveError) {
                    result = .success(try await move.run())
                } catch {
                    result = .failure(error)
                }
                clients.kill()
                return result
            }
            var end: Result<Report, MoveError>?
            for await result in group { end = result ?? end }
            return end!
        }
        changed = clients.changed
        atSwitch = clients.atSwitch ?? atSwitch
        guard clients.areRight else { return .wrong("at the switch the target differs") }
        switch result {
        case .success(let report):
            rounds += report.rounds?.count ?? 0
            return .ended
        case .failure(let error):
            guard count.withLock({ $0 >= place }) else { return .wrong("\(error.kind): \(error.lines)") }
            // Of the very last operation only the answer was lost.
            return target.names == ["finished"] ? .ended : .killed
        }
    }

    private mutating func moveOptions(_ clients: Clients) -> MoveOptions {
        var options = MoveOptions()
        options.granularity = Granularity(Granularity.smallest)!
        options.inFlight = .mebibytes(4)
        options.verifies = Bool.random(using: &random)
        var live = LiveOptions()
        live.hold = clients
        live.cutover = Bool.random(using: &random) ? .auto : .manual
        // Some attempts take longer, and are given up.
        live.convergence.maxPause = Bool.random(using: &random) ? .seconds(100_000) : .seconds(1)
        options.live = live
        return options
    }

    private static let time: Timekeeper = {
        let start = ContinuousClock.now
        return Timekeeper(
            now: { (ContinuousClock.now - start) * Self.speed }, sleep: { try? await Task.sleep(for: $0 / Self.speed) })
    }()
}
