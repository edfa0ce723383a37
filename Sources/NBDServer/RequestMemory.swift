internal import Glibc
internal import NBDProtocol
@_spi(CustomByteBufferAllocator) internal import NIOCore

/// The bytes of one request: what a write brought, or what a read is to have. Aligned to pages, as direct I/O wants it,
/// where there is a page of them.
///
/// Nobody but the request's own task, or before that its connection, touches it.
@safe final class RequestMemory: @unchecked Sendable {
    // Needed: pointers are not Sendable. Safe: the memory has one user at a time, see above; it goes in `deinit`, or with
    // the buffer that it was made into.
    private var start: UnsafeMutableRawPointer?
    let count: Int

    /// Nothing if there is no memory left.
    /// - Parameter count: Bytes, one or more. They hold anything.
    init?(count: Int) {
        self.count = count
        if count >= SpareMemory.smallest {
            unsafe start = SpareMemory.take(count)
        } else {
            var memory: UnsafeMutableRawPointer?
            // What is smaller than a page needs no pages of its own.
            let code = unsafe posix_memalign(&memory, count < 4096 ? 64 : 4096, count)
            unsafe start = code == 0 ? memory : nil
        }
        if unsafe start == nil { return nil }
    }

    deinit {
        guard let start = unsafe start else { return }
        if count >= SpareMemory.smallest { unsafe SpareMemory.giveBack(start) } else { unsafe free(start) }
    }

    var bytes: UnsafeMutableRawBufferPointer { unsafe UnsafeMutableRawBufferPointer(start: start, count: count) }

    func copy(_ piece: ByteBuffer, at index: Int) {
        unsafe piece.withUnsafeReadableBytes { source in
            let goal = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[index..<index + source.count])
            unsafe goal.copyMemory(from: source)
        }
    }

    /// The bytes as the network takes them, without a copy. There are none here any more.
    func intoBuffer() -> ByteBuffer {
        let whole = unsafe bytes
        unsafe start = nil
        // NIO's own allocator frees by free(3), which is right for posix_memalign(3).
        let allocator = count >= SpareMemory.smallest ? spareAllocator : ByteBufferAllocator()
        return unsafe ByteBuffer(takingOwnershipOf: whole, allocator: allocator)
    }
}

/// A write as its bytes come, piece by piece.
struct IncomingWrite {
    let request: Request
    /// Nothing before the first piece, and where there was no memory for them.
    private(set) var memory: RequestMemory?
    private let count: Int
    private var filled = 0

    init(_ request: Request, count: Int) { (self.request, self.count) = (request, count) }

    var isEmpty: Bool { filled == 0 }

    mutating func add(_ piece: ByteBuffer) {
        if isEmpty { memory = RequestMemory(count: count) }
        memory?.copy(piece, at: filled)
        filled += piece.readableBytes
    }
}

/// Gives a buffer's memory back where it came from. A buffer that grew would be copied to more of the same.
private let spareAllocator = unsafe ByteBufferAllocator(
    allocate: { unsafe SpareMemory.take($0) },
    reallocate: { old, oldCount, newCount in
        guard let new = unsafe SpareMemory.take(newCount) else { return nil }
        if let old = unsafe old {
            unsafe new.copyMemory(from: old, byteCount: min(oldCount, newCount))
            unsafe SpareMemory.giveBack(old)
        }
        return unsafe new
    },
    deallocate: { unsafe SpareMemory.giveBack($0) },
    copy: { unsafe $0.copyMemory(from: $1, byteCount: $2) })
