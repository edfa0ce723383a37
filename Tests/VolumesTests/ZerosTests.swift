import Conformance
import Testing
import Volumes

struct ZerosTests {
    private func found(in bytes: [UInt8], at offset: UInt64) -> [Extent] {
        var runs: [Extent] = []
        unsafe bytes.withUnsafeBytes { buffer in
            unsafe forEachDataRun(in: buffer, at: ByteOffset(offset)) { runs.append($0) }
        }
        return runs
    }

    /// Block by block, counted from the start of the volume.
    private func naive(_ bytes: [UInt8], at offset: UInt64) -> ExtentSet {
        let end = offset + UInt64(bytes.count)
        var data = ExtentSet()
        for block in offset / 4096..<(end + 4095) / 4096 {
            let (start, stop) = (max(block * 4096, offset), min((block + 1) * 4096, end))
            guard start < stop else { continue }
            if bytes[Int(start - offset)..<Int(stop - offset)].contains(where: { $0 != 0 }) {
                data.append(Extent(from: ByteOffset(start), to: ByteOffset(stop)))
            }
        }
        return data
    }

    @Test func `data is found in whole blocks at every alignment`() {
        let seed: UInt64 = 3
        var random = SplitMix64(seed: seed)
        for offset in 0..<4096 as Range<UInt64> {
            // Most are short, so that all alignments are tried in a second; some cross several blocks.
            let length = offset % 64 == 0 ? Int.random(in: 0...20_000, using: &random) : Int(4096 - offset) % 300 + 40
            var bytes = [UInt8](repeating: 0, count: length)
            for _ in 0..<Int.random(in: 0...3, using: &random) where length > 0 {
                bytes[Int.random(in: 0..<length, using: &random)] = 1
            }
            let place = offset + 4096 * UInt64.random(in: 0...3, using: &random)
            #expect(
                found(in: bytes, at: place) == naive(bytes, at: place).extents, "offset \(place), \(length) bytes")
        }
    }

    @Test func `a byte on either side of a block's edge takes its own block alone`() {
        var bytes = [UInt8](repeating: 0, count: 3 * 4096)
        bytes[4095] = 1
        #expect(found(in: bytes, at: 0) == [Extent(offset: .zero, length: ByteCount(4096))])
        bytes[4095] = 0
        bytes[4096] = 1
        #expect(found(in: bytes, at: 0) == [Extent(offset: ByteOffset(4096), length: ByteCount(4096))])
        // Standing one byte before a block's edge, the same byte is the last of its block.
        #expect(found(in: bytes, at: 4095) == [Extent(offset: ByteOffset(4096), length: ByteCount(4096))])
    }

    @Test func `nothing is found in nothing and in zeros`() {
        #expect(found(in: [], at: 17) == [])
        #expect(found(in: [UInt8](repeating: 0, count: 10_000), at: 17) == [])
    }

    @Test func `blocks of data that touch are one run`() {
        #expect(
            found(in: [UInt8](repeating: 7, count: 10_000), at: 17)
                == [Extent(offset: ByteOffset(17), length: ByteCount(10_000))])
    }

    @Test func `one byte that isn't zero is seen wherever it is`() {
        for start in 0..<9 {
            for count in 0...80 {
                var bytes = [UInt8](repeating: 0, count: start + count + 1)
                // What lies outside must not count.
                bytes[start + count] = 1
                if start > 0 { bytes[start - 1] = 1 }
                #expect(isZero(bytes, start, count))
                for place in start..<start + count {
                    bytes[place] = 0x80
                    #expect(!isZero(bytes, start, count), "start \(start), count \(count), place \(place)")
                    bytes[place] = 0
                }
            }
        }
    }

    private func isZero(_ bytes: [UInt8], _ start: Int, _ count: Int) -> Bool {
        unsafe bytes.withUnsafeBytes { buffer in
            unsafe Volumes.isZero(UnsafeRawBufferPointer(rebasing: buffer[start..<start + count]))
        }
    }
}
