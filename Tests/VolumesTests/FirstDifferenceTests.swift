import Conformance
import Testing
import Volumes

struct FirstDifferenceTests {
    private func found(_ left: [UInt8], _ right: [UInt8]) -> Range<Int>? {
        unsafe left.withUnsafeBytes { ours in unsafe right.withUnsafeBytes { unsafe firstDifferingRun(ours, $0) } }
    }

    private func naive(_ left: [UInt8], _ right: [UInt8]) -> Range<Int>? {
        let differing = left.indices.filter { left[$0] != right[$0] }
        guard let start = differing.first else { return nil }
        return start..<((start..<left.count).first { !differing.contains($0) } ?? left.count)
    }

    @Test func `equal bytes have no difference, and neither have none`() {
        #expect(found([], []) == nil)
        #expect(found([1, 2, 3], [1, 2, 3]) == nil)
    }

    @Test(
        arguments: [
            ([1], [2], 0..<1), ([1, 2, 3], [9, 2, 3], 0..<1), ([1, 2, 3], [1, 2, 9], 2..<3),
            ([1, 2, 3], [1, 9, 9], 1..<3),
            ([1, 2, 3, 4], [9, 9, 3, 9], 0..<2), ([1, 2], [3, 4], 0..<2),
        ] as [([UInt8], [UInt8], Range<Int>)])
    func `the first run ends where the bytes agree again`(left: [UInt8], right: [UInt8], run: Range<Int>) {
        #expect(found(left, right) == run)
        #expect(found(right, left) == run)
    }

    @Test(arguments: 1...60 as ClosedRange<UInt64>)
    func `any bytes differ where a look at each says so`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let left = (0..<Int.random(in: 0...100, using: &random)).map { _ in UInt8.random(in: 0...1, using: &random) }
        var right = left
        for place in right.indices where Int.random(in: 0..<10, using: &random) == 0 { right[place] ^= 1 }
        #expect(found(left, right) == naive(left, right), "seed \(seed)")
    }

    @Test func `different lengths are a bug in the caller`() async {
        await #expect(processExitsWith: .failure) {
            let (short, long): ([UInt8], [UInt8]) = ([1], [1, 2])
            _ = unsafe short.withUnsafeBytes { ours in
                unsafe long.withUnsafeBytes { unsafe firstDifferingRun(ours, $0) }
            }
        }
    }
}
