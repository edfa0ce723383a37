internal import Synchronization

/// Lets a bounded number of operations run at once, whoever begins them; the others wait in order.
package final class Slots: Sendable {
    private struct State {
        var free: Int
        var waiting: [CheckedContinuation<Void, Never>] = []
        /// Those before were let in already.
        var next = 0
    }

    private let state: Mutex<State>

    /// - Parameter count: One or more.
    package init(_ count: Int) { state = Mutex(State(free: max(1, count))) }

    package func run<Value: Sendable>(
        _ body: () async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        await enter()
        defer { leave() }
        return try await body()
    }

    private func enter() async {
        await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                guard state.free == 0 else {
                    state.free -= 1
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if isFree { continuation.resume() }
        }
    }

    private func leave() {
        let next: CheckedContinuation<Void, Never>? = state.withLock { state in
            guard state.next < state.waiting.count else {
                state.waiting.removeAll(keepingCapacity: true)
                state.next = 0
                state.free += 1
                return nil
            }
            defer {
                state.next += 1
                // Those that were let in aren't kept.
                if state.next >= 256, state.next * 2 >= state.waiting.count {
                    state.waiting.removeFirst(state.next)
                    state.next = 0
                }
            }
            return state.waiting[state.next]
        }
        next?.resume()
    }
}
