import Conformance
import Gate
import Mirror
import Synchronization
import Testing
import Volumes

/// A move beneath its clients that fails at the worst of moments.
@Suite(.serialized, .timeLimit(.minutes(4)))
struct MoveFaultTests {
    struct Mishap: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let place: Fate.Place
        var kind = VolumeError.Kind.failed
        init(_ title: String, _ place: Fate.Place, _ kind: VolumeError.Kind = .failed) {
            (testDescription, self.place, self.kind) = (title, place, kind)
        }
    }

    /// The look at the source after which all is settled: the next note says "committing".
    private static let looked = "source isUnchanged"

    static let beforeTheSwitch = [
        Mishap("the look at the source fails", .named(looked)),
        Mishap("the note of the commit fails", .after("target save", looked)),
        Mishap("the note of the commit isn't answered", .after("target save, done", looked)),
        Mishap("the commit fails", .named("target commit")),
        Mishap("the commit isn't answered", .named("target commit, done")),
        Mishap("the target can't be opened", .named("client attach")),
    ]

    @Test(arguments: beforeTheSwitch) func `before the switch its clients go on at the source`(mishap: Mishap)
        async throws
    {
        let scene = Scene(seed: 7)
        let run = scene.run(Fate(mishap.place, .once(mishap.kind)))
        run.controls.throttle = .limit(ByteRate(bytesPerSecond: 1 << 16))
        #expect(try await run.go() != nil && run.fate.isStruck)
        try await scene.expectAtSource(run)
        #expect(scene.target.names == ["unfinished", "record"])
        await run.hold.close()
        scene.target.crash()
        let second = scene.run()
        #expect(try await second.go()?.lines == nil)
        scene.expectMoved(second)
    }

    @Test func `a round that fails leaves nobody limited`() async throws {
        let scene = Scene(seed: 6)
        let fate = Fate(.named("target save"), isArmed: false)
        let run = scene.run(fate)
        run.controls.throttle = .limit(ByteRate(bytesPerSecond: 1 << 16))
        run.controls.isCutoverAsked = false
        let failure = try await run.go { run in
            try await waitUntil { run.status.current.limit != nil }
            fate.arm()
            run.controls.isCutoverAsked = true
        }
        #expect(failure != nil)
        try await scene.expectAtSource(run)
    }

    @Test(arguments: ["target commit, done", "client attach"])
    func `a target that is finished and doesn't answer any more leaves its clients at the source`(
        place: String
    ) async throws {
        let scene = Scene(seed: 8)
        // It can't be told to be unfinished again.
        let fate = Fate(.named(place), .silence)
        let run = scene.run(fate)
        #expect(try await run.go() != nil && fate.isStruck)
        try await scene.expectAtSource(run)
        #expect(scene.target.names == ["finished", "record"])
        await run.hold.close()
        scene.target.crash()
        let second = scene.run()
        #expect(try await second.go()?.lines == nil)
        scene.expectMoved(second)
    }

    static let atTheSwitch = [
        Mishap("the target doesn't answer", .after("target save", "target commit, done"), .unreachable),
        Mishap("the target's answer is lost", .after("target save, done", "target commit, done"), .unreachable),
        Mishap("the note fails", .after("target save", "target commit, done")),
        Mishap("the note fails once it is there", .after("target save, done", "target commit, done")),
    ]

    @Test(arguments: atTheSwitch) func `the switch is noted again until it is there`(mishap: Mishap) async throws {
        let scene = Scene(seed: 9)
        let run = scene.run(Fate(mishap.place, .once(mishap.kind)))
        #expect(try await run.go()?.lines == nil)
        #expect(run.fate.isStruck)
        scene.expectMoved(run)
    }

    @Test(arguments: ["target save", "target save, done"])
    func `stopped while it isn't known where they belong, nobody is let in`(place: String) async throws {
        let scene = Scene(seed: 10)
        let fate = Fate(.after(place, "target commit, done"), .silence)
        let run = scene.run(fate)
        let failure = try await run.go { run in
            try await waitUntil { fate.isStruck }
            #expect(run.gate.isShut)
            try await Task.sleep(for: .milliseconds(100))
            #expect(run.gate.isShut)
            run.stop.ask()
        }
        #expect(failure != nil && run.gate.isShut)
        #expect(scene.violations.all == [])
        await run.hold.close()
        scene.target.crash()
        let second = scene.run()
        #expect(try await second.go()?.lines == nil)
        scene.expectMoved(second)
    }

    @Test func `another that took the target over is not waited for`() async throws {
        let scene = Scene(seed: 11)
        let run = scene.run(Fate(.after("target save", "target commit, done"), .once(.busy)))
        #expect(try await run.go() != nil)
        #expect(run.gate.isShut && scene.violations.all == [])
    }

    @Test(arguments: 1...12) func `a target that hangs in the pause ends the pause`(seed: UInt64) async throws {
        let scene = Scene(seed: seed, takesStillHeads: seed > 3)
        let hang = Hang()
        let run = scene.run(maxPause: .milliseconds(400), cutover: .auto) { target, gate in
            HangingTarget(target, gate, hang, at: seed % 4 == 0 ? .resize : .flush)
        }
        let failure = try await run.go { run in
            defer { hang.end() }
            try await waitUntil { hang.isUnderWay }
            try await waitUntil(.seconds(10)) { !run.gate.isShut }
            // They go on, while it hangs.
            try await Task.sleep(for: .milliseconds(300))
            #expect(!run.gate.isShut && hang.isUnderWay)
            try await run.gate.flush()
        }
        #expect(failure?.lines == nil)
        // More than was promised only by what a busy machine takes.
        #expect(run.gate.longestShut < Duration.seconds(2))
        scene.expectMoved(run)
    }

    // MARK: Kills

    private static let worst = [
        "target make, done", "source claim, done", "source freeze, done", "target furnish", "source isUnchanged",
        "target save", "target commit", "target commit, done", "client attach", "source thaw", "source release, done",
        "target forget", "target forget, done", "source retire",
    ]

    private static let inTheLastRound = [
        "source standing", "target resize, done", "target write, done", "target zero, done", "target flush",
        "target flush, done",
    ]

    @Test(arguments: 1...40) func `killed at any moment, the next run serves all that was acknowledged`(
        seed: UInt64
    ) async throws {
        var random = SplitMix64(seed: seed)
        let scene = Scene(seed: seed, takesStillHeads: seed % 2 == 0)
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            let place: Fate.Place =
                switch Int.random(in: 0..<5, using: &random) {
                case 0: .number(Int.random(in: 1...60, using: &random))
                case 1: .number(Int.random(in: 1...400, using: &random))
                case 2: .named(Self.worst.randomElement(using: &random) ?? "")
                case 3: .after(Self.inTheLastRound.randomElement(using: &random) ?? "", "target furnish")
                default:
                    .after(
                        ["target save", "target save, done"].randomElement(using: &random) ?? "",
                        ["target commit, done", "source isUnchanged", "client attach, done"].randomElement(
                            using: &random) ?? "")
                }
            let run = scene.run(Fate(place, .death))
            let failure = try await run.go()
            #expect(scene.violations.all == [])
            // All was over before it could be killed, but for the answer.
            if failure == nil || scene.target.names == ["finished"] { break }
            await run.hold.close()
            scene.target.crash { _ in Bool.random(using: &random) }
            if Bool.random(using: &random) {
                let start = Int.random(in: 0..<scene.ledger.count, using: &random)
                scene.discard(start..<Int.random(in: start...scene.ledger.count, using: &random))
            }
        }
        if scene.target.names != ["finished"] {
            let last = scene.run()
            #expect(try await last.go()?.lines == nil)
            scene.expectMoved(last)
        }
        #expect(scene.violations.all == [])
        #expect(scene.ledger.violation(scene.target.bytes()) == nil)
    }
}

