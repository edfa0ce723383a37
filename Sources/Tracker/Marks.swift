internal import Synchronization
package import Volumes

/// Which chunks of a volume were changed between the states that are held of it, and since: bits in a mapped file.
///
/// A chunk is marked before its change is begun. A change that is under way while a state is held belongs to both sides
/// of it: whoever reads the volume afterwards may find the bytes from before it, or after it, or some of each.
///
/// The file outlives a process that is killed: each mark was the kernel's before the change was begun. Whether marks that
/// are found are gone by is decided by `Circumstances.distrust`; all others are begun anew, and no state is held then.
///
/// Any thread may call anything at any time. A mark takes a lock for less than a microsecond; holding a state clears a set
/// of bits under it, which takes the writers 0.1 ms for each TiB at 64 KiB.
///
/// Room: three bits for each chunk, 6 MiB for each TiB at 64 KiB, taken at once.
package final class Marks: ChangeWatch {
    package enum Finding: Sendable, Equatable {
        case trusted
        /// They were begun anew, and why; nothing where there were none.
        case anew(String?)
    }

    private struct State {
        var header: MarksHeader
        /// Changes that were begun and aren't ended, and how many of the very same extent.
        var inFlight: [Extent: Int] = [:]
        var inFlightCount: UInt64 = 0
    }

    package let size: ByteCount
    package let granularity: Granularity
    package let finding: Finding
    private let layout: MarksLayout
    private let file: LockedFile
    /// Looked at and changed while `state` is locked.
    private let words: MappedWords
    private let state: Mutex<State>
    /// Since 1970.
    private let now: @Sendable () -> Duration

    /// Opens the marks at a path, or begins them there. Blocks.
    ///
    /// - Throws: `busy` if they are open already.
    init(
        at path: String, of circumstances: Circumstances, now: @escaping @Sendable () -> Duration = wallClock
    ) throws(VolumeError) {
        let layout = MarksLayout(size: circumstances.size, granularity: circumstances.granularity)
        let file = try LockedFile(at: path)
        var (header, finding) = try Self.find(in: file, layout, circumstances)
        if finding != .trusted {
            // Without a header first: whoever is killed in it leaves nothing that is gone by.
            try file.clear(to: layout.size)
        }
        let words = try file.map(layout.size)
        if finding == .trusted {
            // Up to here nobody else has changed it; and nothing is under way any more.
            let last = max(circumstances.changed ?? .zero, Self.duration(words[MarksLayout.lastWord]))
            words[MarksLayout.lastWord] = Self.nanoseconds(last)
        } else {
            words[MarksLayout.lastWord] = Self.nanoseconds(circumstances.changed ?? .zero)
        }
        words[MarksLayout.inFlightWord] = 0
        try Self.publish(&header, in: file)
        (size, granularity) = (circumstances.size, circumstances.granularity)
        (self.layout, self.file, self.words, self.finding, self.now) = (layout, file, words, finding, now)
        state = Mutex(State(header: header))
    }

    /// The header to go on from.
    private static func find(
        in file: LockedFile, _ layout: MarksLayout, _ circumstances: Circumstances
    ) throws(VolumeError) -> (MarksHeader, Finding) {
        let anew = MarksHeader(of: circumstances)
        let size = try file.size()
        guard size > 0 else { return (anew, .anew(nil)) }
        var copies: [MarksHeader] = []
        for copy in 0..<2 {
            let bytes = try file.read(MarksHeader.room, at: copy * MarksHeader.room)
            if let header = MarksHeader(bytes) { copies.append(header) }
        }
        guard let newest = copies.max(by: { $0.generation < $1.generation }) else {
            return (anew, .anew("they are damaged"))
        }
        let known = MarksLayout(
            size: ByteCount(newest.sizeBytes), granularity: Granularity(ByteCount(newest.granularityBytes)) ?? .standard
        )
        guard size == known.size else { return (anew, .anew("they are cut short")) }
        let words = try file.map(size)
        let why = circumstances.distrust(
            newest, last: duration(words[MarksLayout.lastWord]), isInFlight: words[MarksLayout.inFlightWord] > 0)
        return why.map { (anew, .anew($0)) } ?? (newest, .trusted)
    }

    /// In the place of the older copy: one is whole at every moment.
    private static func publish(_ header: inout MarksHeader, in file: LockedFile) throws(VolumeError) {
        header.generation += 1
        try file.write(try header.bytes(), at: Int(header.generation % 2) * MarksHeader.room)
    }

    private static func nanoseconds(_ time: Duration) -> UInt64 {
        let (seconds, rest) = time.components
        return UInt64(clamping: seconds) * 1_000_000_000 + UInt64(clamping: rest / 1_000_000_000)
    }
    private static func duration(_ nanoseconds: UInt64) -> Duration { .nanoseconds(Int64(clamping: nanoseconds)) }

    // MARK: Changes

    package func willChange(_ extent: Extent) async throws(VolumeError) { begin(extent) }

    /// The same, without a task.
    package func begin(_ extent: Extent) {
        let extent = extent.intersection(Extent(offset: .zero, length: size))
        guard !extent.isEmpty else { return }
        state.withLock { state in
            state.inFlight[extent, default: 0] += 1
            state.inFlightCount += 1
            noteLife(state)
            if let slot = state.header.presentSlot { mark(extent, in: slot) }
        }
    }

    package func didChange(_ extent: Extent) {
        let extent = extent.intersection(Extent(offset: .zero, length: size))
        guard !extent.isEmpty else { return }
        state.withLock { state in
            guard let count = state.inFlight[extent] else { preconditionFailure("a change ended that wasn't begun") }
            state.inFlight[extent] = count > 1 ? count - 1 : nil
            state.inFlightCount -= 1
            noteLife(state)
        }
    }

    /// It was touched by us, and nothing of it was changed.
    /// - Parameter time: Since 1970.
    func noteTouch(at time: Duration) {
        state.withLock { _ in
            words[MarksLayout.lastWord] = max(words[MarksLayout.lastWord], Self.nanoseconds(time))
        }
    }

    /// Whoever is killed leaves this behind.
    private func noteLife(_ state: borrowing State) {
        words[MarksLayout.inFlightWord] = state.inFlightCount
        words[MarksLayout.lastWord] = Self.nanoseconds(now())
    }

    private func mark(_ extent: Extent, in slot: Int) {
        words.set(chunks(of: extent), from: layout.word(ofSlot: slot))
    }

    /// The chunks that an extent touches.
    private func chunks(of extent: Extent) -> Range<Int> {
        let chunk = granularity.size.bytes
        return Int(extent.offset.bytes / chunk)..<Int((extent.end.bytes + chunk - 1) / chunk)
    }

    package func dirty(in range: Extent) -> ExtentSet {
        state.withLock { state in runs(state.header.presentSlot.map { [$0] } ?? [], in: range) }
    }

    // MARK: States

    /// The states that are held, oldest first.
    package var held: [Snapshot] {
        state.withLock { state in state.header.held.map { Snapshot(id: $0.number, name: $0.name, size: size) } }
    }

    /// States that are held from here on get greater numbers.
    package func number(after number: UInt64) throws(VolumeError) {
        try change { state in state.header.lastNumber = max(state.header.lastNumber, number) }
    }

    /// Holds the volume's state as it is now. The same name gives the same state again.
    package func hold(as name: String) throws(VolumeError) -> Snapshot {
        let isHeld = held.contains { $0.isNamed(name) }
        if !isHeld {
            try change { state in
                // More than a move ever holds: the oldest isn't missed, or will be noticed to be gone.
                if state.header.freeSlot == nil { state.header.held.removeFirst() }
                guard let slot = state.header.freeSlot else { preconditionFailure("one was just given up") }
                let start = layout.word(ofSlot: slot)
                for index in start..<start + layout.slotWords where words[index] != 0 { words[index] = 0 }
                for extent in state.inFlight.keys { mark(extent, in: slot) }
                state.header.lastNumber += 1
                state.header.held.append(
                    MarksHeader.Held(number: state.header.lastNumber, name: name, slot: slot))
            }
        }
        guard let state = held.first(where: { $0.isNamed(name) }) else {
            throw VolumeError(.failed, "hold", on: file.path, reason: "the state was dropped meanwhile")
        }
        return state
    }

    /// Forgets a state, if it is held. What was changed since the one before it stays known.
    package func drop(_ name: String) throws(VolumeError) {
        guard held.contains(where: { $0.isNamed(name) }) else { return }
        try change { state in
            guard let index = state.header.held.firstIndex(where: { $0.name.utf8.elementsEqual(name.utf8) }) else {
                return
            }
            if index > 0 {
                let (from, to) = (state.header.held[index].slot, state.header.held[index - 1].slot)
                for word in 0..<layout.slotWords {
                    let bits = words[layout.word(ofSlot: from) + word]
                    if bits != 0 { words[layout.word(ofSlot: to) + word] |= bits }
                }
            }
            state.header.held.remove(at: index)
        }
    }

    /// Changes the header, durably for whoever comes after a killed process; or not at all.
    private func change(_ change: (inout State) -> Void) throws(VolumeError) {
        try state.withLock { state throws(VolumeError) in
            let before = state.header
            change(&state)
            do throws(VolumeError) {
                try Self.publish(&state.header, in: file)
            } catch {
                state.header = before
                throw error
            }
        }
    }

    /// What was changed since a state, in whole chunks.
    /// - Parameter end: Up to which later state; nothing for up to now, with what is under way.
    /// - Returns: Nothing if one of them isn't held.
    package func changes(since number: UInt64, upTo end: UInt64? = nil, in range: Extent) -> ExtentSet? {
        state.withLock { state in
            let held = state.header.held
            guard held.contains(where: { $0.number == number }) else { return nil }
            if let end { guard held.contains(where: { $0.number == end }) else { return nil } }
            let between = held.filter { $0.number >= number && $0.number < end ?? .max }
            return runs(between.map(\.slot), in: range)
        }
    }

    /// Whether nothing was changed since a state, and nothing is under way.
    /// - Returns: Nothing if the state isn't held.
    package func isUnchanged(since number: UInt64) -> Bool? {
        let all = Extent(offset: .zero, length: size)
        guard let changes = changes(since: number, in: all) else { return nil }
        return changes.isEmpty && state.withLock { $0.inFlight.isEmpty }
    }

    private func runs(_ slots: [Int], in range: Extent) -> ExtentSet {
        let range = range.intersection(Extent(offset: .zero, length: size))
        var found = ExtentSet()
        guard !slots.isEmpty, !range.isEmpty else { return found }
        words.forEachRun(in: chunks(of: range), ofSlotsAt: slots.map(layout.word(ofSlot:))) { run in
            let chunk = granularity.size.bytes
            found.append(
                Extent(
                    from: ByteOffset(UInt64(run.lowerBound) * chunk),
                    to: min(ByteOffset(UInt64(run.upperBound) * chunk), ByteOffset(size.bytes))))
        }
        return found
    }

    /// Removes the file: nobody goes on from it. What is told here still counts for as long as this value lives.
    package func remove() throws(VolumeError) { try file.remove() }
}
