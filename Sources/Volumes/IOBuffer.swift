/// Memory for a read or write, page-aligned as direct I/O wants it, for the time of `body`.
///
/// It outlives every operation that `body` waits for, and nothing else: an operation that is under way when `body` ends
/// would write into freed memory.
package func withIOBuffer<Value>(
    of count: ByteCount, _ body: (UnsafeMutableRawBufferPointer) async throws(VolumeError) -> Value
) async throws(VolumeError) -> Value {
    let size = Int(count.bytes)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: max(size, 1), alignment: 4096)
    defer { unsafe memory.deallocate() }
    return try await unsafe body(UnsafeMutableRawBufferPointer(start: memory, count: size))
}
