internal import CISAL

/// crc32c as Ceph takes it: from a seed, and not inverted at the end (`ceph_crc32c`, include/crc32c.h).
package func crc32c(_ bytes: some Sequence<UInt8>, seed: UInt32) -> UInt32 {
    let sum = bytes.withContiguousStorageIfAvailable { unsafe crc32c(UnsafeRawBufferPointer($0), seed: seed) }
    return sum ?? crc32c(Array(bytes), seed: seed)
}

/// The same, of bytes in one place.
package func crc32c(_ bytes: UnsafeRawBufferPointer, seed: UInt32) -> UInt32 {
    var (sum, rest) = unsafe (seed, bytes)
    while unsafe !rest.isEmpty {
        // It takes a C int for the count, and only reads from what it takes for writable.
        let part = unsafe UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 30))
        let start = unsafe part.assumingMemoryBound(to: UInt8.self).baseAddress
        sum = unsafe crc32_iscsi(UnsafeMutablePointer(mutating: start), Int32(part.count), sum)
        unsafe rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(part.count))
    }
    return sum
}

/// CRC-32C as iSCSI and others have it (RFC 3720, 12.1): inverted before and after. Of "123456789" 0xE3069283.
package func standardCRC32C(_ bytes: UnsafeRawBufferPointer) -> UInt32 { unsafe ~crc32c(bytes, seed: ~0) }
