import Conformance
import RBDVolumes
import Testing

struct ObjectMapTests {
    // MARK: Real bytes

    struct Fixture: CustomTestStringConvertible {
        let testDescription: String
        let encoded: [UInt8]
        let count: Int
        /// All others are absent.
        let states: [Int: ObjectMap.State]
    }

    /// As librbd 16.2.15 left them in `rbd_object_map.ID`.
    static let fixtures: [Fixture] = [
        Fixture(
            testDescription: "an image of 42 MiB: some objects older than the snapshot, one newer, one discarded",
            encoded: bytes("0e0000000101080000000b00000000000000c1d00c0c000000e139c873010000004867519f"),
            count: 11, states: [0: .clean, 3: .exists, 4: .clean, 5: .exists, 10: .clean]),
        Fixture(
            testDescription: "its snapshot",
            encoded: bytes("0e0000000101080000000b000000000000004140140c000000e139c87301000000d384f74a"),
            count: 11, states: [0: .exists, 3: .exists, 4: .exists, 9: .exists, 10: .exists]),
        Fixture(
            testDescription: "17,408 objects: more than one block of bits",
            encoded: bytes("0e0000000101080000000044000000000000" + "0010")
                + [UInt8](repeating: 0, count: 4094) + bytes("40") + [UInt8](repeating: 0, count: 254)
                + bytes("01" + "10000000f978e03502000000f22e16dce4dbf924"),
            count: 17408, states: [5: .exists, 16384: .exists, 17407: .exists]),
        Fixture(
            testDescription: "an image without objects",
            encoded: bytes("0e00000001010800000000000000000000000800000052bab7ea00000000"),
            count: 0, states: [:]),
    ]

    private static func bytes(_ hex: String) -> [UInt8] {
        let digits = hex.map { UInt8($0.hexDigitValue!) }
        return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }

    @Test(arguments: fixtures)
    func `what librbd wrote is read as it meant it, and written the same`(fixture: Fixture) throws {
        let map = try #require(ObjectMap(encoded: fixture.encoded))
        #expect(map.count == fixture.count)
        let wrong = (0..<map.count).filter { map[$0] != fixture.states[$0] ?? .absent }
        #expect(wrong.isEmpty)
        #expect(map.encoded() == fixture.encoded)
    }

    @Test(arguments: fixtures)
    func `the same states set one by one give librbd's bytes`(fixture: Fixture) {
        var map = ObjectMap(count: fixture.count)
        for (object, state) in fixture.states { map[object] = state }
        #expect(map.encoded() == fixture.encoded)
    }

    // MARK: Bytes from outside

    @Test(arguments: fixtures)
    func `a map with one bit turned is refused, wherever the bit is`(fixture: Fixture) {
        // All bits of the small ones; of the large one those at its edges.
        let places = fixture.encoded.indices.filter { $0 < 40 || $0 > fixture.encoded.count - 40 }
        for place in places {
            for bit in 0..<8 {
                var damaged = fixture.encoded
                damaged[place] ^= 1 << bit
                #expect(ObjectMap(encoded: damaged) == nil, "byte \(place), bit \(bit)")
            }
        }
    }

    @Test(arguments: fixtures)
    func `a map that was cut short is refused, wherever it was cut`(fixture: Fixture) {
        let lengths = fixture.encoded.indices.filter { $0 < 40 || $0 > fixture.encoded.count - 40 }
        for length in lengths {
            #expect(ObjectMap(encoded: Array(fixture.encoded.prefix(length))) == nil, "cut to \(length)")
        }
    }

    @Test(
        arguments: [
            ("a count beyond librbd's limit", 256_000_001), ("a count whose bits overflow", UInt64.max),
            ("a count near the largest integer", UInt64.max - 2), ("a count that the bytes don't reach", 12_000),
        ] as [(String, UInt64)])
    func `an impossible count is refused`(what: String, count: UInt64) {
        #expect(ObjectMap(encoded: encoded(count: count, bits: [0x40, 0x41])) == nil)
    }

    @Test func `an unknown version is refused`() {
        for header in [[2, 1], [1, 2], [0, 1], [1, 0]] as [[UInt8]] {
            #expect(ObjectMap(encoded: encoded(version: header, count: 8, bits: [0x40, 0x41])) == nil)
        }
        // So what was refused was the version.
        #expect(ObjectMap(encoded: encoded(version: [1, 1], count: 8, bits: [0x40, 0x41])) != nil)
    }

    @Test func `bits past the last object are nobody's`() throws {
        // Five objects, and rubbish where three more would be.
        let map = try #require(ObjectMap(encoded: encoded(count: 5, bits: [0x40, 0b01_11_10_01])))
        #expect(map[4] == .exists)
        #expect(!map.exists(5))
        var runs: [Range<Int>] = []
        map.existingRuns(with: nil) { runs.append($0) }
        #expect(runs == [0..<1, 4..<5])
        let grown = map.resized(to: 9)
        #expect((0..<9).filter { grown.exists($0) } == [0, 4])
    }

