import Conformance
import Testing
import Volumes

/// Extent sets against sets of their bytes.
struct ExtentSetTests {
    private func extent(_ start: UInt64, _ end: UInt64) -> Extent {
        Extent(from: ByteOffset(start), to: ByteOffset(end))
    }

    private func bytes(_ set: ExtentSet) -> Set<UInt64> { bytes(set.extents) }

    private func bytes(_ extents: [Extent]) -> Set<UInt64> {
        extents.reduce(into: []) { $0.formUnion($1.offset.bytes..<$1.end.bytes) }
    }

    /// Sorted, without empty extents, and with a gap between any two.
    private func isWellFormed(_ set: ExtentSet) -> Bool {
        set.extents.allSatisfy { !$0.isEmpty }
            && zip(set.extents, set.extents.dropFirst()).allSatisfy { $0.end < $1.offset }
    }

    private func randomExtents(with random: inout SplitMix64) -> [Extent] {
        let count = Int.random(in: 0...12, using: &random)
        let longest = UInt64.random(in: 0...20, using: &random)
        return (0..<count).map { _ in
            let start = UInt64.random(in: 0...80, using: &random)
            return extent(start, start + UInt64.random(in: 0...longest, using: &random))
        }
    }

    enum Fault: Sendable { case none, forgetsAnExtent }

    @Test(arguments: 1...200 as ClosedRange<UInt64>)
    func `extent sets do what sets of bytes do`(seed: UInt64) {
        for operation in differences(seed: seed, fault: .none) { Issue.record("\(operation), seed \(seed)") }
    }

    @Test func `the comparison notices a planted fault`() {
        #expect((1...20).contains { !differences(seed: $0, fault: .forgetsAnExtent).isEmpty })
    }

    /// The operations whose results differ from those on sets of bytes.
    private func differences(seed: UInt64, fault: Fault) -> [String] {
        var random = SplitMix64(seed: seed)
        let (mine, theirs) = (randomExtents(with: &random), randomExtents(with: &random))
        let window = extent(UInt64.random(in: 0...50, using: &random), UInt64.random(in: 0...100, using: &random))
        let left = ExtentSet(fault == .forgetsAnExtent ? Array(mine.dropLast()) : mine)
        let right = ExtentSet(theirs)
        var appended = ExtentSet()
        for extent in mine.sorted(by: { $0.offset < $1.offset }) { appended.append(extent) }

        let (leftBytes, rightBytes) = (bytes(mine), bytes(theirs))
        let results = [
            ("init", left, leftBytes),
            ("append", appended, leftBytes),
            ("union", left.union(right), leftBytes.union(rightBytes)),
            ("intersection", left.intersection(right), leftBytes.intersection(rightBytes)),
            ("intersection with an extent", left.intersection(window), leftBytes.intersection(bytes([window]))),
            ("subtracting", left.subtracting(right), leftBytes.subtracting(rightBytes)),
            ("subtracting the other way", right.subtracting(left), rightBytes.subtracting(leftBytes)),
        ]
        return results.compactMap { operation, result, expected in
            let agree =
                bytes(result) == expected && isWellFormed(result) && result.total.bytes == UInt64(expected.count)
                && result.end.bytes == expected.max().map { $0 + 1 } ?? 0 && result.isEmpty == expected.isEmpty
            return agree ? nil : operation
        }
    }

    @Test func `an empty set has nothing and ends at zero`() {
        let empty = ExtentSet()
        let some = ExtentSet([extent(3, 5)])
        #expect(empty.isEmpty && empty.total == .zero && empty.end == .zero)
        #expect(ExtentSet([extent(7, 7)]) == empty)
        #expect(empty.union(some) == some && some.union(empty) == some)
        #expect(empty.intersection(some) == empty && some.intersection(empty) == empty)
        #expect(empty.subtracting(some) == empty && some.subtracting(empty) == some)
    }

    @Test func `extents that touch become one`() {
        #expect(ExtentSet([extent(4, 8), extent(0, 4)]).extents == [extent(0, 8)])
        #expect(ExtentSet([extent(0, 4)]).union(ExtentSet([extent(4, 8)])).extents == [extent(0, 8)])
        #expect(ExtentSet([extent(0, 3), extent(4, 8)]).extents.count == 2)
    }

    @Test func `an extent within the last one changes nothing`() {
        var set = ExtentSet([extent(0, 10)])
        set.append(extent(2, 5))
        set.append(extent(0, 10))
        #expect(set.extents == [extent(0, 10)])
    }

    @Test func `appending an extent that starts before the last is a bug in the caller`() async {
        await #expect(processExitsWith: .failure) {
            var set = ExtentSet([Extent(offset: ByteOffset(10), length: ByteCount(5))])
            set.append(Extent(offset: ByteOffset(9), length: ByteCount(2)))
        }
    }

    @Test func `one hole cuts several extents and several holes cut one`() {
        let three = ExtentSet([extent(0, 10), extent(20, 30), extent(40, 50)])
        #expect(three.subtracting(ExtentSet([extent(5, 45)])).extents == [extent(0, 5), extent(45, 50)])
        #expect(three.subtracting(ExtentSet([extent(10, 40)])) == ExtentSet([extent(0, 10), extent(40, 50)]))
        #expect(
            ExtentSet([extent(0, 50)]).subtracting(ExtentSet([extent(0, 1), extent(10, 20), extent(49, 60)])).extents
                == [extent(1, 10), extent(20, 49)])
    }

    @Test func `sets reach up to the last byte that can be counted`() {
        let top = extent(.max - 10, .max)
        let set = ExtentSet([top])
        #expect(set.end == ByteOffset(.max))
        #expect(set.intersection(extent(0, .max)) == set)
        #expect(ExtentSet([extent(0, .max)]).subtracting(set).extents == [extent(0, .max - 10)])
    }
}
