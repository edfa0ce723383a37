internal import Volumes

/// What xxhash64 with seed 0 makes of so many zeros (xxhash specification, "XXH64 algorithm description").
///
/// The OSDs hash the data; here only the hash of zeros has to be known, to tell them from data.
///
/// - Parameter count: A multiple of 32 bytes, so that only whole stripes are hashed.
func xxhash64(ofZeros count: ByteCount) -> UInt64 {
    precondition(count.bytes >= 32 && count.bytes.isMultiple(of: 32), "only whole stripes are hashed")
    let primes: [UInt64] = [
        0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ]
    func rotated(_ value: UInt64, by bits: UInt64) -> UInt64 { value << bits | value >> (64 - bits) }
    var lanes = [primes[0] &+ primes[1], primes[1], 0, 0 &- primes[0]]
    for _ in 0..<count.bytes / 32 {
        // A lane takes in its eight bytes, which are zero, times the second prime.
        for lane in lanes.indices { lanes[lane] = rotated(lanes[lane], by: 31) &* primes[0] }
    }
    var hash =
        rotated(lanes[0], by: 1) &+ rotated(lanes[1], by: 7) &+ rotated(lanes[2], by: 12) &+ rotated(lanes[3], by: 18)
    for lane in lanes {
        hash ^= rotated(lane &* primes[1], by: 31) &* primes[0]
        hash = hash &* primes[0] &+ primes[3]
    }
    hash = hash &+ count.bytes
    hash ^= hash >> 33
    hash = hash &* primes[1]
    hash ^= hash >> 29
    hash = hash &* primes[2]
    return hash ^ hash >> 32
}
