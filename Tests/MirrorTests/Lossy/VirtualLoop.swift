import Dispatch
import NIOCore
import Synchronization

/// An event loop in a simulation's time: what it runs is one more of the simulation's jobs.
final class VirtualLoop: EventLoop {
    private let time: VirtualTime
    /// Whether one of its own jobs is running. They run one after another, and never side by side with the simulation's
    /// others.
    private let isInside = Atomic(false)

    init(_ time: VirtualTime) { self.time = time }

    var inEventLoop: Bool { isInside.load(ordering: .relaxed) }
    var now: NIODeadline { .uptimeNanoseconds(UInt64(time.now / .nanoseconds(1))) }

    private func run(_ body: () -> Void) {
        let wasInside = isInside.exchange(true, ordering: .relaxed)
        body()
        isInside.store(wasInside, ordering: .relaxed)
    }

    func execute(_ task: @escaping @Sendable () -> Void) { time.call { self.run(task) } }

    func submit<Value>(_ task: @escaping @Sendable () throws -> Value) -> EventLoopFuture<Value> {
        let promise = makePromise(of: Value.self)
        execute { promise.assumeIsolated().completeWith(Result { try task() }) }
        return promise.futureResult
    }

    @discardableResult
    func scheduleTask<Value>(
        deadline: NIODeadline, _ task: @escaping @Sendable () throws -> Value
    ) -> Scheduled<Value> {
        let promise = makePromise(of: Value.self)
        let number = time.call(at: .nanoseconds(Int64(deadline.uptimeNanoseconds))) {
            self.run { promise.assumeIsolated().completeWith(Result { try task() }) }
        }
        return Scheduled(promise: promise) { self.time.cancel(number) }
    }

    @discardableResult
    func scheduleTask<Value>(
        in delay: TimeAmount, _ task: @escaping @Sendable () throws -> Value
    ) -> Scheduled<Value> {
        scheduleTask(deadline: now + delay, task)
    }

    /// It ends with its simulation.
    func shutdownGracefully(queue: DispatchQueue, _ callback: @escaping @Sendable ((any Error)?) -> Void) {
        queue.async { callback(EventLoopError.unsupportedOperation) }
    }
}
