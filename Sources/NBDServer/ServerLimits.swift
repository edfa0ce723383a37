package import Volumes

/// What no client gets beyond.
package struct ServerLimits: Sendable {
    /// At a time. One that is too many is let in and closed at once.
    package var connections = 128
    /// From being let in to the end of the handshake. As qemu-nbd's `--handshake-limit`.
    package var handshake = Duration.seconds(10)
    /// Of one connection, under way: what the client has not taken the reply of counts. Then nothing more is read from it
    /// until there is room. The Linux kernel's client has at most 128 (drivers/block/nbd.c, `queue_depth`).
    package var requests = 128
    /// Of one connection, for payloads and replies; reached, nothing more is read from it until there is room. The request
    /// that reaches it may go beyond by its own 32 MiB.
    package var heldBytes = ByteCount.mebibytes(32)
    /// How long the end of a connection, or of the server, waits for what is under way and for the client to take it.
    package var grace = Duration.seconds(10)

    package init() {}
}

/// What one connection has under way.
struct Load {
    private let mostRequests: Int
    private let mostBytes: Int
    private(set) var requests = 0
    private(set) var bytes = 0

    init(_ limits: ServerLimits) {
        (mostRequests, mostBytes) = (limits.requests, Int(clamping: limits.heldBytes.bytes))
    }

    /// Whether nothing more may be begun.
    var isFull: Bool { requests >= mostRequests || bytes >= mostBytes }
    var isNone: Bool { requests == 0 && bytes == 0 }

    mutating func add(requests: Int = 0, bytes: Int) {
        self.requests += requests
        self.bytes += bytes
    }

    mutating func remove(requests: Int = 0, bytes: Int) {
        precondition(requests <= self.requests && bytes <= self.bytes, "more ended than was begun")
        self.requests -= requests
        self.bytes -= bytes
    }
}
