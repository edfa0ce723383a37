import Conformance
import Cutover
import Gate
import Synchronization
import Testing
import Volumes

/// Who holds the users of a gate still, and exchanges the volume beneath them.
@Suite(.timeLimit(.minutes(4)))
struct GateHoldTests {
    /// A hold between two disks of which a test knows all.
    private struct Bench {
        let gate = Gate()
        let source: ServedDisk
        let target: ServedDisk
        let hold: GateHold

        init(target: HeldDisk? = nil) async throws {
            let standIn = if let target { target } else { try await HeldDisk(blockSize: ByteCount(512)) }
            let (source, target) = (ServedDisk(try await HeldDisk(blockSize: ByteCount(512))), ServedDisk(standIn))
            (self.source, self.target) = (source, target)
            hold = GateHold(title: "a gate", gate: gate, source: source) { () throws(VolumeError) in target }
        }

        /// As it is while a move goes on.
        static func begun(target: HeldDisk? = nil) async throws -> Bench {
            let bench = try await Bench(target: target)
            try await bench.hold.prepare()
            try await bench.hold.begin()
            return bench
        }
    }

    @Test func `its users come to the source as the move begins`() async throws {
        let bench = try await Bench()
        try await bench.hold.prepare()
        #expect(bench.gate.isShut && bench.source.served == 0 && bench.hold.whereabouts == "neither volume")
        try await bench.hold.begin()
        try await bench.hold.begin()
        #expect(!bench.gate.isShut && bench.source.served == 1 && bench.hold.whereabouts == "the source")
    }

    @Test func `a freeze has all seen that was acknowledged, most of it before`() async throws {
        let bench = try await Bench.begun()
        try await bench.gate.write(GateTests.block, at: 0)
        try await bench.hold.freeze()
        #expect(bench.hold.isHolding && bench.gate.isShut)
        #expect(bench.source.disk.log == ["write 0+4096", "flush", "flush"])
    }

    @Test func `a freeze waits for what is under way`() async throws {
        let bench = try await Bench.begun()
        bench.source.disk.hold("write")
        async let writing: Void = bench.gate.write(GateTests.block, at: 0)
        try await waitUntil { !bench.source.disk.running.isEmpty }
        async let freezing: Void = bench.hold.freeze()
        try await aWhile()
        #expect(bench.source.disk.log == ["flush"])
        bench.source.disk.release()
        try await writing
        try await freezing
        #expect(bench.source.disk.log == ["flush", "write 0+4096", "flush"])
    }

    @Test func `a promised pause is over by itself`() async throws {
        let bench = try await Bench.begun()
        bench.hold.promise(.milliseconds(50))
        try await bench.hold.freeze()
        try await bench.gate.write(GateTests.block, at: 0)
        #expect(!bench.hold.isHolding && !bench.gate.isShut && bench.gate.longestShut >= Duration.milliseconds(50))
        #expect(!bench.hold.seal())
        // Once more from the beginning.
        try await bench.hold.thaw()
        try await bench.hold.freeze()
        #expect(bench.hold.isHolding && bench.gate.isShut && bench.hold.seal())
    }

    @Test func `a pause is over although the source hangs`() async throws {
        let bench = try await Bench.begun()
        bench.source.disk.hold("write")
        async let writing: Void = bench.gate.write(GateTests.block, at: 0)
        try await waitUntil { !bench.source.disk.running.isEmpty }
        bench.hold.promise(.milliseconds(50))
        async let freezing: Void = bench.hold.freeze()
        try await waitUntil { bench.gate.isShut }
        try await waitUntil(.seconds(5)) { !bench.gate.isShut }
        #expect(!bench.hold.isHolding && !bench.hold.seal())
        bench.source.disk.release()
        try await freezing
        try await writing
        #expect(!bench.gate.isShut)
    }

    @Test func `what hangs before the pause holds nobody still`() async throws {
        let bench = try await Bench.begun()
        bench.source.disk.hold("flush")
        async let freezing: Void = bench.hold.freeze()
        try await waitUntil { !bench.source.disk.running.isEmpty }
        try await bench.gate.write(GateTests.block, at: 0)
        #expect(!bench.gate.isShut)
        bench.source.disk.release()
        try await freezing
        #expect(bench.gate.isShut)
    }

