internal import Synchronization
package import Volumes

/// How far a piece of work has come, for whoever shows it. Written by the work, read at any time.
package final class WorkProgress: Sendable {
    package struct View: Sendable {
        /// What is being done: "snapshot monday (2 of 4)".
        package var title = ""
        /// Bytes that are looked at in all; nothing while they are being counted.
        package var total: ByteCount?
        /// Bytes that were looked at.
        package var done = ByteCount.zero
        /// What became of them.
        package var moved = Moved()
        /// Things that were dealt with, of those known so far, where bytes don't tell.
        package var tally: (done: Int, known: Int, noun: String)?
        /// Something that holds the work up.
        package var notice: String?
    }

    private let view = Mutex(View())

    package init() {}

    package var current: View { view.withLock { $0 } }

    package func begin(_ title: String, total: ByteCount? = nil) {
        view.withLock { $0 = View(title: title, total: total) }
    }
    package func expect(_ total: ByteCount, done: ByteCount = .zero) {
        view.withLock {
            $0.total = total
            $0.done = done
        }
    }
    package func advance(by done: ByteCount, _ moved: Moved = Moved()) {
        view.withLock {
            $0.done += done
            $0.moved += moved
            $0.notice = nil
        }
    }
    package func count(_ done: Int, of known: Int, _ noun: String) {
        view.withLock { $0.tally = (done, known, noun) }
    }
    package func notice(_ text: String?) { view.withLock { $0.notice = text } }
}

/// Asks work to stop where it can go on later. Asked from a signal's handler, seen between two pieces.
package final class StopRequest: Sendable {
    private let asked = Atomic(false)
    private let wider: StopRequest?

    /// - Parameter wider: What else asks this work to stop; it isn't asked for by this.
    package init(within wider: StopRequest? = nil) { self.wider = wider }
    package func ask() { asked.store(true, ordering: .relaxed) }
    package var isAsked: Bool { asked.load(ordering: .relaxed) || wider?.isAsked == true }
}
