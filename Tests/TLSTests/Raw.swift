import Foundation
import Glibc
import Sockets
import Synchronization
import Volumes

/// A connected descriptor, which says bytes as a test has them. Its calls block, with a limit of time.
final class Raw {
    struct Gone: Error {}
    struct TooLate: Error {}

    /// Long: other tests may keep all processors busy.
    private static let patience: Int32 = 20_000
    private let descriptor: Int32

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    init(connectingTo path: String) throws {
        guard let descriptor = try UnixSocket.connected(to: path) else { throw Gone() }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    static func isReady(_ descriptor: Int32, for milliseconds: Int32 = patience) -> Bool {
        var set = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&set, 1, milliseconds) > 0
    }

    /// Few bytes: the kernel takes them at once.
    func send(_ bytes: [UInt8]) throws {
        let sent = unsafe bytes.withUnsafeBytes {
            unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        guard sent == bytes.count else { throw Gone() }
    }

    func receive(_ count: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            guard Self.isReady(descriptor) else { throw TooLate() }
            var piece = [UInt8](repeating: 0, count: count - bytes.count)
            let got = unsafe piece.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
            guard got > 0 else { throw Gone() }
            bytes += piece[..<got]
        }
        return bytes
    }

    /// Reads until the other end has closed.
    func waitForEnd() throws {
        do {
            while true { _ = try receive(1) }
        } catch is Gone {}
    }
}

/// Bytes as hexadecimal digits; blanks don't count.
func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// Runs what blocks on a thread of its own.
func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    let result: Result<Value, any Error> = await withCheckedContinuation { continuation in
        Thread.detachNewThread { continuation.resume(returning: Result { try body() }) }
    }
    return try result.get()
}

/// A server that says what a test has it say, to one client after the other.
final class ScriptedServer: Sendable {
    let folder: Folder
    private let descriptor: Int32
    private let isOver = Atomic<Bool>(false)

    /// - Parameter serve: Ends the connection when it returns. May wait for what the client says.
    init(_ serve: @escaping @Sendable (Raw) throws -> Void) throws {
        folder = try Folder()
        descriptor = try UnixSocket.listening(at: folder.file("s"))
        Thread.detachNewThread { [self] in
            while !isOver.load(ordering: .acquiring) {
                guard Raw.isReady(descriptor, for: 20) else { continue }
                let client = accept(descriptor)
                if client >= 0 { try? serve(Raw(client)) }
            }
            close(descriptor)
        }
    }

    func end() { isOver.store(true, ordering: .releasing) }

    func address(_ certificates: Folder) -> NBDAddress {
        NBDAddress(
            server: .unix(path: folder.file("s")), export: "disk", tls: .init(certificates: certificates.path))
    }
}

private func accept(_ descriptor: Int32) -> Int32 { Glibc.accept(descriptor, nil, nil) }
