import Checksums
import Conformance
import Testing

/// crc32c as Ceph takes it, with the values of Ceph's own tests (test/common/test_crc32c.cc).
struct CRC32CTests {
    @Test func `short texts give what Ceph's tests expect`() {
        #expect(crc32c("foo bar baz".utf8, seed: 0) == 4_119_623_852)
        #expect(crc32c("foo bar baz".utf8, seed: 1234) == 881_700_046)
        #expect(crc32c("whiz bang boom".utf8, seed: 0) == 2_360_230_088)
        #expect(crc32c("whiz bang boom".utf8, seed: 5678) == 3_743_019_208)
    }

    @Test func `the usual check value comes out if it is inverted before and after`() {
        // Ceph does neither by itself: its callers choose the seed.
        #expect(~crc32c("123456789".utf8, seed: ~0) == 0xE306_9283)
    }

    @Test func `nothing leaves the seed as it is`() {
        #expect(crc32c([], seed: 0x1234_5678) == 0x1234_5678)
    }

    @Test func `zeros from a seed of zero leave zero, and from another seed do not`() {
        #expect(crc32c([UInt8](repeating: 0, count: 4096), seed: 0) == 0)
        #expect(crc32c([0], seed: 1) != 1)
    }

    @Test func `parts one after another give what the whole gives`() {
        let bytes = Array(UInt8.min...UInt8.max)
        let whole = crc32c(bytes, seed: 7)
        for cut in bytes.indices { #expect(crc32c(bytes[cut...], seed: crc32c(bytes[..<cut], seed: 7)) == whole) }
    }

    @Test func `it is what the polynomial says, at any length and place`() {
        var random = SplitMix64(seed: 3)
        for count in Array(0...70) + [255, 4096, 65_537] {
            let bytes = random.bytes(count + 3)
            for start in 0...3 {
                let part = bytes[start..<start + count]
                let naive = part.reduce(UInt32(9)) { sum, byte in
                    (0..<8).reduce(sum ^ UInt32(byte)) { sum, _ in sum & 1 == 1 ? sum >> 1 ^ 0x82f6_3b78 : sum >> 1 }
                }
                #expect(crc32c(part, seed: 9) == naive)
            }
        }
    }

    @Test func `the standard's check value`() {
        #expect(unsafe Array("123456789".utf8).withUnsafeBytes { unsafe standardCRC32C($0) } == 0xE306_9283)
    }
}
