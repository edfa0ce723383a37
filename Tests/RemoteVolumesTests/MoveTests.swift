import Conformance
import Mirror
import RemoteVolumes
import Synchronization
import Testing
import Volumes

/// Moves to a receiver, and what ends them.
struct MoveTests {
    static func source(seed: UInt64, snapshots: Int = 3) -> MemoryVolume.Place {
        let place = MemoryVolume.Place()
        var random = SplitMix64(seed: seed)
        place.make(size: .mebibytes(12))
        for number in 0...snapshots {
            for _ in 0..<12 {
                let count = Int.random(in: 1...300_000, using: &random)
                let start = UInt64.random(in: 0...(12 << 20) - UInt64(count), using: &random)
                place.write(
                    Bool.random(using: &random) ? random.bytes(count) : [UInt8](repeating: 7, count: count),
                    at: ByteOffset(start))
            }
            place.zero(Extent(offset: ByteOffset(random.next() % (8 << 20)), length: .mebibytes(1)))
            if number < snapshots { place.takeSnapshot("s\(number)", isProtected: number == 1) }
        }
        return place
    }

    static func expectSame(_ source: MemoryVolume.Place, _ target: MemoryVolume.Place) {
        #expect(target.names == ["finished"])
        #expect(target.bytes() == source.bytes())
        let (ours, theirs) = (source.snapshots, target.snapshots)
        #expect(ours.map(\.name) == theirs.map(\.name) && ours.map(\.isProtected) == theirs.map(\.isProtected))
        for (our, their) in zip(ours, theirs) {
            #expect(source.bytes(of: .snapshot(our)) == target.bytes(of: .snapshot(their)), "\(our.name)")
        }
    }

    @discardableResult
    static func move(
        _ place: MemoryVolume.Place, to target: any TargetVolume, verifies: Bool = false,
        fault: @escaping MemoryVolume.Fault = { (_, _) throws(VolumeError) in }
    ) async throws(MoveError) -> Report {
        var options = MoveOptions()
        options.granularity = Granularity(Granularity.smallest)!
        options.inFlight = .mebibytes(4)
        options.verifies = verifies
        let source = MemoryVolume(at: place, address: "memory:source", fault: fault)
        return try await Move(from: source, to: target, options: options).run()
    }

    @Test(arguments: RelayOptions.Compress.allCases, [1, 3])
    func `all snapshots, verified by digests`(compress: RelayOptions.Compress, connections: Int) async throws {
        let place = Self.source(seed: 1)
        try await withReceiver { receiver in
            var how = RelayOptions()
            (how.compress, how.connections) = (compress, connections)
            let target = try await receiver.connect(options: how)
            #expect(target.connectionCount == connections)
            #expect(try await Self.move(place, to: target, verifies: true).verified == true)
            Self.expectSame(place, receiver.place())
        }
    }

    @Test func `metadata arrives`() async throws {
        let place = MemoryVolume.Place()
        place.make(size: .mebibytes(1), metadata: ["conf_rbd_cache": "false", "ü": "\u{1}"])
        try await withReceiver { receiver in
            let target = try await receiver.connect()
            try await Self.move(place, to: target)
            #expect(try await target.describe().metadata == ["conf_rbd_cache": "false", "ü": "\u{1}"])
        }
    }

    /// Fails at some operation, and at all after it.
    private final class Mishap: Sendable {
        private let left = Mutex(Int.max)

        func set(after count: Int) { left.withLock { $0 = count } }

        /// - Parameter kind: `unreachable`: whoever hears of it asks no more, and lets go of nothing.
        func check(_ operation: String, _ kind: VolumeError.Kind) throws(VolumeError) {
            let isNow = left.withLock { left in
                if left > 0, left < Int.max { left -= 1 }
                return left == 0
            }
            if isNow { throw VolumeError(kind, operation, on: "a test", reason: "planted") }
        }
    }

    @Test(arguments: 1...UInt64(16))
    func `a move goes on from its record, whichever end is gone`(seed: UInt64) async throws {
        let place = Self.source(seed: seed)
        var random = SplitMix64(seed: seed)
        let (near, far) = (Mishap(), Mishap())
        let receiver = try Receiver(fault: { operation, _ throws(VolumeError) in try far.check(operation, .failed) })
        try await receiver.start()
        var failures = 0
        while true {
            let isBefallen = failures < 4
            let isFar = Bool.random(using: &random)
            (isFar ? far : near).set(after: isBefallen ? Int.random(in: 1...80, using: &random) : .max)
            do {
                // The only reference: its connections end with the run.
                try await Self.move(place, to: try await receiver.connect()) { operation, _ throws(VolumeError) in
                    try near.check(operation, .unreachable)
                }
                break
            } catch let error as MoveError {
                // A move forgets its record last: if only that answer is lost, nothing is left to do.
                if receiver.place().names == ["finished"] { break }
                if error.lines.contains(where: { $0.contains("another move goes into it") }) {
                    // The receiver has yet to notice that the one before has ended.
                    try await Task.sleep(for: .milliseconds(20))
                    continue
                }
                try #require(isBefallen, "\(error)")
                failures += 1
            }
            far.set(after: .max)
            near.set(after: .max)
            guard isFar else { continue }
            // As when the far host was restarted: what wasn't flushed is lost in part.
            try await receiver.stop()
            var lost = SplitMix64(seed: random.next())
            receiver.place().crash { _ in Bool.random(using: &lost) }
            try await receiver.start()
        }
        #expect(failures > 0)
        Self.expectSame(place, receiver.place())
        #expect(place.snapshots.filter(\.isTransient).isEmpty)
        try await receiver.stop()
    }

