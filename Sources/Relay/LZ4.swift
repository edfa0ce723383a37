internal import CLZ4
package import NIOCore

/// LZ4 blocks (lz4 project, doc/lz4_Block_format.md).
package enum LZ4 {
    /// lz4.h, `LZ4_compress_fast`: 1 packs best, and each more is some 3 % faster. Beyond 65,537 nothing changes
    /// (lz4.c, `LZ4_ACCELERATION_MAX`).
    package static let accelerations = 1...65_537
    /// Less isn't worth the work at the other end.
    static func enough(_ count: Int) -> Int { count / 16 * 15 }

    /// The bytes as a block.
    ///
    /// - Parameter bytes: At most `RelayBounds.payload`.
    /// - Returns: Nothing if it isn't a sixteenth shorter.
    package static func compress(_ bytes: UnsafeRawBufferPointer, acceleration: Int) -> ByteBuffer? {
        precondition(bytes.count <= RelayBounds.payload, "a payload is bounded")
        let room = enough(bytes.count)
        guard room > 0 else { return nil }
        var block = ByteBuffer()
        // With so little room it stops by itself where it doesn't get shorter.
        let written = unsafe block.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { place in
            let source = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
            let goal = unsafe place.baseAddress?.assumingMemoryBound(to: CChar.self)
            return unsafe Int(LZ4_compress_fast(source, goal, Int32(bytes.count), Int32(room), Int32(acceleration)))
        }
        return written > 0 ? block : nil
    }

    /// - Returns: Whether it was a block of exactly as many bytes as `buffer` takes; it holds anything otherwise.
    package static func decompress(_ block: ByteBuffer, into buffer: UnsafeMutableRawBufferPointer) -> Bool {
        guard block.readableBytes <= RelayBounds.payload, buffer.count <= RelayBounds.payload else { return false }
        return unsafe block.withUnsafeReadableBytes { stored in
            let source = unsafe stored.baseAddress?.assumingMemoryBound(to: CChar.self)
            let goal = unsafe buffer.baseAddress?.assumingMemoryBound(to: CChar.self)
            // It writes no byte past the buffer's end, and reads none past the block's (lz4.h, "LZ4_decompress_safe").
            return unsafe LZ4_decompress_safe(source, goal, Int32(stored.count), Int32(buffer.count)) == buffer.count
        }
    }
}

/// Which payloads are worth compressing.
package struct Compression: Sendable {
    package enum Mode: String, Sendable, CaseIterable {
        /// As long as it makes them shorter.
        case auto
        /// All; those that get no shorter are sent as they are.
        case lz4
        case none
    }

    package let mode: Mode
    package let acceleration: Int
    /// Payloads that got no shorter, one after another.
    private var misses = 0
    /// Payloads to be sent as they are before the next is tried.
    private var skips = 0

    /// What is shorter is sent as it is.
    static let smallest = 512
    /// Payloads left out at most: what lies behind so many may be of another kind.
    static let mostSkips = 63

    /// - Parameter acceleration: One of `LZ4.accelerations`.
    package init(_ mode: Mode, acceleration: Int = 1) {
        precondition(LZ4.accelerations.contains(acceleration), "no acceleration of LZ4's")
        (self.mode, self.acceleration) = (mode, acceleration)
    }

    /// Whether the next payload is to be tried.
    package mutating func tries(_ count: Int) -> Bool {
        guard count >= Self.smallest else { return false }
        switch mode {
        case .none: return false
        case .lz4: return true
        case .auto:
            guard skips > 0 else { return true }
            skips -= 1
            return false
        }
    }

    /// What became of one that was tried: neighbours are alike.
    package mutating func note(isShorter: Bool) {
        guard !isShorter else { return (misses, skips) = (0, 0) }
        misses = min(misses + 1, 6)
        skips = min((1 << misses) - 1, Self.mostSkips)
    }
}
