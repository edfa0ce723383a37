package import Volumes

// xxhash64 with seed 0 (xxhash specification, "XXH64 algorithm description").

private let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
private let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
private let prime3: UInt64 = 0x1656_67B1_9E37_79F9
private let prime4: UInt64 = 0x85EB_CA77_C2B2_AE63
private let prime5: UInt64 = 0x27D4_EB2F_1656_67C5

private func rotated(_ value: UInt64, by bits: UInt64) -> UInt64 { value << bits | value >> (64 - bits) }

/// What a lane becomes by eight bytes.
private func taking(_ word: UInt64, into lane: UInt64) -> UInt64 {
    rotated(lane &+ word &* prime2, by: 31) &* prime1
}

/// The four lanes that a hash goes along, each for eight of the 32 bytes of a stripe.
private struct Lanes {
    var first = prime1 &+ prime2
    var second = prime2
    var third: UInt64 = 0
    var fourth = 0 &- prime1

    /// Steps 3 and 4.
    func merged(count: UInt64) -> UInt64 {
        var hash = rotated(first, by: 1) &+ rotated(second, by: 7) &+ rotated(third, by: 12) &+ rotated(fourth, by: 18)
        for lane in [first, second, third, fourth] {
            hash ^= taking(lane, into: 0)
            hash = hash &* prime1 &+ prime4
        }
        return hash &+ count
    }
}

/// Step 6.
private func avalanche(_ value: UInt64) -> UInt64 {
    var hash = value
    hash ^= hash >> 33
    hash = hash &* prime2
    hash ^= hash >> 29
    hash = hash &* prime3
    return hash ^ hash >> 32
}

/// What it makes of so many zeros.
///
/// - Parameter count: A multiple of 32 bytes, so that only whole stripes are hashed.
package func xxhash64(ofZeros count: ByteCount) -> UInt64 {
    precondition(count.bytes >= 32 && count.bytes.isMultiple(of: 32), "only whole stripes are hashed")
    var lanes = Lanes()
    for _ in 0..<count.bytes / 32 {
        lanes.first = taking(0, into: lanes.first)
        lanes.second = taking(0, into: lanes.second)
        lanes.third = taking(0, into: lanes.third)
        lanes.fourth = taking(0, into: lanes.fourth)
    }
    return avalanche(lanes.merged(count: count.bytes))
}

/// What it makes of any bytes.
package func xxhash64(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    func word(_ place: Int) -> UInt64 {
        unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
    }
    var place = 0
    var hash = prime5 &+ UInt64(bytes.count)
    if bytes.count >= 32 {
        var lanes = Lanes()
        while place + 32 <= bytes.count {
            lanes.first = taking(word(place), into: lanes.first)
            lanes.second = taking(word(place + 8), into: lanes.second)
            lanes.third = taking(word(place + 16), into: lanes.third)
            lanes.fourth = taking(word(place + 24), into: lanes.fourth)
            place += 32
        }
        hash = lanes.merged(count: UInt64(bytes.count))
    }
    // Step 5: what is left of the last stripe.
    while place + 8 <= bytes.count {
        hash = rotated(hash ^ taking(word(place), into: 0), by: 27) &* prime1 &+ prime4
        place += 8
    }
    if place + 4 <= bytes.count {
        let half = unsafe UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self))
        hash = rotated(hash ^ UInt64(half) &* prime1, by: 23) &* prime2 &+ prime3
        place += 4
    }
    while place < bytes.count {
        hash = unsafe rotated(hash ^ UInt64(bytes[place]) &* prime5, by: 11) &* prime1
        place += 1
    }
    return avalanche(hash)
}
