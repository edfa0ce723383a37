import Conformance
import NIOCore
import Testing
import Volumes

@testable import Relay

/// Bytes, packed and unpacked; what is worth packing; what goes out together.
struct PayloadTests {
    private static func unpacked(_ payload: Payload) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0xa5, count: payload.length)
        let isRight = unsafe bytes.withUnsafeMutableBytes { unsafe payload.unpack(into: $0) }
        return isRight ? bytes : nil
    }

    private static func pack(_ bytes: [UInt8], acceleration: Int? = 1) -> Payload {
        unsafe bytes.withUnsafeBytes { unsafe Payload($0, acceleration: acceleration) }
    }

    @Test(arguments: [1, 15, 16, 512, 4096, 65_537, 1 << 20, 4 << 20])
    func `what is packed comes out as it was`(count: Int) {
        var random = SplitMix64(seed: UInt64(count))
        let words = (0..<count).map { _ in UInt8(random.next() % 3) }
        for bytes in [random.bytes(count), words, [UInt8](repeating: 9, count: count)] {
            for acceleration in [nil, 1, 8, 65_537] {
                let payload = Self.pack(bytes, acceleration: acceleration)
                #expect(Self.unpacked(payload) == bytes)
                #expect(payload.stored.readableBytes <= count && payload.hasShape)
                if acceleration == nil { #expect(payload.encoding == .raw) }
            }
        }
        if count >= 4096 { #expect(Self.pack(words).encoding == .lz4) }
        #expect(Self.pack(random.bytes(count)).encoding == .raw)
    }

    @Test func `any changed byte is noticed`() {
        var random = SplitMix64(seed: 5)
        let words = (0..<3000).map { _ in UInt8(random.next() % 5) }
        for payload in [Self.pack(words), Self.pack(random.bytes(3000))] {
            for _ in 0..<2000 {
                var stored = Array(payload.stored.readableBytesView)
                stored[Int.random(in: 0..<stored.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                let spoiled = Payload(
                    encoding: payload.encoding, length: payload.length, checksum: payload.checksum,
                    stored: ByteBuffer(bytes: stored))
                let bytes = Self.unpacked(spoiled)
                // A block has bits that mean nothing; what comes out is right or refused.
                #expect(bytes == nil || bytes == words)
            }
        }
    }

    @Test func `a block that is longer or shorter than it says is refused`() {
        let payload = Self.pack([UInt8](repeating: 3, count: 10_000))
        for length in [1, 9_999, 10_001, 4 << 20] {
            let other = Payload(encoding: .lz4, length: length, checksum: payload.checksum, stored: payload.stored)
            #expect(Self.unpacked(other) == nil)
        }
    }

    @Test func `a frame that would swell beyond its bound is refused`() {
        let most = [UInt8](repeating: 0, count: RelayBounds.payload)
        let payload = Self.pack(most)
        #expect(payload.stored.readableBytes < 20_000)
        for (count, isTaken) in [(8, true), (9, false)] {
            let changes = (0..<count).map { Change.write(ByteOffset(UInt64($0) << 22), payload) }
            var body = Changes.write(changes).joined
            #expect((Changes.read(&body) != nil) == isTaken)
        }
    }

    // MARK: What is worth it

    @Test func `what gets no shorter is tried ever more seldom, until something does`() {
        var compression = Compression(.auto)
        var tried = 0
        for _ in 0..<1000 where compression.tries(4096) {
            tried += 1
            compression.note(isShorter: false)
        }
        #expect(tried > 10 && tried < 40)
        while !compression.tries(4096) {}
        compression.note(isShorter: true)
        for _ in 0..<100 {
            let isTried = compression.tries(4096)
            #expect(isTried)
            compression.note(isShorter: true)
        }
    }

    @Test func `always, never, and not for a few bytes`() {
        var (always, never) = (Compression(.lz4), Compression(.none))
        for _ in 0..<10 {
            let tried = [always.tries(4096), never.tries(4096), always.tries(511)]
            #expect(tried == [true, false, false])
            always.note(isShorter: false)
        }
    }

    // MARK: What goes together

    @Test func `an idle line keeps nothing waiting, and a busy one gathers`() {
        var gathering = Gathering<Int>()
        var taken: [Int]?
        func zero(_ number: Int) -> Change { .zero(Extent(offset: ByteOffset(UInt64(number)), length: ByteCount(1))) }
        for number in 0..<Gathering<Int>.mostFrames {
            gathering.add(zero(number), number)
            taken = gathering.take()?.tickets
            #expect(taken == [number])
        }
        for number in 10..<2000 { gathering.add(zero(number), number) }
        taken = gathering.take()?.tickets
        #expect(taken == nil, "enough is under way")
        gathering.frameEnded()
        taken = gathering.take()?.tickets
        #expect(taken == Array(10..<10 + RelayBounds.changes))
        taken = gathering.take()?.tickets
        #expect(taken == nil)
        gathering.frameEnded()
        taken = gathering.take()?.tickets
        #expect(taken == Array(10 + RelayBounds.changes..<2000))
        let rest = gathering.giveUp()
        #expect(gathering.isEmpty && rest.isEmpty)
        gathering.add(zero(1), 1)
        let left = gathering.giveUp()
        #expect(left == [1])
        #expect(gathering.isEmpty)
    }

    @Test func `a frame's bytes are bounded, and it always has something`() {
        var gathering = Gathering<Int>()
        var taken: [Int]?
        let payload = Self.pack([UInt8](repeating: 1, count: 3 << 20), acceleration: nil)
        for number in 0..<5 { gathering.add(.write(ByteOffset(UInt64(number) << 22), payload), number) }
        taken = gathering.take()?.tickets
        #expect(taken == [0, 1])
        taken = gathering.take()?.tickets
        #expect(taken == [2, 3])
        taken = gathering.take()?.tickets
        #expect(taken == [4])
    }
}
