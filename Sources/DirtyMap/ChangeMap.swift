internal import Synchronization
package import Volumes

/// What is changed of a volume that can hold its states by itself: for those who want to see it.
package final class ChangeMap: ChangeWatch {
    private struct State {
        var map: DirtyMap
        /// Changes that were begun and aren't ended, and how many of the very same extent.
        var inFlight: [Extent: Int] = [:]
    }

    private let state: Mutex<State>
    private let size: ByteCount

    package init(size: ByteCount) {
        self.size = size
        state = Mutex(State(map: DirtyMap(size: size, granularity: .standard)))
    }

    /// A state is about to be held: what is changed from here on isn't in it, nor may be what is under way.
    package func turnOver() {
        state.withLock { state in
            state.map = DirtyMap(size: size, granularity: .standard)
            for extent in state.inFlight.keys { state.map.mark(extent) }
        }
    }

    package func willChange(_ extent: Extent) async throws(VolumeError) {
        let extent = within(extent)
        state.withLock { state in
            state.inFlight[extent, default: 0] += 1
            state.map.mark(extent)
        }
    }

    package func didChange(_ extent: Extent) {
        let extent = within(extent)
        state.withLock { state in
            let count = state.inFlight[extent] ?? 1
            state.inFlight[extent] = count > 1 ? count - 1 : nil
        }
    }

    package func dirty(in range: Extent) -> ExtentSet {
        let map = state.withLock { $0.map }
        var found = ExtentSet()
        var place = range.offset.rounded(downTo: map.granularity.size)
        while place < range.end, let run = map.nextRun(from: place, limit: range.length + map.granularity.size) {
            guard run.offset < range.end else { break }
            found.append(run)
            place = run.end
        }
        return found
    }

    /// A volume may have been made larger since.
    private func within(_ extent: Extent) -> Extent { extent.intersection(Extent(offset: .zero, length: size)) }
}
