import Foundation
import NBDServer
import RemoteVolumes
import Synchronization
import Volumes

@testable import FileVolumes
@testable import RelayServer

/// A directory that is gone with its last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: "godwit-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }
}

/// A receiver in this process, for the time of a test: images are volumes in memory, files are files.
final class Receiver: Sendable {
    let scratch: Scratch
    let notices = Mutex<[String]>([])
    private let places = Mutex<[String: MemoryVolume.Place]>([:])
    private let newPlace: @Sendable () -> MemoryVolume.Place
    private let fault: MemoryVolume.Fault
    private let allowances: [Allowance]
    private let limits: RelayLimits

    init(
        allow: [String]? = nil, limits: RelayLimits = RelayLimits(),
        newPlace: @escaping @Sendable () -> MemoryVolume.Place = { MemoryVolume.Place() },
        fault: @escaping MemoryVolume.Fault = { (_, _) throws(VolumeError) in }
    ) throws {
        scratch = try Scratch()
        (self.limits, self.newPlace, self.fault) = (limits, newPlace, fault)
        allowances = try (allow ?? ["rbd:slow", "file:\(scratch.path)"]).map { try Allowance($0) }
    }

    var socket: String { scratch.file("receiver.sock") }

    /// What is at an image's address.
    func place(_ address: String = "rbd:slow/v") -> MemoryVolume.Place {
        places.withLock { places in
            if let place = places[address] { return place }
            let place = newPlace()
            places[address] = place
            return place
        }
    }

    /// Begins to listen.
    func start() async throws {
        let server = try RelayServer(
            allowances, limits: limits,
            notice: { line in
                self.notices.withLock { $0.append(line) }
            }
        ) { address, _ throws(VolumeError) in
            switch address {
            case .rbd(let image):
                return MemoryVolume(at: self.place(image.text), address: image.text, fault: self.fault)
            case .file(let path): return FileTarget(path: path)
            case .nbd, .relay: throw VolumeError(.unsupported, "open", on: address.text, reason: "not allowed")
            }
        }
        let path = socket
        try await withCheckedThrowingContinuation { (started: CheckedContinuation<Void, any Error>) in
            let begun = Mutex<CheckedContinuation<Void, any Error>?>(started)
            // Ended by `stop`, which waits for it.
            let task = Task {
                do {
                    try await server.serve(at: .unix(path: path)) { _ in
                        await withCheckedContinuation { (stop: CheckedContinuation<Void, Never>) in
                            self.stopping.withLock { $0 = stop }
                            begun.withLock { $0.take() }?.resume()
                        }
                    }
                } catch {
                    begun.withLock { $0.take() }?.resume(throwing: error)
                    throw error
                }
            }
            self.task.withLock { $0 = task }
        }
    }

    private let stopping = Mutex<CheckedContinuation<Void, Never>?>(nil)
    private let task = Mutex<Task<Void, any Error>?>(nil)

    /// Lets go of all targets, in order.
    func stop() async throws {
        stopping.withLock { $0.take() }?.resume()
        try await task.withLock { $0.take() }?.value
    }

    func address(_ target: String = "rbd:slow/v") -> RelayAddress {
        RelayAddress(server: .unix(path: socket), target: target)
    }

    /// A near side of its own.
    func connect(
        _ target: String = "rbd:slow/v", wishes: LayoutWishes = LayoutWishes(), options: RelayOptions = RelayOptions()
    ) async throws -> RemoteTarget {
        guard let remote = try await RemoteTarget.connect(to: address(target), wishes: wishes, options: options) else {
            throw VolumeError(.unsupported, "connect", on: target, reason: "it is no receiver")
        }
        return remote
    }
}

/// Runs `body` while a receiver listens.
func withReceiver<Value>(
    _ receiver: Receiver? = nil, _ body: (Receiver) async throws -> Value
) async throws -> Value {
    let receiver = try receiver ?? Receiver()
    try await receiver.start()
    do {
        let value = try await body(receiver)
        try await receiver.stop()
        return value
    } catch {
        try? await receiver.stop()
        throw error
    }
}

/// Waits for something that another task does.
func waitUntil(_ holds: () -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(20)
    while !holds() {
        guard ContinuousClock.now < deadline else {
            throw VolumeError(.failed, "wait", on: "a test", reason: "too late")
        }
        try await Task.sleep(for: .milliseconds(1))
    }
}
