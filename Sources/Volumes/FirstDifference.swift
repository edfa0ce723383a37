#if canImport(Glibc)
internal import Glibc
#else
internal import Musl
#endif

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
