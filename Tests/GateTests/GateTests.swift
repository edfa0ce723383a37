import Conformance
import Gate
import Synchronization
import Testing
import Volumes

/// A disk that can be exchanged beneath its users.
@Suite(.timeLimit(.minutes(4)))
struct GateTests {
    static let block = [UInt8](repeating: 7, count: 4096)

    /// Open, with a disk in its place.
    private func opened() async throws -> (gate: Gate, disk: HeldDisk) {
        let (gate, disk) = (Gate(), try await HeldDisk())
        gate.seat(disk, watch: nil)
        gate.open()
        return (gate, disk)
    }

    @Test func `it has nothing to serve before it opened`() async throws {
        let gate = Gate()
        #expect(gate.isShut && !gate.hasOpened)
        let place = MemoryVolume.Place()
        place.make(size: .mebibytes(1))
        gate.seat(try await MemoryVolume(at: place).attach(.head, isWritable: true), watch: nil)
        gate.open()
        #expect(!gate.isShut && gate.hasOpened && gate.size == .mebibytes(1))
    }

    @Test func `what comes before it opened waits for the disk`() async throws {
        let (gate, disk) = (Gate(), try await HeldDisk())
        async let writing: Void = gate.write(Self.block, at: 0)
        try await aWhile()
        gate.seat(disk, watch: nil)
        try await aWhile()
        #expect(disk.log.isEmpty && disk.running.isEmpty)
        gate.open()
        try await writing
        #expect(disk.log == ["write 0+4096"])
    }

    @Test(arguments: ["write", "zero", "discard", "flush", "write at once"])
    func `while it is shut, changes and flushes wait`(kind: String) async throws {
        let (gate, disk) = try await opened()
        gate.shut()
        let isOver = Mutex(false)
        async let changing: Void = {
            try await change(gate, kind)
            isOver.withLock { $0 = true }
        }()
        try await aWhile()
        #expect(disk.log.isEmpty && disk.running.isEmpty && !isOver.withLock { $0 })
        gate.open()
        try await changing
        #expect(disk.log.count == 1)
    }

    private func change(_ gate: Gate, _ kind: String) async throws(VolumeError) {
        let extent = Extent(offset: .zero, length: .kibibytes(4))
        switch kind {
        case "write": try await gate.write(Self.block, at: 0)
        case "zero": try await gate.zero(extent, keepsRoom: false)
        case "discard": try await gate.discard(extent)
        case "flush": try await gate.flush()
        default:
            guard try await writesAtOnce(gate) else { return try await gate.write(Self.block, at: 0) }
        }
    }

    private func writesAtOnce(_ gate: Gate) async throws(VolumeError) -> Bool {
        unsafe try await withIOBuffer(of: .kibibytes(4)) { buffer throws(VolumeError) in
            unsafe buffer.copyBytes(from: Self.block)
            return unsafe try gate.writeAtOnce(UnsafeRawBufferPointer(buffer), at: .zero)
        }
    }

    @Test func `while it is shut, reads go on`() async throws {
        let (gate, disk) = try await opened()
        try await gate.write(Self.block, at: 0)
        gate.shut()
        #expect(try await gate.bytes(in: 0..<4096) == Self.block)
        #expect(try await gate.extents(in: Extent(offset: .zero, length: gate.size), since: nil).extents.count == 1)
        #expect(disk.log == ["write 0+4096", "read 0+4096"])
    }

    @Test(arguments: ["write", "flush"])
    func `it is still once nothing is under way`(kind: String) async throws {
        let (gate, disk) = try await opened()
        disk.hold(kind)
        async let changing: Void = change(gate, kind)
        try await waitUntil { !disk.running.isEmpty }
        gate.shut()
        let isStill = Mutex(false)
        async let waiting: Void = {
            await gate.untilStill()
            isStill.withLock { $0 = true }
        }()
        try await aWhile()
        #expect(!isStill.withLock { $0 })
        disk.release()
        try await changing
        await waiting
        #expect(gate.isShut)
    }