    @Test func `a hundred thousand damaged maps are refused or read, and none ends the process`() {
        let seed: UInt64 = 7
        var random = SplitMix64(seed: seed)
        let pattern = Self.fixtures[0].encoded
        var accepted = 0
        for turn in 0..<100_000 {
            var damaged = pattern
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<damaged.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: damaged[place] = UInt8.random(in: .min ... .max, using: &random)
                case 1: damaged[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 2 where damaged.count > 1: damaged.remove(at: place)
                default: damaged.insert(UInt8.random(in: .min ... .max, using: &random), at: place)
                }
            }
            guard let map = ObjectMap(encoded: damaged) else { continue }
            accepted += 1
            // A checksum of 32 bits lets nothing through here but what was not damaged.
            #expect(map == ObjectMap(encoded: pattern), "turn \(turn), seed \(seed)")
        }
        #expect(accepted < 10_000)
    }

    // MARK: As a map

    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func `a map does what a list of states does`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let (mine, theirs) = (states(with: &random), states(with: &random))
        let (map, other) = (map(of: mine), map(of: theirs))
        #expect(ObjectMap(encoded: map.encoded()) == map, "seed \(seed)")
        #expect(mine.indices.map { map[$0] } == mine, "seed \(seed)")
        for wanted in [[.exists], [.exists, .pending], [.clean], []] as [Set<ObjectMap.State>] {
            #expect(map.count(in: wanted) == mine.count { wanted.contains($0) }, "seed \(seed)")
        }
        let size = Int.random(in: 0...80, using: &random)
        let resized = map.resized(to: size)
        #expect(
            (0..<size).map { resized[$0] } == (0..<size).map { $0 < mine.count ? mine[$0] : .absent }, "seed \(seed)")
        #expect(resized.resized(to: 80) == self.map(of: mine.prefix(size) + []).resized(to: 80), "seed \(seed)")
        #expect(runs(map, nil) == naiveRuns(mine, []), "seed \(seed)")
        #expect(runs(map, other) == naiveRuns(mine, theirs), "seed \(seed)")
        #expect(runs(other, map) == naiveRuns(mine, theirs), "seed \(seed)")
    }

    @Test func `an object past the end is a bug in the caller`() async {
        await #expect(processExitsWith: .failure) { _ = ObjectMap(count: 5)[5] }
        await #expect(processExitsWith: .failure) {
            var map = ObjectMap(count: 5)
            map[5] = .exists
        }
    }

    private func states(with random: inout SplitMix64) -> [ObjectMap.State] {
        let count = Int.random(in: 0...70, using: &random)
        let density = Int.random(in: 1...12, using: &random)
        return (0..<count).map { _ in
            guard Int.random(in: 0..<density, using: &random) == 0 else { return .absent }
            return ObjectMap.State(rawValue: UInt8.random(in: 0...3, using: &random))!
        }
    }

    private func map(of states: [ObjectMap.State]) -> ObjectMap {
        var map = ObjectMap(count: states.count)
        for (object, state) in states.enumerated() { map[object] = state }
        return map
    }

    private func runs(_ map: ObjectMap, _ other: ObjectMap?) -> [Range<Int>] {
        var found: [Range<Int>] = []
        map.existingRuns(with: other) { found.append($0) }
        return found
    }

    private func naiveRuns(_ mine: [ObjectMap.State], _ theirs: [ObjectMap.State]) -> [Range<Int>] {
        let count = max(mine.count, theirs.count)
        let there = (0..<count).map { object in
            (object < mine.count && mine[object] != .absent) || (object < theirs.count && theirs[object] != .absent)
        }
        var found: [Range<Int>] = []
        for object in there.indices where there[object] {
            if let last = found.last, last.upperBound == object {
                found[found.count - 1] = last.lowerBound..<object + 1
            } else {
                found.append(object..<object + 1)
            }
        }
        return found
    }

    // MARK: An encoder of its own

    /// Sums and lengths are right, whatever the header says.
    private func encoded(version: [UInt8] = [1, 1], count: UInt64, bits: [UInt8]) -> [UInt8] {
        let header = version + littleEndian(8, 4) + littleEndian(count, 8)
        let footer = littleEndian(UInt64(sum(header)), 4) + littleEndian(1, 4) + littleEndian(UInt64(sum(bits)), 4)
        return littleEndian(UInt64(header.count), 4) + header + bits + littleEndian(UInt64(footer.count), 4) + footer
    }

    private func littleEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    /// crc32c, bit by bit.
    private func sum(_ bytes: [UInt8]) -> UInt32 {
        bytes.reduce(0) { sum, byte in
            (0..<8).reduce(sum ^ UInt32(byte)) { rest, _ in rest >> 1 ^ (rest & 1 == 1 ? 0x82F6_3B78 : 0) }
        }
    }

    @Test func `a union has every object of either`() {
        for seed in 0..<50 as Range<UInt64> {
            var random = SplitMix64(seed: seed)
            func states() -> [ObjectMap.State] {
                (0..<Int.random(in: 0...40, using: &random)).map { _ in
                    ObjectMap.State(rawValue: UInt8.random(in: 0...3, using: &random))!
                }
            }
            let (mine, theirs) = (states(), states())
            let union = map(of: mine).union(map(of: theirs))
            #expect(union.count == max(mine.count, theirs.count))
            for object in 0..<union.count {
                let isThere =
                    object < mine.count && mine[object] != .absent
                    || object < theirs.count && theirs[object] != .absent
                #expect(union.exists(object) == isThere, "seed \(seed), object \(object)")
            }
        }
    }
}
