internal import Volumes

/// Changes that wait for their turn on a connection, and go out together: many in one frame, as long as the line is busy.
/// An idle line keeps none of them waiting.
package struct Gathering<Ticket: Sendable>: Sendable {
    /// Frames of changes that may be under way: enough for the line, the far side and its disk to have one each, and one
    /// to spare. Whatever more there is waits here, and is gathered.
    package static var mostFrames: Int { 4 }

    private var waiting: [(change: Change, ticket: Ticket)] = []
    /// Those before went out already.
    private var next = 0
    private var frames = 0

    package init() {}

    package var isEmpty: Bool { next == waiting.count }

    package mutating func add(_ change: Change, _ ticket: Ticket) { waiting.append((change, ticket)) }

    /// What goes out in one frame now; nothing if nothing waits, or enough is under way.
    package mutating func take() -> (changes: [Change], tickets: [Ticket])? {
        guard frames < Self.mostFrames, next < waiting.count else { return nil }
        var (changes, tickets): ([Change], [Ticket]) = ([], [])
        var (stored, plain) = (0, 0)
        while next < waiting.count, changes.count < RelayBounds.changes {
            let (change, ticket) = waiting[next]
            stored += change.storedBytes
            plain += change.plainBytes
            guard changes.isEmpty || (stored <= RelayBounds.stored && plain <= RelayBounds.plain) else { break }
            changes.append(change)
            tickets.append(ticket)
            next += 1
        }
        if next == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            next = 0
        } else if next >= 256 {
            waiting.removeFirst(next)
            next = 0
        }
        frames += 1
        return (changes, tickets)
    }

    /// A frame was answered.
    package mutating func frameEnded() {
        precondition(frames > 0, "no frame is under way")
        frames -= 1
    }

    /// Those that will never go out.
    package mutating func giveUp() -> [Ticket] {
        defer {
            waiting = []
            next = 0
        }
        return waiting[next...].map(\.ticket)
    }
}
