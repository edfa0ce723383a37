import Foundation
import Synchronization
import Tracker
import Volumes

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

/// What holds marks open may go a moment after whoever used it: a call that took a thread of its own has it as well.
func whileBusy<Value>(_ open: () async throws -> Value) async throws -> Value {
    for _ in 0..<1000 {
        do {
            return try await open()
        } catch let error as VolumeError where error.kind == .busy {
            try await Task.sleep(for: .milliseconds(2))
        }
    }
    return try await open()
}

/// A clock that goes on when a test says so.
final class Clock: Sendable {
    private let time = Mutex(Duration.seconds(1000))
    var now: Duration { time.withLock { $0 } }
    func pass(_ duration: Duration) { time.withLock { $0 += duration } }
}

extension Range where Bound == Int {
    var extent: Extent { Extent(from: ByteOffset(UInt64(lowerBound)), to: ByteOffset(UInt64(upperBound))) }
    /// As chunks of 4 KiB.
    var chunks: Extent { (lowerBound * 4096..<upperBound * 4096).extent }
}

extension ExtentSet {
    init(_ chunks: Range<Int>...) { self.init(chunks.map(\.chunks)) }
}
