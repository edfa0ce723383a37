import Mirror
import Synchronization
import Volumes

/// What befalls a run: counts the operations of both its volumes, and lets one of them fail.
final class Mishap: Sendable {
    enum Kind: CaseIterable, Sendable {
        /// The process ends: nothing that comes after has an effect.
        case death
        /// One operation fails, and those after it do not.
        case once
    }

    private let kind: Kind
    /// Which operation; nothing for a run that goes well.
    private let place: Int?
    private let count = Mutex(0)
    /// Called before each operation, with its number.
    private let watch: @Sendable (_ number: Int, _ operation: String) -> Void

    init(
        _ kind: Kind = .once, at place: Int? = nil,
        watch: @escaping @Sendable (_ number: Int, _ operation: String) -> Void = { _, _ in }
    ) {
        self.kind = kind
        self.place = place
        self.watch = watch
    }

    var operations: Int { count.withLock { $0 } }
    var hasHappened: Bool { place.map { operations >= $0 } ?? false }

    var fault: MemoryVolume.Fault {
        { (operation, _) throws(VolumeError) in
            let number = self.count.withLock { count in
                count += 1
                return count
            }
            self.watch(number, operation)
            guard let place = self.place else { return }
            if number == place || (number > place && self.kind == .death) {
                throw VolumeError(.failed, operation, on: "operation \(number)", reason: "it was to fail")
            }
        }
    }
}

/// Fails the first operation of a certain name.
func failing(
    _ kind: VolumeError.Kind = .failed, at operation: String, number: Int = 1
) -> MemoryVolume.Fault {
    let seen = Counter()
    return { (name, _) throws(VolumeError) in
        guard name == operation, seen.next() == number else { return }
        throw VolumeError(kind, operation, on: "a volume", reason: "it was to fail")
    }
}

/// Fails the first operation of a certain name, and all that come after.
func dying(at operation: String) -> MemoryVolume.Fault {
    let deaths = Counter()
    return { (name, _) throws(VolumeError) in
        guard name == operation || deaths.value > 0 else { return }
        _ = deaths.next()
        throw VolumeError(.failed, name, on: "a volume", reason: "the process is dead")
    }
}

/// Runs `body` before an operation of a certain name, once.
func before(
    _ operation: String, number: Int = 1, _ body: @escaping @Sendable () -> Void
) -> MemoryVolume.Fault {
    let seen = Counter()
    return { (name, _) throws(VolumeError) in
        if name == operation, seen.next() == number { body() }
    }
}

final class Counter: Sendable {
    private let count = Mutex(0)
    func next() -> Int {
        count.withLock { count in
            count += 1
            return count
        }
    }
    var value: Int { count.withLock { $0 } }
}
