internal import Synchronization

/// Bits in three levels, so that a search does not read the clear ones.
///
/// Level 0 holds the bits themselves. A bit of level 1 says that a word of level 0 may hold a set bit, and level 2
/// says so of the words of level 1. One word of level 2 speaks for 262144 bits; they are read one after the other:
/// 1024 words for 16 TiB in chunks of 64 KiB.
///
/// **The rule.** When no `lower` is under way, a bit whose `set` has returned and which nobody has cleared since has
/// its bits set in the levels above. A summary bit over an empty word is allowed; it costs a search one look.
///
/// **Why it holds.** All accesses are sequentially consistent, so this may be read as steps taken in turns.
/// - `set` writes level 0, and *then* looks at level 1 and at level 2, each time; that another thread has set a bit
///   of the same word says nothing about how far that thread got.
/// - Clearing and taking leave the summaries alone. Only `lower`, when a search met an empty word, clears a summary
///   bit; *then* it looks at the word again, and sets the bit again if the word is no longer empty.
/// - So either `set` looks at the summary after `lower` has cleared it, and sets it; or `lower` looks at the word
///   after `set` has written it, and sets the summary again. Neither may miss the other.
/// - Only one `lower` runs at a time. While level 2 is lowered, the rule thus holds for level 1, and the argument
///   above carries over.
///
/// While a `lower` is under way, a set bit may be hidden for a moment. A search therefore asks whether one ran beside
/// it, and if so searches level 0 alone.
struct SummarizedBits: ~Copyable, Sendable {
    private let levels: InlineArray<3, AtomicBits>
    /// Goes up when a `lower` begins and again when it ends: odd while one is under way.
    private let lowerings = Atomic<UInt64>(0)

    init(count: Int) {
        let words = (count + 63) / 64
        levels = [AtomicBits(count: count), AtomicBits(count: words), AtomicBits(count: (words + 63) / 64)]
    }

    /// All three levels, in words of 64 bits.
    var wordCount: Int { levels[0].wordCount + levels[1].wordCount + levels[2].wordCount }

    func set(_ bits: Range<Int>) {
        guard let last = bits.last else { return }
        levels[0].set(bits)
        levels[1].setIfClear(bits.lowerBound >> 6..<(last >> 6) + 1)
        levels[2].setIfClear(bits.lowerBound >> 12..<(last >> 12) + 1)
    }

    func clear(_ bits: Range<Int>) { levels[0].clear(bits) }

    /// How many bits in a row are set from the start of `bits` on.
    func countOnes(in bits: Range<Int>) -> Int {
        Self.sum(over: bits) { levels[0].countOnes(from: $0, limit: $1) }
    }

    /// Clears what `countOnes` would count, a word at a time; of two callers only one gets a bit.
    func takeOnes(in bits: Range<Int>) -> Int {
        Self.sum(over: bits) { levels[0].takeOnes(from: $0, limit: $1) }
    }

    /// Adds up what `ones` answers for each word in turn, until one answers less than it was asked for.
    private static func sum(over bits: Range<Int>, ones: (_ bit: Int, _ limit: Int) -> Int) -> Int {
        var bit = bits.lowerBound
        while bit < bits.upperBound {
            let limit = min(64 - AtomicBits.place(of: bit).bit, bits.upperBound - bit)
            let found = ones(bit, limit)
            bit += found
            if found < limit { break }
        }
        return bit - bits.lowerBound
    }

    /// Calls `body` with the words of level 0 that are not empty, in order.
    func forEachWord(_ body: (_ index: Int, _ bits: UInt64) -> Void) {
        var next = 0
        while let group = levels[2].firstSet(from: next) {
            var summary = levels[1].word(group)
            while summary != 0 {
                let index = group * 64 + summary.trailingZeroBitCount
                summary &= summary - 1
                let bits = levels[0].word(index)
                if bits != 0 { body(index, bits) }
            }
            next = group + 1
        }
    }

    /// Whether no bit is set, as level 0 alone tells it.
    var isEmpty: Bool { levels[0].firstSet(from: 0) == nil }

    /// The first set bit at or after `bit`. One that is set all through the call is never passed over.
    func firstSet(from bit: Int) -> Int? {
        let before = lowerings.load(ordering: .sequentiallyConsistent)
        var expected = before
        let found = search(0, from: bit, lowerings: &expected)
        let undisturbed = before % 2 == 0 && lowerings.load(ordering: .sequentiallyConsistent) == expected
        return undisturbed ? found : levels[0].firstSet(from: bit)
    }

    /// The first set bit of a level at or after `bit`, found by way of the levels above.
    ///
    /// - Parameter lowerings: Raised as the counter is by what this search lowers.
    private func search(_ level: Int, from bit: Int, lowerings: inout UInt64) -> Int? {
        guard level < 2 else { return levels[2].firstSet(from: bit) }
        guard bit < levels[level].count else { return nil }
        let (index, start) = AtomicBits.place(of: bit)
        let rest = levels[level].word(index) & (~0 << UInt64(start))
        if rest != 0 { return index * 64 + rest.trailingZeroBitCount }
        var next = index + 1
        while let index = search(level + 1, from: next, lowerings: &lowerings) {
            let bits = levels[level].word(index)
            if bits != 0 { return index * 64 + bits.trailingZeroBitCount }
            if lower(index, in: level + 1) { lowerings += 2 }
            next = index + 1
        }
        return nil
    }

    /// Clears the summary of a word that was seen empty, unless it is not empty after all.
    ///
    /// - Returns: False if another thread was at it; the summary then stays as it is, which is allowed.
    private func lower(_ index: Int, in level: Int) -> Bool {
        let before = lowerings.load(ordering: .sequentiallyConsistent)
        guard before % 2 == 0 else { return false }
        let (begun, _) = lowerings.compareExchange(
            expected: before, desired: before + 1, ordering: .sequentiallyConsistent)
        guard begun else { return false }
        levels[level].clear(index..<index + 1)
        if levels[level - 1].word(index) != 0 { levels[level].set(index..<index + 1) }
        lowerings.store(before + 2, ordering: .sequentiallyConsistent)
        return true
    }
}
