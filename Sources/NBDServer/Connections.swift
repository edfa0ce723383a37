internal import NIOCore
internal import Synchronization

/// The connections of a server, whatever event loops they are on: a bounded number.
final class Connections: Sendable {
    private struct Member {
        let loop: any EventLoop
        let connection: NIOLoopBound<Connection>
    }

    private struct State {
        var members: [ObjectIdentifier: Member] = [:]
        /// Those of them that use an export.
        var users: Set<ObjectIdentifier> = []
        var isEnding = false
        var whenEnded: CheckedContinuation<Void, Never>?
    }

    private let limit: Int
    private let state = Mutex(State())
    /// Told what an operator may want to know of clients.
    let notice: @Sendable (String) -> Void

    init(limit: Int, notice: @escaping @Sendable (String) -> Void) {
        self.limit = limit
        self.notice = notice
    }

    /// - Returns: Whether there is a place for it. Called on its event loop.
    func admit(_ connection: Connection, on loop: any EventLoop) -> Bool {
        let member = Member(loop: loop, connection: NIOLoopBound(connection, eventLoop: loop))
        return state.withLock { state in
            guard !state.isEnding, state.members.count < limit else { return false }
            state.members[ObjectIdentifier(connection)] = member
            return true
        }
    }

    /// It has entered an export.
    func entered(_ connection: Connection) {
        state.withLock { _ = $0.users.insert(ObjectIdentifier(connection)) }
    }

    var userCount: Int { state.withLock { $0.users.count } }

    /// It is closed, and its disk has nothing of it any more.
    func leave(_ connection: Connection) {
        let ended: CheckedContinuation<Void, Never>? = state.withLock { state in
            state.members[ObjectIdentifier(connection)] = nil
            state.users.remove(ObjectIdentifier(connection))
            return state.isEnding && state.members.isEmpty ? state.whenEnded.take() : nil
        }
        ended?.resume()
    }

    /// Ends all of them, and waits until they have ended. Once.
    func end() async {
        await withCheckedContinuation { continuation in
            let members = state.withLock { state in
                state.isEnding = true
                if !state.members.isEmpty { state.whenEnded = continuation }
                return Array(state.members.values)
            }
            if members.isEmpty { continuation.resume() }
            for member in members { member.loop.execute { member.connection.value.stop() } }
        }
    }
}
