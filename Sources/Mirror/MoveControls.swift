internal import Synchronization
package import Volumes

/// What an operator may change while a move runs. Written by whoever takes orders, read by the move.
package final class MoveControls: Sendable {
    package enum Throttle: Sendable, Equatable {
        /// As it is computed.
        case auto
        case off
        /// As the operator says.
        case limit(ByteRate)
    }

    private struct State {
        var isPaused = false
        var isCutoverAsked = false
        var isCancelled = false
        var throttle = Throttle.auto
        var bandwidth: ByteRate?
    }
    private let state: Mutex<State>

    package init(bandwidth: ByteRate? = nil, throttle: Throttle = .auto) {
        state = Mutex(State(throttle: throttle, bandwidth: bandwidth))
    }

    /// Nothing more is moved, and the writer isn't held back, until it goes on.
    package var isPaused: Bool {
        get { state.withLock { $0.isPaused } }
        set { state.withLock { $0.isPaused = newValue } }
    }
    /// Hand over now, whatever it is predicted to take.
    package var isCutoverAsked: Bool {
        get { state.withLock { $0.isCutoverAsked } }
        set { state.withLock { $0.isCutoverAsked = newValue } }
    }
    /// Give the move up, and remove what it made.
    package var isCancelled: Bool {
        get { state.withLock { $0.isCancelled } }
        set { state.withLock { $0.isCancelled = newValue } }
    }
    package var throttle: Throttle {
        get { state.withLock { $0.throttle } }
        set { state.withLock { $0.throttle = newValue } }
    }
    /// Nothing for as fast as it goes.
    package var bandwidth: ByteRate? {
        get { state.withLock { $0.bandwidth } }
        set { state.withLock { $0.bandwidth = newValue } }
    }
}
