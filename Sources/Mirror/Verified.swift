internal import Volumes

extension Walk {
    /// What was compared already.
    struct Verified {
        /// By their numbers at the source.
        var snapshots: Set<UInt64> = []
        /// Whether the head was, in the state that the target was in then.
        var isHead = false
        /// What was moved since, in the space of the route.
        var since = Moved()

        struct Moved: Sendable {
            var space = ByteCount.zero
            /// The volume's, when its head was compared.
            var size = ByteCount.zero
            /// Whether it was resized since, to whatever size: which part was moved says nothing then.
            var isResized = false
            var extents = ExtentSet()

            /// What objects have by default, and remote pieces: comparing goes by whole ones.
            private static let piece = ByteCount.mebibytes(4)

            /// How many pieces there is something in.
            var pieces: Int {
                var (count, end) = (0, UInt64.zero)
                for extent in extents.extents {
                    let first = max(end, extent.offset.bytes / Self.piece.bytes)
                    end = max(end, (extent.end.bytes - 1) / Self.piece.bytes + 1)
                    count += Int(end - min(first, end))
                }
                return count
            }

            static func pieces(of bytes: ByteCount) -> Int { Int(bytes.bytes / piece.bytes) }
        }
    }
}
