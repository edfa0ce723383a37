internal import Glibc
internal import Synchronization

/// Bits that any thread may set and clear, 64 to an atomic word; all of them start clear.
///
/// Every access is sequentially consistent. `DirtyMap` needs that: setting a bit and then *reading* its summary,
/// against clearing the summary and then reading the bit, is the one pattern that acquire and release leave open.
/// It costs nothing on x86-64, where a read-modify-write is a full barrier and a load is a plain one.
///
/// The words come from `calloc`, which serves large requests with untouched zero pages: a stretch of bits that
/// nobody has set takes address space and no memory.
// @unchecked: a pointer is not Sendable. The words behind it are atomics, and the pointer itself never changes.
// @safe: every access to a word is checked against `wordCount`, and nothing hands the pointer out.
@safe struct AtomicBits: ~Copyable, @unchecked Sendable {
    let count: Int
    let wordCount: Int
    private let words: UnsafeMutablePointer<Atomic<UInt64>>

    init(count: Int) {
        self.count = count
        wordCount = (count + 63) / 64
        // Needed: an array cannot hold atomics, nor be zero without being touched.
        // Safe: `Atomic<UInt64>` is laid out as a `UInt64`, zero is a value of it, and `calloc` aligns for it.
        let memory = unsafe calloc(max(wordCount, 1), MemoryLayout<Atomic<UInt64>>.stride)
        guard let memory = unsafe memory else { fatalError("no memory for \(count) bits") }
        unsafe words = memory.bindMemory(to: Atomic<UInt64>.self, capacity: max(wordCount, 1))
    }

    deinit {
        // Needed: the memory is ours. Safe: the only owner is going away, and an atomic integer needs no deinit.
        unsafe free(words)
    }

    /// Where a bit stands.
    static func place(of bit: Int) -> (word: Int, bit: Int) { (bit >> 6, bit & 63) }

    /// The 64 bits from `64 * index` on, the first of them in the lowest place.
    func word(_ index: Int) -> UInt64 {
        // Needed: see `pointer(to:)`. Safe: as there.
        unsafe pointer(to: index).pointee.load(ordering: .sequentiallyConsistent)
    }

    /// Writes every word concerned, also one that would not change: whoever clears the bits next must see all that
    /// happened before this call.
    func set(_ bits: Range<Int>) {
        forEachWord(of: bits) { index, mask in
            // Needed: see `pointer(to:)`. Safe: as there.
            unsafe pointer(to: index).pointee.bitwiseOr(mask, ordering: .sequentiallyConsistent)
        }
    }

    /// Only reads a word in which nothing is missing, so that threads setting the same bits do not fight for it.
    func setIfClear(_ bits: Range<Int>) {
        forEachWord(of: bits) { index, mask in
            guard word(index) & mask != mask else { return }
            // Needed: see `pointer(to:)`. Safe: as there.
            unsafe pointer(to: index).pointee.bitwiseOr(mask, ordering: .sequentiallyConsistent)
        }
    }

    func clear(_ bits: Range<Int>) {
        forEachWord(of: bits) { index, mask in
            // Needed: see `pointer(to:)`. Safe: as there.
            unsafe pointer(to: index).pointee.bitwiseAnd(~mask, ordering: .sequentiallyConsistent)
        }
    }

    /// The first set bit at or after `bit`, word by word: 0.1 ms for 16 Mi clear bits.
    func firstSet(from bit: Int) -> Int? {
        guard bit < count else { return nil }
        let (first, start) = Self.place(of: bit)
        var bits = word(first) & (~0 << UInt64(start))
        var index = first
        while bits == 0 {
            index += 1
            guard index < wordCount else { return nil }
            bits = word(index)
        }
        return index * 64 + bits.trailingZeroBitCount
    }

    /// How many bits are set in a row from `bit` on, looking at no more than `limit` and no further than its word.
    func countOnes(from bit: Int, limit: Int) -> Int {
        let (index, start) = Self.place(of: bit)
        return Self.ones(in: word(index), from: start, limit: limit)
    }

    /// Clears, in one step, what `countOnes` would count; of two callers only one gets a bit.
    ///
    /// Lock-free: it tries again only when another thread has changed the word.
    func takeOnes(from bit: Int, limit: Int) -> Int {
        let (index, start) = Self.place(of: bit)
        var seen = word(index)
        while true {
            let ones = Self.ones(in: seen, from: start, limit: limit)
            guard ones > 0 else { return 0 }
            // Needed: see `pointer(to:)`. Safe: as there.
            let (exchanged, original) = unsafe pointer(to: index).pointee.weakCompareExchange(
                expected: seen, desired: seen & ~Self.mask(from: start, count: ones),
                ordering: .sequentiallyConsistent)
            if exchanged { return ones }
            seen = original
        }
    }

    private static func ones(in word: UInt64, from start: Int, limit: Int) -> Int {
        min((~(word &>> UInt64(start))).trailingZeroBitCount, limit, 64 - start)
    }

    /// - Parameter count: 1 to `64 - start`.
    private static func mask(from start: Int, count: Int) -> UInt64 {
        (~0 &>> UInt64(64 - count)) &<< UInt64(start)
    }

    /// Calls `body` for each word that holds some of `bits`, with a mask of these.
    private func forEachWord(of bits: Range<Int>, _ body: (_ index: Int, _ mask: UInt64) -> Void) {
        var bit = bits.lowerBound
        while bit < bits.upperBound {
            let (index, start) = Self.place(of: bit)
            let count = min(64 - start, bits.upperBound - bit)
            body(index, Self.mask(from: start, count: count))
            bit += count
        }
    }

    // Needed: atomics are used in place. Safe: inside the allocation by the check, which lives as long as `self`.
    private func pointer(to index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        precondition(index >= 0 && index < wordCount, "no such word")
        return unsafe words + index
    }
}
