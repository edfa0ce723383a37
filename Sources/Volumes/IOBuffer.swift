/// Memory for one read or write: page-aligned, as direct I/O wants it, and freed when nobody holds it any more.
@safe package final class IOBuffer: @unchecked Sendable {
    // Unchecked: whoever reads into it has handed it to nobody else yet.
    package let bytes: UnsafeMutableRawBufferPointer

    package init(count: Int) {
        unsafe bytes = unsafe UnsafeMutableRawBufferPointer(
            start: .allocate(byteCount: max(count, 1), alignment: 4096), count: count)
    }

    deinit { unsafe bytes.baseAddress?.deallocate() }
}