    @Test func `a pause that is over at once doesn't leave it shut`() async throws {
        for _ in 0..<50 {
            let bench = try await Bench.begun()
            bench.hold.promise(.zero)
            try await bench.hold.freeze()
            try await waitUntil(.seconds(5)) { !bench.hold.isHolding }
            #expect(!bench.gate.isShut)
        }
    }

    @Test func `a sealed pause lasts until it is thawed`() async throws {
        let bench = try await Bench.begun()
        bench.hold.promise(.milliseconds(50))
        try await bench.hold.freeze()
        #expect(bench.hold.seal() && bench.hold.seal())
        try await Task.sleep(for: .milliseconds(150))
        #expect(bench.hold.isHolding && bench.gate.isShut && bench.hold.seal())
        try await bench.hold.thaw()
        try await bench.hold.thaw()
        #expect(!bench.hold.isHolding && !bench.gate.isShut && !bench.hold.seal())
    }

    @Test func `without a promise a pause takes as long as it takes`() async throws {
        let bench = try await Bench.begun()
        bench.hold.promise(.milliseconds(20))
        try await bench.hold.freeze()
        try await bench.hold.thaw()
        bench.hold.promise(nil)
        try await bench.hold.freeze()
        try await Task.sleep(for: .milliseconds(100))
        #expect(bench.hold.isHolding && bench.gate.isShut && bench.hold.seal())
    }

    @Test func `the promise of an earlier pause ends no later one`() async throws {
        let bench = try await Bench.begun()
        bench.hold.promise(.milliseconds(60))
        try await bench.hold.freeze()
        try await bench.hold.thaw()
        bench.hold.promise(.seconds(30))
        try await bench.hold.freeze()
        try await Task.sleep(for: .milliseconds(150))
        #expect(bench.hold.isHolding && bench.gate.isShut)
    }

    @Test func `it opens the target, and lets nobody in before the source is left`() async throws {
        let bench = try await Bench.begun()
        try await bench.hold.freeze()
        #expect(bench.hold.seal())
        async let writing: Void = bench.gate.write(GateTests.block, at: 0)
        try await bench.hold.switchOver()
        try await bench.hold.switchOver()
        try await aWhile()
        #expect(bench.target.attached == 1 && bench.target.disk.log.isEmpty && bench.hold.whereabouts == "the source")
        try await bench.hold.leaveSource()
        try await writing
        #expect(bench.target.disk.log == ["write 0+4096"] && bench.hold.whereabouts == "the target")
        #expect(bench.source.served == 0 && !bench.hold.isHolding)
        // Nobody is sent back, and nothing is done twice.
        try await bench.hold.leaveSource()
        try await bench.hold.switchOver()
        try await bench.hold.thaw()
        #expect(bench.target.attached == 1 && !bench.target.disk.isClosed && bench.hold.whereabouts == "the target")
        await bench.hold.close()
        #expect(bench.target.disk.isClosed)
    }

    @Test func `the source is closed once nobody reads it`() async throws {
        let bench = try await Bench.begun()
        bench.source.disk.hold("read")
        async let reading = bench.gate.bytes(in: 0..<4096)
        try await waitUntil { !bench.source.disk.running.isEmpty }
        try await bench.hold.freeze()
        #expect(bench.hold.seal())
        async let leaving: Void = bench.hold.leaveSource()
        try await waitUntil { !bench.gate.isShut }
        try await aWhile()
        #expect(bench.source.served == 1)
        bench.source.disk.release()
        _ = try await reading
        try await leaving
        #expect(bench.source.served == 0)
    }

    @Test func `thawed after it opened the target, it closes that`() async throws {
        let bench = try await Bench.begun()
        try await bench.hold.freeze()
        #expect(bench.hold.seal())
        try await bench.hold.switchOver()
        try await bench.hold.thaw()
        #expect(bench.target.disk.isClosed && !bench.gate.isShut && bench.hold.whereabouts == "the source")
        try await bench.gate.write(GateTests.block, at: 0)
        #expect(bench.source.disk.log.last == "write 0+4096" && bench.target.disk.log.isEmpty)
    }

