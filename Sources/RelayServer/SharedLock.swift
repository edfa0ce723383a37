internal import Synchronization
internal import Volumes

/// Lets some operations run together and others only alone, in the order in which they come.
final class SharedLock: Sendable {
    private struct State {
        var together = 0
        var isAlone = false
        var waiting: [(isAlone: Bool, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let state = Mutex(State())

    func run<Value: Sendable>(
        alone: Bool, _ body: () async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        await enter(alone)
        defer { leave(alone) }
        return try await body()
    }

    private func enter(_ alone: Bool) async {
        await withCheckedContinuation { continuation in
            let isIn = state.withLock { state in
                // Nobody passes those who wait.
                guard state.waiting.isEmpty, !state.isAlone, !alone || state.together == 0 else {
                    state.waiting.append((alone, continuation))
                    return false
                }
                if alone { state.isAlone = true } else { state.together += 1 }
                return true
            }
            if isIn { continuation.resume() }
        }
    }

    private func leave(_ alone: Bool) {
        let next: [CheckedContinuation<Void, Never>] = state.withLock { state in
            if alone { state.isAlone = false } else { state.together -= 1 }
            var admitted: [CheckedContinuation<Void, Never>] = []
            while let first = state.waiting.first, !state.isAlone, !first.isAlone || state.together == 0 {
                state.waiting.removeFirst()
                if first.isAlone { state.isAlone = true } else { state.together += 1 }
                admitted.append(first.continuation)
            }
            return admitted
        }
        for continuation in next { continuation.resume() }
    }
}
