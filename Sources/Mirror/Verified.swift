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

            /// What comparing it comes to: whole chunks.
            var compared: ByteCount {
                let chunk = Granularity.standard.size.bytes
                var (count, end) = (UInt64.zero, UInt64.zero)
                for extent in extents.extents {
                    let first = max(end, extent.offset.bytes / chunk)
                    end = max(end, (extent.end.bytes + chunk - 1) / chunk)
                    count += end - min(first, end)
                }
                return ByteCount(count * chunk)
            }
        }
    }
}
