#if canImport(Glibc)
    internal import Glibc
#else
    internal import Musl
#endif

/// Reads `extent` on both sides.
///
/// - Returns: The first bytes that differ, up to the next that agree; nothing if all agree.
package func firstDifferenceByReading(
    _ left: any VolumeReader, _ right: any VolumeReader, in extent: Extent
) async throws(VolumeError) -> Extent? {
    unsafe try await withIOBuffer(of: extent.length) { ours throws(VolumeError) in
        unsafe try await withIOBuffer(of: extent.length) { theirs throws(VolumeError) in
            unsafe try await left.read(into: ours, at: extent.offset)
            unsafe try await right.read(into: theirs, at: extent.offset)
            guard let run = unsafe firstDifferingRun(UnsafeRawBufferPointer(ours), UnsafeRawBufferPointer(theirs))
            else {
                return nil
            }
            return Extent(
                offset: extent.offset + ByteCount(UInt64(run.lowerBound)), length: ByteCount(UInt64(run.count)))
        }
    }
}

/// The first run of bytes that differ, up to the next that agree; nothing if all agree.
///
/// - Precondition: Both are as long.
package func firstDifferingRun(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Range<Int>? {
    precondition(left.count == right.count, "only equal lengths are compared")
    guard let ours = left.baseAddress, let theirs = right.baseAddress, unsafe memcmp(ours, theirs, left.count) != 0,
        let start = left.indices.first(where: { unsafe left[$0] != right[$0] })
    else { return nil }
    let end = left.indices[start...].first { unsafe left[$0] == right[$0] }
    return start..<(end ?? left.count)
}
