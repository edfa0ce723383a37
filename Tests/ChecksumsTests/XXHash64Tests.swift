import Checksums
import Conformance
import Testing
import Volumes

struct XXHash64Tests {
    /// As the reference implementation hashes them (xxHash 0.8, `XXH64`, seed 0).
    @Test(
        arguments: [
            (32, 0xf6e9_be5d_7063_2cf5), (64, 0x257b_09a1_47b8_2a19), (96, 0xc088_fb75_504a_22bf),
            (4096, 0xac86_9b6f_32d8_bbdb), (65536, 0x5983_dda9_f157_15a4), (1 << 20, 0x87d2_a1b6_e116_3ef1),
            (4 << 20, 0x639f_9e1a_7cbc_9d28),
        ] as [(UInt64, UInt64)])
    func `zeros hash as the reference implementation hashes them`(count: UInt64, hash: UInt64) {
        #expect(xxhash64(ofZeros: ByteCount(count)) == hash)
    }

    @Test func `a part of a stripe is a bug in the caller`() async {
        await #expect(processExitsWith: .failure) { _ = xxhash64(ofZeros: ByteCount(48)) }
        await #expect(processExitsWith: .failure) { _ = xxhash64(ofZeros: .zero) }
    }

    /// As `xxhsum -H64` prints them (xxHash 0.8).
    @Test(
        arguments: [
            ("", 0xef46_db37_51d8_e999), ("a", 0xd24e_c4f1_a98c_6e5b), ("abc", 0x44bc_2cf5_ad77_0999),
            ("123456789012345678901234567890", 0xd74d_73d5_f92c_834c),
            ("12345678901234567890123456789012345678901234567890123456789012345678901234567890", 0xe04a_477f_19ee_145d),
        ] as [(String, UInt64)])
    func `texts hash as the reference implementation hashes them`(text: String, hash: UInt64) {
        #expect(unsafe Array(text.utf8).withUnsafeBytes { unsafe xxhash64($0) } == hash)
    }

    @Test func `bytes that are zeros hash as zeros do`() {
        for count in [32, 96, 4096, 65_536] {
            let zeros = [UInt8](repeating: 0, count: count)
            #expect(unsafe zeros.withUnsafeBytes { unsafe xxhash64($0) } == xxhash64(ofZeros: ByteCount(UInt64(count))))
        }
    }
}