    @Test func `who waits until it is still goes on when it is opened`() async throws {
        let (gate, disk) = try await opened()
        disk.hold("write")
        async let writing: Void = gate.write(Self.block, at: 0)
        try await waitUntil { !disk.running.isEmpty }
        gate.shut()
        async let waiting: Void = gate.untilStill()
        try await aWhile()
        gate.open()
        await waiting
        #expect(!gate.isShut && disk.running == ["write 0+4096"])
        disk.release()
        try await writing
    }

    @Test func `a disk is exchanged between two requests`() async throws {
        let (gate, disk) = try await opened()
        let other = try await HeldDisk(size: .mebibytes(2))
        try await gate.write(Self.block, at: 0)
        gate.shut()
        await gate.untilStill()
        async let writing: Void = gate.write(Self.block, at: 8192)
        async let flushing: Void = gate.flush()
        try await aWhile()
        gate.seat(other, watch: nil)
        gate.open()
        try await writing
        try await flushing
        #expect(disk.log == ["write 0+4096"])
        #expect(Set(other.log) == ["write 8192+4096", "flush"] && gate.size == .mebibytes(2))
        #expect(try await gate.bytes(in: 8192..<12288) == Self.block)
    }

    @Test func `an older disk is left once nobody reads it`() async throws {
        let (gate, disk) = try await opened()
        disk.hold("read")
        async let first = gate.bytes(in: 0..<4096)
        async let second = gate.bytes(in: 0..<8192)
        try await waitUntil { disk.running.count == 2 }
        let other = try await HeldDisk()
        gate.shut()
        gate.seat(other, watch: nil)
        gate.open()
        let isLeft = Mutex(false)
        async let leaving: Void = {
            await gate.leaveOlder()
            isLeft.withLock { $0 = true }
        }()
        // Who reads the new one isn't waited for.
        #expect(try await gate.bytes(in: 0..<512).count == 512)
        try await aWhile()
        #expect(!isLeft.withLock { $0 } && other.log == ["read 0+512"])
        disk.release()
        _ = try await (first, second)
        await leaving
        #expect(isLeft.withLock { $0 })
        await gate.leaveOlder()
    }

    @Test func `a limit holds writes to its rate`() async throws {
        let (gate, _) = try await opened()
        gate.limit(to: ByteRate(bytesPerSecond: 1 << 20))
        let clock = ContinuousClock()
        let taken = try await clock.measure {
            for number in 0..<4 { try await gate.write([UInt8](repeating: 1, count: 128 << 10), at: number << 17) }
        }
        // Half a MiB, of which a tenth of a second may come at once.
        #expect(taken >= Duration.milliseconds(300))
    }

    @Test func `who waits for a limit goes on when it is lifted`() async throws {
        let (gate, disk) = try await opened()
        gate.limit(to: ByteRate(bytesPerSecond: 1024))
        async let writing: Void = gate.write([UInt8](repeating: 1, count: 1 << 20), at: 0)
        try await aWhile()
        #expect(disk.log.isEmpty)
        let clock = ContinuousClock()
        let lifted = clock.now
        gate.limit(to: nil)
        try await writing
        #expect(clock.now - lifted < Duration.seconds(5))
    }

    @Test func `what a limit queues doesn't hold up who shuts it`() async throws {
        let (gate, disk) = try await opened()
        gate.limit(to: ByteRate(bytesPerSecond: 1024))
        async let writing: Void = gate.write([UInt8](repeating: 1, count: 1 << 20), at: 0)
        try await aWhile()
        gate.shut()
        await gate.untilStill()
        gate.limit(to: nil)
        try await aWhile()
        #expect(disk.log.isEmpty && disk.running.isEmpty)
        gate.open()
        try await writing
    }

    @Test func `holes cost little of a limit`() async throws {
        let (gate, disk) = try await opened()
        gate.limit(to: ByteRate(bytesPerSecond: 1 << 18))
        let all = Extent(offset: .zero, length: gate.size)
        let clock = ContinuousClock()
        let taken = try await clock.measure {
            try await gate.zero(all, keepsRoom: false)
            try await gate.discard(all)
        }
        // 2 MiB would take eight seconds.
        #expect(taken < Duration.seconds(4) && disk.log.count == 2)
    }

