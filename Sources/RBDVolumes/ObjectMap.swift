internal import Checksums

/// An RBD object map: for each object of an image whether it exists, in two bits.
///
/// The bytes are those that librbd keeps in `rbd_object_map.ID` (common/bit_vector.hpp, `BitVector<2>`):
/// a header (u32 length; version 1, compatible with 1, u32 length, u64 count), the bits (four objects in a byte, the
/// first in the highest bits), a footer (u32 length; u32 crc32c of the header; a u32 count and one crc32c for each
/// 4 KiB of bits).
package struct ObjectMap: Sendable, Equatable {
    package enum State: UInt8, Sendable {
        case absent = 0
        /// Exists, and was written since the newest snapshot.
        case exists = 1
        /// Is being removed.
        case pending = 2
        /// Exists, and wasn't written since the newest snapshot.
        case clean = 3
    }

    package let count: Int
    /// Four objects in a byte.
    private var bits: [UInt8]

    /// A map of objects that are all absent.
    package init(count: Int) {
        self.count = count
        bits = [UInt8](repeating: 0, count: (count + 3) / 4)
    }

    package subscript(object: Int) -> State {
        get {
            precondition(object < count, "no such object")
            // Two bits have four values, and all four are states.
            return State(rawValue: bits[object / 4] >> Self.shift(object) & 3)!
        }
        set {
            precondition(object < count, "no such object")
            let cleared = bits[object / 4] & ~(3 << Self.shift(object))
            bits[object / 4] = cleared | newValue.rawValue << Self.shift(object)
        }
    }

    /// Whether the object may exist, as librbd asks before it reads or removes one.
    package func exists(_ object: Int) -> Bool { object < count && self[object] != .absent }

    /// How many objects are in one of these states.
    package func count(in states: Set<State>) -> Int {
        // By the byte, as a map may be of hundreds of millions of objects; those past the last are absent.
        precondition(!states.contains(.absent), "the absent ones end nowhere")
        let inByte = (0..<256).map { byte in
            [6, 4, 2, 0].count { shift in State(rawValue: UInt8(byte >> shift & 3)).map(states.contains) == true }
        }
        return bits.reduce(0) { $0 + inByte[Int($1)] }
    }

    /// The objects that were written, made or removed since `base`, marked as existing. For a map that tells which
    /// objects are clean (`RBD_FEATURE_FAST_DIFF`).
    ///
    /// - Parameter between: The maps of the snapshots between the two: each tells what was written since the one before.
    package func changed(since base: ObjectMap, through between: [ObjectMap] = []) -> ObjectMap {
        var changed = ObjectMap(count: max(count, base.count))
        for index in changed.bits.indices {
            func byte(_ map: ObjectMap) -> UInt8 { index < map.bits.count ? map.bits[index] : 0 }
            // In each pair of bits: 01 and 10 are written, 11 is clean, 00 is absent.
            func written(_ byte: UInt8) -> UInt8 { (byte >> 1 ^ byte) & 0x55 }
            func exists(_ byte: UInt8) -> UInt8 { (byte >> 1 | byte) & 0x55 }
            changed.bits[index] =
                between.reduce(written(byte(self))) { $0 | written(byte($1)) }
                | (exists(byte(self)) ^ exists(byte(base)))
        }
        return changed
    }

    /// Every object that may exist here or in `other`.
    package func union(_ other: ObjectMap) -> ObjectMap {
        var union = count >= other.count ? self : other
        let shorter = count >= other.count ? other : self
        for index in shorter.bits.indices { union.bits[index] |= shorter.bits[index] }
        return union
    }

    /// The same objects up to `count`, and absent ones where there were none.
    package func resized(to count: Int) -> ObjectMap {
        var map = ObjectMap(count: count)
        let shared = min(bits.count, map.bits.count)
        map.bits.replaceSubrange(0..<shared, with: bits[0..<shared])
        map.clearPadding()
        return map
    }

    /// The last byte may hold bits of objects that are no more.
    private mutating func clearPadding() {
        for object in count..<max(count, bits.count * 4) { bits[object / 4] &= ~(3 << Self.shift(object)) }
    }

    /// Runs of objects that may exist here or in `other`, in order.
    ///
    /// - Parameter range: Only objects of these; all by default.
    package func existingRuns(in range: Range<Int>? = nil, with other: ObjectMap?, _ run: (Range<Int>) -> Void) {
        let all = 0..<max(count, other?.count ?? 0)
        let range = range.map { $0.clamped(to: all) } ?? all
        let total = range.upperBound
        var start: Int?
        var object = range.lowerBound
        while object < total {
            let byte =
                (object / 4 < bits.count ? bits[object / 4] : 0)
                | (other.map { object / 4 < $0.bits.count ? $0.bits[object / 4] : 0 } ?? 0)
            // Most maps are mostly empty: four absent objects at once.
            if byte == 0, object % 4 == 0 {
                if let begun = start { run(begun..<object) }
                start = nil
                object += 4
                continue
            }
            let isThere = exists(object) || other?.exists(object) == true
            if isThere, start == nil { start = object }
            if !isThere, let begun = start {
                run(begun..<object)
                start = nil
            }
            object += 1
        }
        if let begun = start, begun < total { run(begun..<total) }
    }

    private static func shift(_ object: Int) -> UInt8 { UInt8(6 - object % 4 * 2) }
}

extension ObjectMap {
    private static let blockBytes = 4096
    /// What librbd itself refuses to go beyond (cls_rbd: RBD's object map limit of 256,000,000 objects).
    private static let most: UInt64 = 256_000_000

    /// - Returns: Nothing if the bytes aren't an object map of this version, or its sums are wrong.
    package init?(encoded bytes: [UInt8]) {
        do throws(CephDecoder.Malformed) {
            try self.init(decoding: CephDecoder(bytes))
        } catch {
            return nil
        }
    }

    private init(decoding decoder: consuming CephDecoder) throws(CephDecoder.Malformed) {
        let header = try decoder.bytes(Int(try decoder.integer(UInt32.self)))
        var inner = CephDecoder(header)
        let versions = (try inner.integer(UInt8.self), try inner.integer(UInt8.self))
        let (length, count) = (try inner.integer(UInt32.self), try inner.integer(UInt64.self))
        // Before memory is taken for as many: they must be there.
        guard versions == (1, 1), length == 8, count <= Self.most, decoder.count >= (Int(count) + 3) / 4 else {
            throw CephDecoder.Malformed()
        }
        self.init(count: Int(count))
        bits = try decoder.bytes(bits.count)
        guard try decoder.bytes(Int(try decoder.integer(UInt32.self))) == footer(header: header) else {
            throw CephDecoder.Malformed()
        }
        clearPadding()
    }

    package func encoded() -> [UInt8] {
        let header = [1, 1] + CephEncoder.integer(UInt32(8)) + CephEncoder.integer(UInt64(count))
        let footer = footer(header: header)
        return CephEncoder.integer(UInt32(header.count)) + header + bits
            + CephEncoder.integer(UInt32(footer.count)) + footer
    }

    private func footer(header: [UInt8]) -> [UInt8] {
        let sums = stride(from: 0, to: bits.count, by: Self.blockBytes).map { block in
            crc32c(bits[block..<min(block + Self.blockBytes, bits.count)], seed: 0)
        }
        return CephEncoder.integer(crc32c(header, seed: 0)) + CephEncoder.integer(UInt32(sums.count))
            + sums.flatMap { CephEncoder.integer($0) }
    }
}