/// Whether a target hangs, and until when.
final class Hang: Sendable {
    private enum Stage { case toCome, underWay, over }
    private let stage = Mutex(Stage.toCome)

    var isUnderWay: Bool { stage.withLock { $0 == .underWay } }
    func end() { stage.withLock { $0 = .over } }

    /// From the first call on in which the writer is held still.
    func pass(_ gate: Gate) async {
        let isHung = stage.withLock { stage in
            if stage == .toCome, gate.hasOpened, gate.isShut { stage = .underWay }
            return stage == .underWay
        }
        guard isHung else { return }
        while isUnderWay { try? await Task.sleep(for: .milliseconds(2)) }
    }
}

/// A target that hangs in certain calls.
struct HangingTarget: TargetWrapper {
    enum Place { case resize, flush }

    let inner: any TargetVolume
    private let gate: Gate
    private let hang: Hang
    private let place: Place

    init(_ inner: any TargetVolume, _ gate: Gate, _ hang: Hang, at place: Place) {
        (self.inner, self.gate, self.hang, self.place) = (inner, gate, hang, place)
    }

    func resize(to size: ByteCount) async throws(VolumeError) {
        if place == .resize { await hang.pass(gate) }
        try await inner.resize(to: size)
    }
    func flush() async throws(VolumeError) {
        // What is to be flushed is there already.
        if place == .flush { await hang.pass(gate) }
        try await inner.flush()
    }
}