    @Test func `it writes at once only where nothing is waited for, and nobody is told`() async throws {
        let (gate, disk) = try await opened()
        #expect(try await writesAtOnce(gate))
        gate.limit(to: ByteRate(bytesPerSecond: 1 << 30))
        #expect(try await !writesAtOnce(gate))
        gate.limit(to: nil)
        gate.shut()
        #expect(try await !writesAtOnce(gate))
        let other = try await HeldDisk()
        gate.seat(other, watch: Witness(other))
        gate.open()
        #expect(try await !writesAtOnce(gate))
        #expect(disk.log == ["write at once"] && other.log.isEmpty)
    }

    @Test func `a watch is told before and after each change`() async throws {
        let (gate, disk) = (Gate(), try await HeldDisk())
        let watch = Witness(disk)
        gate.seat(disk, watch: watch)
        gate.open()
        try await gate.write(Self.block, at: 4096)
        try await gate.zero(Extent(offset: .zero, length: .kibibytes(8)), keepsRoom: true)
        try await gate.flush()
        try await gate.discard(Extent(offset: .zero, length: .kibibytes(4)))
        #expect(
            watch.told == [
                "will 4096+4096 after 0", "did 4096+4096 after 1", "will 0+8192 after 1", "did 0+8192 after 2",
                "will 0+4096 after 3", "did 0+4096 after 4",
            ])
    }

    @Test func `a watch is told the end of a write that failed`() async throws {
        let (gate, disk) = (Gate(), try await HeldDisk())
        let watch = Witness(disk)
        gate.seat(disk, watch: watch)
        gate.open()
        disk.fail()
        await #expect(throws: VolumeError.self) { try await gate.write(Self.block, at: 0) }
        #expect(watch.told == ["will 0+4096 after 0", "did 0+4096 after 0"])
    }

    @Test func `what a watch refuses isn't begun`() async throws {
        let (gate, disk) = (Gate(), try await HeldDisk())
        let watch = Witness(disk)
        watch.refuses = true
        gate.seat(disk, watch: watch)
        gate.open()
        await #expect(throws: VolumeError.self) { try await gate.write(Self.block, at: 0) }
        #expect(disk.log.isEmpty && watch.told == ["will 0+4096 after 0"])
        // Nor does it keep the gate from being still.
        gate.shut()
        await gate.untilStill()
    }

    @Test func `a watch isn't told of the disk that comes after`() async throws {
        let (gate, disk) = (Gate(), try await HeldDisk())
        let watch = Witness(disk)
        gate.seat(disk, watch: watch)
        gate.open()
        gate.shut()
        gate.seat(try await HeldDisk(), watch: nil)
        gate.open()
        try await gate.write(Self.block, at: 0)
        #expect(watch.told.isEmpty && gate.dirty(in: Extent(offset: .zero, length: gate.size)).isEmpty)
    }

    @Test func `what waits fails once it is abandoned`() async throws {
        let (gate, disk) = try await opened()
        gate.shut()
        let writing = Task { try await gate.write(Self.block, at: 0) }
        let flushing = Task { try await gate.flush() }
        try await aWhile()
        gate.abandon()
        await #expect(throws: VolumeError.self) { try await writing.value }
        await #expect(throws: VolumeError.self) { try await flushing.value }
        await #expect(throws: VolumeError.self) { try await gate.write(Self.block, at: 0) }
        #expect(disk.log.isEmpty)
    }

    @Test func `it tells for how long it was shut at most`() async throws {
        let (gate, _) = try await opened()
        #expect(gate.longestShut == .zero)
        gate.shut()
        try await Task.sleep(for: .milliseconds(50))
        gate.shut()
        gate.open()
        let longest = gate.longestShut
        #expect(longest >= Duration.milliseconds(50))
        gate.shut()
        gate.open()
        #expect(gate.longestShut == longest)
    }
}