    @Test func `after a restart it goes to the target by itself`() async throws {
        let bench = try await Bench()
        try await bench.hold.prepare()
        try await bench.hold.adopt()
        try await bench.hold.leaveSource()
        try await bench.gate.write(GateTests.block, at: 0)
        #expect(bench.target.disk.log == ["write 0+4096"] && bench.source.served == 0 && bench.source.disk.log.isEmpty)
    }

    @Test(arguments: ["too small", "of larger blocks", "for reading only"])
    func `a target that can't stand in is refused`(why: String) async throws {
        let target =
            switch why {
            case "too small": try await HeldDisk(size: .kibibytes(512), blockSize: ByteCount(512))
            case "of larger blocks": try await HeldDisk(blockSize: ByteCount(4096))
            default: try await HeldDisk(blockSize: ByteCount(512), isWritable: false)
            }
        let bench = try await Bench.begun(target: target)
        try await bench.hold.freeze()
        #expect(bench.hold.seal())
        await expectRefusal { () throws(VolumeError) in try await bench.hold.switchOver() }
        #expect(target.isClosed && bench.gate.isShut)
        try await bench.hold.thaw()
        #expect(!bench.gate.isShut && bench.hold.whereabouts == "the source")
    }

    private func expectRefusal(_ body: () async throws(VolumeError) -> Void) async {
        do throws(VolumeError) {
            try await body()
            Issue.record("it wasn't refused")
        } catch {
            #expect(error.kind == .unsupported)
        }
    }

    @Test func `its limit is in force until it is lifted, or the source is left`() async throws {
        let bench = try await Bench.begun()
        let limiter = try #require(bench.hold.limiter)
        let rate = ByteRate(bytesPerSecond: 1024)
        #expect(try await limiter.limit(to: rate) == rate)
        async let first: Void = bench.gate.write([UInt8](repeating: 1, count: 1 << 18), at: 0)
        try await aWhile()
        #expect(bench.source.disk.log.isEmpty)
        try await limiter.lift()
        try await first
        _ = try await limiter.limit(to: rate)
        try await bench.hold.freeze()
        #expect(bench.hold.seal())
        try await bench.hold.leaveSource()
        let clock = ContinuousClock()
        let taken = try await clock.measure {
            try await bench.gate.write([UInt8](repeating: 1, count: 1 << 18), at: 0)
        }
        #expect(taken < Duration.seconds(10))
    }
}

/// A volume that gives a test's own disk to those who use it.
final class ServedDisk: ServableSource, DiskVolume {
    let disk: HeldDisk
    private let volume: MemoryVolume
    private let counts = Mutex((served: 0, attached: 0))

    init(_ disk: HeldDisk) {
        self.disk = disk
        volume = MemoryVolume(at: disk.place)
    }

    var served: Int { counts.withLock(\.served) }
    var attached: Int { counts.withLock(\.attached) }

    func serve() async throws(VolumeError) -> (disk: any Disk, watch: (any ChangeWatch)?) {
        counts.withLock { $0.served += 1 }
        return (disk, nil)
    }
    func endServing() async { counts.withLock { $0.served = 0 } }
    func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk {
        counts.withLock { $0.attached += 1 }
        return disk
    }

    var address: String { volume.address }
    func describe() async throws(VolumeError) -> VolumeDescription { try await volume.describe() }
    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader { try await volume.open(revision) }
    func standing() async throws(VolumeError) -> Standing { try await volume.standing() }
    func obstacles() async throws(VolumeError) -> [Obstacle] { try await volume.obstacles() }
    func freeze(as name: String) async throws(VolumeError) -> Snapshot? { try await volume.freeze(as: name) }
    func thaw(_ name: String) async throws(VolumeError) { try await volume.thaw(name) }
    func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        try await volume.isUnchanged(since: snapshot)
    }
    func claim(for target: String, isLive: Bool) async throws(VolumeError) {}
    func release(from target: String) async throws(VolumeError) {}
    func writers() async throws(VolumeError) -> [Writer] { [] }
    func retire(to target: String, _ rest: Retirement) async throws(VolumeError) {}
    func limit(to rate: ByteRate) async throws(VolumeError) -> ByteRate { rate }
    func lift() async throws(VolumeError) {}
}
