/// The block that zeros are looked for in: what bluestore allocates (`bluestore_min_alloc_size`, 4 KiB).
package let zeroBlock = ByteCount.kibibytes(4)

/// Hands on the runs of `bytes` that are not zeros, in whole blocks counted from the start of the volume or object, the
/// first and last perhaps in part.
///
/// - Parameter offset: Where the bytes stand in the volume or object.
package func forEachDataRun(in bytes: UnsafeRawBufferPointer, at offset: ByteOffset, _ found: (Extent) -> Void) {
    let end = offset + ByteCount(UInt64(bytes.count))
    var start: ByteOffset?
    var block = offset
    while block < end {
        let next = min((block.rounded(downTo: zeroBlock)) + zeroBlock, end)
        let range = Int((block - offset).bytes)..<Int((next - offset).bytes)
        if unsafe isZero(UnsafeRawBufferPointer(rebasing: bytes[range])) {
            if let begun = start { found(Extent(from: begun, to: block)) }
            start = nil
        } else if start == nil {
            start = block
        }
        block = next
    }
    if let begun = start { found(Extent(from: begun, to: end)) }
}

/// Whether every byte is zero. Stops at the first that isn't, which in data is among the first.
package func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var index = 0
    // Four words in a turn: the loop then runs at the speed of memory.
    while index + 32 <= bytes.count {
        let first = unsafe bytes.loadUnaligned(fromByteOffset: index, as: SIMD4<UInt64>.self)
        if first != .zero { return false }
        index += 32
    }
    while index < bytes.count {
        if unsafe bytes[index] != 0 { return false }
        index += 1
    }
    return true
}
