import Foundation
import Glibc
import Sockets
import Synchronization
import Testing
import Volumes

@testable import Control

/// A runtime directory of a test's own.
final class Site {
    let directory: RuntimeDirectory
    /// Long: other tests may keep all processors busy. A test of a limit shortens it.
    var limits = ControlServer.Limits()

    init() {
        directory = RuntimeDirectory(path: "/tmp/gw-\(UInt32.random(in: 0 ... .max))")
        limits.request = .seconds(60)
        limits.answer = .seconds(60)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory.path) }

    func client(patience: Duration = .seconds(60)) -> ControlClient {
        ControlClient(in: [directory], patience: patience)
    }

    /// Runs `body` while a move listens.
    func serving<Value>(
        _ control: any MoveControl = FakeMove(), _ body: () async throws -> Value
    ) async throws -> Value {
        try await ControlServer(in: directory, control: control, limits: limits).serve(
            unheard: { Issue.record($0) }, body)
    }

    var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: directory.path))?.sorted() ?? [] }
    var ownSocket: String { "\(directory.path)/\(getpid()).sock" }
}

/// A move that only notes what it is told.
final class FakeMove: MoveControl {
    private let orders = Mutex<[MoveOrder]>([])
    private let fixed: MoveStatus

    init(to target: String = "rbd:slow/v") {
        fixed = MoveStatus(source: "rbd:fast/v", target: target, maxPauseSeconds: 0.5)
    }

    var taken: [MoveOrder] { orders.withLock { $0 } }
    func status() async -> MoveStatus { fixed }
    func take(_ order: MoveOrder) async -> OrderAnswer {
        orders.withLock { $0.append(order) }
        return order == .cutover ? .refused("nothing is copied yet") : .accepted("noted")
    }
}

/// A move that answers nothing until it is let go.
final class StuckMove: MoveControl {
    private let waiting = Mutex<(asked: Int, continuations: [CheckedContinuation<Void, Never>]?)>((0, []))

    var asked: Int { waiting.withLock { $0.asked } }

    func letGo() {
        let continuations = waiting.withLock { waiting in
            defer { waiting.continuations = nil }
            return waiting.continuations ?? []
        }
        for continuation in continuations { continuation.resume() }
    }

    private func wait() async {
        await withCheckedContinuation { continuation in
            let isLetGo = waiting.withLock { waiting in
                waiting.asked += 1
                waiting.continuations?.append(continuation)
                return waiting.continuations == nil
            }
            if isLetGo { continuation.resume() }
        }
    }

    func status() async -> MoveStatus {
        await wait()
        return await FakeMove().status()
    }
    func take(_ order: MoveOrder) async -> OrderAnswer {
        await wait()
        return .accepted("at last")
    }
}

/// A client that does what it likes.
final class RawClient {
    private let descriptor: Int32

    init(_ path: String) throws {
        descriptor = try #require(try UnixSocket.connected(to: path))
    }
    /// Takes the descriptor over.
    init(descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }

    /// As much as the other side takes.
    @discardableResult
    func send(_ bytes: some Collection<UInt8>) -> Int {
        let bytes = Array(bytes)
        return unsafe bytes.withUnsafeBytes {
            unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
    }
    func send(_ text: String) { send(text.utf8) }

    func sendNoMore() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Everything until the other side closes; nothing if it doesn't within `patience`.
    func received(within patience: Duration = .seconds(60)) async throws -> String? {
        var text: [UInt8] = []
        let deadline = ContinuousClock.now + patience
        while ContinuousClock.now < deadline {
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
            if count > 0 {
                text += buffer[..<count]
            } else if count == 0 || errno != EAGAIN {
                return String(decoding: text, as: UTF8.self)
            } else {
                try await Task.sleep(for: .milliseconds(2))
            }
        }
        return nil
    }
}

/// Waits until it is so.
func eventually(_ what: Comment, _ isSo: () -> Bool) async throws {
    for _ in 0..<2000 {
        if isSo() { return }
        try await Task.sleep(for: .milliseconds(5))
    }
    Issue.record(what)
}
