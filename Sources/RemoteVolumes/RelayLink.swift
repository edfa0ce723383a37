internal import NBDVolumes
internal import Relay
internal import Synchronization
internal import Volumes

/// The connections of one session with a receiver: what is asked goes over any of them.
final class RelayLink: Sendable {
    private let channels: [RelayChannel]
    private let turn = Atomic<UInt64>(0)

    /// What the receiver granted.
    var grant: RelayGrant { channels[0].grant }
    var connectionCount: Int { channels.count }

    private init(_ channels: [RelayChannel]) { self.channels = channels }

    /// Begins a session.
    ///
    /// - Parameter connections: As many as are wanted; there are fewer where the receiver lets in no more.
    /// - Returns: Nothing if the server is no receiver: it doesn't know the option.
    static func open(
        _ address: RelayAddress, by dialer: any Dialer, wishes: LayoutWishes, connections: Int, patience: Patience
    ) async throws(VolumeError) -> RelayLink? {
        let offer = RelayOffer(.begin(address: address.target, wishes: wishes))
        let tls = try await ClientTLS(address.tls, with: address.server)
        guard
            let first = try await RelayChannel.open(
                address, by: dialer, tls: tls, offer, limit: patience.handshake, patience.silence)
        else { return nil }
        let token = first.grant.token
        let count = min(connections, Int(first.grant.connections))
        let others = try await concurrently(1..<max(count, 1), limit: RelayBounds.connections) {
            _ throws(VolumeError) in
            try? await RelayChannel.open(
                address, by: dialer, tls: tls, RelayOffer(.join(token)), limit: patience.another, patience.silence)
        }
        return RelayLink([first] + others.compactMap(\.self))
    }

    /// Whoever's turn it is.
    private var channel: RelayChannel {
        let number = turn.wrappingAdd(1, ordering: .relaxed).oldValue
        return channels[Int(number % UInt64(channels.count))]
    }

    /// Has the receiver carry out a request, and waits until it has.
    @discardableResult
    func ask(_ request: RelayRequest) async throws(VolumeError) -> RelayReply { try await channel.ask(request) }

    /// The same of a change, which may go out with others that are under way.
    func change(_ change: Change) async throws(VolumeError) { try await channel.change(change) }
}
