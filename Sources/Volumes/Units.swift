/// How many bytes: a length, a size, a total. Never a place and never a rate.
package struct ByteCount: Hashable, Comparable, Sendable {
    /// Bytes.
    package var bytes: UInt64

    package init(_ bytes: UInt64) { self.bytes = bytes }

    package static let zero = ByteCount(0)
    package static func kibibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 10) }
    package static func mebibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 20) }
    package static func gibibytes(_ count: UInt64) -> ByteCount { ByteCount(count << 30) }

    package static func < (left: ByteCount, right: ByteCount) -> Bool { left.bytes < right.bytes }
    package static func + (left: ByteCount, right: ByteCount) -> ByteCount { ByteCount(left.bytes + right.bytes) }
    package static func - (left: ByteCount, right: ByteCount) -> ByteCount { ByteCount(left.bytes - right.bytes) }
    package static func += (left: inout ByteCount, right: ByteCount) { left.bytes += right.bytes }
    package static func -= (left: inout ByteCount, right: ByteCount) { left.bytes -= right.bytes }

    /// How many units of `size` hold this many bytes, the last one perhaps in part.
    package func pieces(of size: ByteCount) -> Int { Int((bytes + size.bytes - 1) / size.bytes) }
}

/// Where a byte stands, counted from the start of a volume or object.
package struct ByteOffset: Hashable, Comparable, Sendable {
    /// Bytes from the start.
    package var bytes: UInt64

    package init(_ bytes: UInt64) { self.bytes = bytes }

    package static let zero = ByteOffset(0)

    package static func < (left: ByteOffset, right: ByteOffset) -> Bool { left.bytes < right.bytes }
    package static func + (left: ByteOffset, right: ByteCount) -> ByteOffset { ByteOffset(left.bytes + right.bytes) }
    package static func - (left: ByteOffset, right: ByteOffset) -> ByteCount { ByteCount(left.bytes - right.bytes) }

    /// The last multiple of `unit` at or before this offset.
    package func rounded(downTo unit: ByteCount) -> ByteOffset { ByteOffset(bytes / unit.bytes * unit.bytes) }
    /// The first multiple of `unit` at or after this offset.
    package func rounded(upTo unit: ByteCount) -> ByteOffset {
        ByteOffset((bytes + unit.bytes - 1) / unit.bytes * unit.bytes)
    }
}

/// Bytes in a second.
package struct ByteRate: Hashable, Comparable, Sendable {
    package var bytesPerSecond: UInt64

    package init(bytesPerSecond: UInt64) { self.bytesPerSecond = bytesPerSecond }

    package static func < (left: ByteRate, right: ByteRate) -> Bool { left.bytesPerSecond < right.bytesPerSecond }
}

/// How many bytes one bit of a dirty map stands for: a power of two from 4 KiB to 32 MiB.
///
/// 4 KiB is what bluestore allocates (`bluestore_min_alloc_size`); 32 MiB is RBD's largest object.
package struct Granularity: Hashable, Sendable {
    package static let smallest = ByteCount.kibibytes(4)
    package static let largest = ByteCount.mebibytes(32)
    /// 64 KiB: 2 MiB of map for each TiB.
    package static let standard = Granularity(.kibibytes(64))!

    package let size: ByteCount

    /// Nothing if `size` is not a power of two from 4 KiB to 32 MiB.
    package init?(_ size: ByteCount) {
        guard size >= Self.smallest, size <= Self.largest, size.bytes.nonzeroBitCount == 1 else { return nil }
        self.size = size
    }
}
