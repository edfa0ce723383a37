package import Volumes

/// What no client of a receiver gets beyond.
package struct RelayLimits: Sendable {
    /// At a time, of all sessions together.
    package var connections = 128
    /// From being let in to the offer. What opening the target takes comes after it.
    package var handshake = Duration.seconds(10)
    /// Of one connection: bytes of requests that are being carried out, and of replies that it hasn't taken. Reached,
    /// nothing more is read until there is room; the request that reaches it may go beyond by its own.
    package var heldBytes = ByteCount.mebibytes(64)
    /// How often a client is told that its requests are being worked on: well within the near side's patience.
    package var alive = Duration.seconds(15)
    /// How long a new session waits for one of the same target to end whose connection is gone: less than the near side's
    /// patience with a handshake.
    package var ending = Duration.seconds(20)

    package init() {}
}
