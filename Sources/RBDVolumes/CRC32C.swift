/// crc32c as Ceph takes it: from a seed, and not inverted at the end (`ceph_crc32c`, include/crc32c.h).
///
/// For small data: bytes on the data path are hashed by the OSDs.
func crc32c(_ bytes: some Sequence<UInt8>, seed: UInt32) -> UInt32 {
    bytes.reduce(seed) { sum, byte in table[Int((sum ^ UInt32(byte)) & 0xff)] ^ sum >> 8 }
}

/// The reflected Castagnoli polynomial, a byte at a time.
private let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { sum, _ in sum & 1 == 1 ? sum >> 1 ^ 0x82f6_3b78 : sum >> 1 }
}
