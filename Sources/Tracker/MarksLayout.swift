internal import Volumes

/// Where things stand in a file of marks: two copies of the header, the pulse, and a bit for each chunk in each slot.
struct MarksLayout: Equatable {
    let chunkCount: Int
    /// Words of a slot, in whole pages.
    let slotWords: Int

    init(size: ByteCount, granularity: Granularity) {
        chunkCount = size.pieces(of: granularity.size)
        slotWords = (chunkCount + 64 * Self.pageWords - 1) / (64 * Self.pageWords) * Self.pageWords
    }

    private static let pageWords = 512
    private static let pulse = 2 * MarksHeader.room / 8
    /// Nanoseconds since 1970: when a change last began or ended.
    static let lastWord = pulse
    /// How many changes were begun and aren't ended.
    static let inFlightWord = pulse + 1
    private static let bits = pulse + pageWords

    var size: Int { (Self.bits + MarksHeader.slots * slotWords) * 8 }

    /// Where a slot begins.
    func word(ofSlot slot: Int) -> Int { Self.bits + slot * slotWords }
}

extension MappedWords {
    /// Sets the bits of a slot that begins with the word `start`.
    func set(_ bits: Range<Int>, from start: Int) {
        var bit = bits.lowerBound
        while bit < bits.upperBound {
            let count = min(64 - bit % 64, bits.upperBound - bit)
            self[start + bit / 64] |= (~0 >> UInt64(64 - count)) << UInt64(bit % 64)
            bit += count
        }
    }

    /// Hands on the runs of bits within `bits` that are set in any of the slots.
    func forEachRun(in bits: Range<Int>, ofSlotsAt starts: [Int], _ found: (Range<Int>) -> Void) {
        var bit = bits.lowerBound
        var begun: Int?
        while bit < bits.upperBound {
            let end = min((bit / 64 + 1) * 64, bits.upperBound)
            let word = starts.reduce(UInt64(0)) { $0 | self[$1 + bit / 64] } >> UInt64(bit % 64)
            // Most words are all the same: a look at the whole is enough.
            let whole = ~UInt64(0) >> UInt64(64 - (end - bit))
            if word & whole == (begun == nil ? 0 : whole) {
                bit = end
                continue
            }
            let rest = begun == nil ? word : ~word
            let next = bit + min(rest.trailingZeroBitCount, end - bit)
            if next < end {
                if let start = begun { found(start..<next) }
                begun = begun == nil ? next : nil
            }
            bit = next
        }
        if let begun { found(begun..<bits.upperBound) }
    }
}