    @Test func `where the state that a target was brought to is gone, hashes tell what is sent`() async throws {
        let place = Self.source(seed: 3, snapshots: 0)
        try await withReceiver { receiver in
            await #expect(throws: MoveError.self) {
                try await Self.move(place, to: try await receiver.connect()) { operation, _ throws(VolumeError) in
                    guard operation == "isUnchanged" else { return }
                    throw VolumeError(.failed, operation, on: "a test", reason: "planted")
                }
            }
            for snapshot in place.snapshots { place.removeSnapshot(snapshot.name) }
            place.write([9, 9, 9], at: ByteOffset(5 << 20))
            place.zero(Extent(offset: ByteOffset(2 << 20), length: .kibibytes(128)))
            for _ in 0..<500 {
                do {
                    let report = try await Self.move(place, to: try await receiver.connect())
                    #expect(report.resumed && report.sentBytes > 0 && report.sentBytes <= 65_536)
                    break
                } catch let error as MoveError {
                    // The receiver has yet to notice that the one before has ended.
                    try #require(error.lines.contains { $0.contains("another move goes into it") }, "\(error)")
                    try await Task.sleep(for: .milliseconds(20))
                }
            }
            Self.expectSame(place, receiver.place())
        }
    }

    @Test func `a receiver that ends lets go, and the next takes the same move up`() async throws {
        let receiver = try Receiver()
        try await receiver.start()
        let first = try await receiver.connect()
        try await first.begin(8192)
        try await first.write([1, 2, 3], at: 100)
        try await first.flush()
        try await receiver.stop()
        await #expect(throws: VolumeError.self) { try await first.flush() }
        try await receiver.start()
        let second = try await receiver.connect()
        #expect(try await second.state() == .unfinished(record: "r"))
        try await second.own()
        try await second.commit(as: VolumeDescription(identity: "x", size: ByteCount(8192)))
        #expect(Array(receiver.place().bytes()[100..<103]) == [1, 2, 3])
        try await receiver.stop()
    }

    @Test func `whoever loses its connection is told of to the next, who lets go is not`() async throws {
        try await withReceiver { receiver in
            var first: RemoteTarget? = try await receiver.connect()
            try await first?.begin(8192)
            let second = try await receiver.connect()
            await #expect(throws: VolumeError.self) { try await second.own() }
            first = nil
            // The connection's end is on its way.
            var hasFenced: Bool?
            while hasFenced == nil { hasFenced = try? await second.own() }
            #expect(hasFenced == true)
            await second.close()
            let third = try await receiver.connect()
            #expect(try await third.own() == false)
        }
    }

    private static func expectBusy(
        _ body: () async throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
    ) async {
        let error = await #expect(throws: VolumeError.self, sourceLocation: sourceLocation) { try await body() }
        #expect(error?.kind == .busy, sourceLocation: sourceLocation)
    }

    @Test func `a second near side is refused whatever it would change`() async throws {
        try await withReceiver { receiver in
            let (first, second) = (try await receiver.connect(), try await receiver.connect())
            try await first.begin(8192)
            let other = VolumeDescription(identity: "x", size: ByteCount(8192))
            await Self.expectBusy { _ = try await second.own() }
            await Self.expectBusy { try await second.save(record: "mine") }
            await Self.expectBusy { try await second.discard() }
            await Self.expectBusy { try await second.commit(as: other) }
            await Self.expectBusy { try await second.forget() }
            await Self.expectBusy { try await second.flush() }
            await Self.expectBusy { try await second.write([1], at: 0) }
            #expect(try await second.state() == .unfinished(record: "r"))
        }
    }

    @Test func `differences are found by digests, first byte and last`() async throws {
        try await withReceiver { receiver in
            let place = Self.source(seed: 3, snapshots: 0)
            try await Self.move(place, to: try await receiver.connect())
            func differences() async throws -> [Verification.Difference] {
                try await Verification(
                    source: MemoryVolume(at: place, address: "memory:source"), target: try await receiver.connect(),
                    progress: WorkProgress(), stop: StopRequest()
                ).run()
            }
            #expect(try await differences().isEmpty)
            let end = UInt64(12 << 20) - 1
            for (offset, value) in [(end, UInt8(0x55)), (7_000_001, 0x99), (0, 0x77)] as [(UInt64, UInt8)] {
                let before = receiver.place().bytes()[Int(offset)]
                receiver.place().write([before ^ value], at: ByteOffset(offset))
                let found = try await differences()
                #expect(found.map(\.offset) == [offset] && found.map(\.length) == [1])
            }
            // Nor is anything of the source missed that the far side has as zeros.
            receiver.place().write(Array(place.bytes()[0..<1]), at: .zero)
            place.write([1], at: ByteOffset(9 << 20))
            receiver.place().zero(Extent(offset: ByteOffset(9 << 20), length: .kibibytes(4)))
            #expect(try await !differences().isEmpty)
        }
    }
}
