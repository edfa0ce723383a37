/// How long a server may take.
package struct Patience: Sendable {
    /// From the first packet to the end of the handshake.
    package var handshake: Duration
    /// Without a byte from the server while it owes an answer. As long as a cluster may take (`Cluster.operationLimit`):
    /// a flush of much that was written may well take a minute.
    package var silence: Duration
    /// As `handshake`, of the connections after the first: a server may say that several are fine, and have no room for
    /// another.
    package var another: Duration

    package static let standard = Patience(handshake: .seconds(30), silence: .seconds(90), another: .seconds(3))

    package init(handshake: Duration, silence: Duration, another: Duration) {
        (self.handshake, self.silence, self.another) = (handshake, silence, another)
    }
}
