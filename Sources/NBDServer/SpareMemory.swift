internal import Glibc
internal import Synchronization

/// Memory of requests that are over, kept for those to come: fresh memory costs a page fault for every 4 KiB, which is
/// more than copying the bytes does.
///
/// Each piece begins on a page and holds a power of two. What was used last is used next, as long as it may still be in a
/// processor's cache.
enum SpareMemory {
    /// Smaller pieces are malloc(3)'s: it keeps its own.
    static let smallest = 1 << 16
    /// Kept at most. Two busy connections hold as much (`ServerLimits.heldBytes`).
    private static let mostKept = 1 << 26
    /// Before each piece, for its size.
    private static let page = 4096

    private struct Shelves {
        /// Addresses by the logarithm of their sizes.
        var pieces: [[UInt]] = Array(repeating: [], count: Int.bitWidth)
        var kept = 0
    }

    private static let shelves = Mutex(Shelves())

    /// Bytes of a piece that holds `count`.
    private static func shelf(for count: Int) -> Int {
        Int.bitWidth - (max(count, smallest) - 1).leadingZeroBitCount
    }

    /// At least `count` bytes, which hold anything; nothing if there is no memory left.
    static func take(_ count: Int) -> UnsafeMutableRawPointer? {
        let shelf = shelf(for: count)
        let kept: UInt? = shelves.withLock { shelves in
            guard let piece = shelves.pieces[shelf].popLast() else { return nil }
            shelves.kept -= 1 << shelf
            return piece
        }
        if let kept { return unsafe UnsafeMutableRawPointer(bitPattern: kept) }
        var memory: UnsafeMutableRawPointer?
        guard unsafe posix_memalign(&memory, page, page + 1 << shelf) == 0, let start = unsafe memory else {
            return nil
        }
        unsafe start.storeBytes(of: shelf, as: Int.self)
        return unsafe start + page
    }

    /// - Parameter piece: What `take` gave, and nobody uses any more.
    static func giveBack(_ piece: UnsafeMutableRawPointer) {
        let start = unsafe piece - page
        let shelf = unsafe start.load(as: Int.self)
        let address = UInt(bitPattern: piece)
        let isKept = shelves.withLock { shelves in
            guard shelves.kept + 1 << shelf <= mostKept else { return false }
            shelves.kept += 1 << shelf
            shelves.pieces[shelf].append(address)
            return true
        }
        if !isKept { unsafe free(start) }
    }
}
