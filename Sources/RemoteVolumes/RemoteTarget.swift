package import NBDVolumes
internal import Relay
internal import Synchronization
package import Volumes

/// How a volume goes to a receiver.
package struct RelayOptions: Sendable {
    /// The fastest of 1, 2 and 4 on loopback with two cores (Tests/Benchmarks/relay.py); nbdcopy(1) has as many.
    package static let standardConnections = 4
    package static let mostConnections = RelayBounds.connections
    package static let accelerations = LZ4.accelerations

    package enum Compress: String, Sendable, CaseIterable {
        /// What doesn't get shorter is sent as it is, and its neighbours aren't tried for a while.
        case auto
        case lz4
        case none
    }

    package var compress = Compress.auto
    /// As LZ4 has it: 1 packs best.
    package var acceleration = 1
    package var connections = standardConnections

    package init() {}

    var compression: Compression {
        let mode: Compression.Mode =
            switch compress {
            case .auto: .auto
            case .lz4: .lz4
            case .none: .none
            }
        return Compression(mode, acceleration: acceleration)
    }
}

/// The target of a move at another host: all that is done to it, a receiver does there.
///
/// The record is the far target's own, so that a move is taken up after either end was killed. When the connection goes,
/// the receiver lets go of the target.
package final class RemoteTarget: TargetVolume {
    package let address: String
    package let wished: String
    /// Of one piece that are under way at once: a piece of 1 MiB has at most as many runs.
    private static let mostChanges = 128

    private let link: RelayLink
    private let compression: Mutex<Compression>

    private init(_ address: RelayAddress, _ wishes: LayoutWishes, _ link: RelayLink, _ options: RelayOptions) {
        self.address = address.text
        wished = wishes.text
        self.link = link
        compression = Mutex(link.grant.features.contains(.lz4) ? options.compression : Compression(.none))
    }

    /// Begins a session with a receiver.
    ///
    /// - Returns: Nothing if the server is none, and may be an NBD server like others.
    package static func connect(
        to address: RelayAddress, wishes: LayoutWishes = LayoutWishes(), options: RelayOptions = RelayOptions(),
        patience: Patience = .standard, dialer: any Dialer = SocketDialer()
    ) async throws(VolumeError) -> RemoteTarget? {
        let link = try await RelayLink.open(
            address, by: dialer, wishes: wishes, connections: options.connections, patience: patience)
        return link.map { RemoteTarget(address, wishes, $0, options) }
    }

    /// How many there are.
    package var connectionCount: Int { link.connectionCount }

    /// A reply of another kind than was asked for: the session lets none through.
    private func unexpected() -> Never { preconditionFailure("a reply is of its request's kind") }

    // MARK: What is there

    package func state() async throws(VolumeError) -> TargetState {
        guard case .state(let state) = try await link.ask(.state) else { unexpected() }
        return state
    }

    package func describe() async throws(VolumeError) -> VolumeDescription {
        guard case .description(let description) = try await link.ask(.describe) else { unexpected() }
        return description
    }

    package func obstacles(to source: VolumeDescription, room: ByteCount) async throws(VolumeError) -> [Obstacle] {
        guard case .obstacles(let obstacles) = try await link.ask(.obstacles(source, room: room)) else { unexpected() }
        return obstacles
    }

    package func losses(from source: VolumeDescription) -> [String] {
        source.metadata.isEmpty || link.grant.holdsMetadata
            ? [] : ["the metadata (\(source.metadata.count) keys): the far side's kind of volume holds none"]
    }

    package func kept() async throws(VolumeError) -> [Snapshot] {
        guard case .snapshots(let snapshots) = try await link.ask(.kept) else { unexpected() }
        return snapshots
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        guard case .opened(let reader) = try await link.ask(.open(revision)) else { unexpected() }
        return RemoteReader(link, reader, title: address)
    }

    // MARK: Making it

    package func make(as source: VolumeDescription, record: String) async throws(VolumeError) {
        try await link.ask(.make(source, record: record))
    }

    @discardableResult
    package func own() async throws(VolumeError) -> Bool {
        guard case .owned(let hasFenced) = try await link.ask(.own) else { unexpected() }
        return hasFenced
    }

    package func save(record: String) async throws(VolumeError) { try await link.ask(.save(record: record)) }

    package func resize(to size: ByteCount) async throws(VolumeError) { try await link.ask(.resize(size)) }

    @discardableResult
    package func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot {
        guard case .snapshot(let kept) = try await link.ask(.keep(snapshot)) else { unexpected() }
        return kept
    }

    package func alter(_ kept: Snapshot, to snapshot: Snapshot) async throws(VolumeError) {
        try await link.ask(.alter(kept, to: snapshot))
    }

    package func drop(_ kept: Snapshot) async throws(VolumeError) { try await link.ask(.drop(kept)) }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let whole = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        try await unsafe write(ExtentSet([whole]), of: bytes, at: offset)
    }

    /// All of them are under way at once, and share frames: one way there and back, however many there are.
    package func write(
        _ runs: ExtentSet, of bytes: UnsafeRawBufferPointer, at offset: ByteOffset
    ) async throws(VolumeError) {
        var changes: [Change] = []
        for run in runs.extents {
            for part in run.parts(of: ByteCount(UInt64(RelayBounds.payload))) {
                let start = Int((part.offset - offset).bytes)
                let payload = unsafe pack(
                    UnsafeRawBufferPointer(rebasing: bytes[start..<start + Int(part.length.bytes)]))
                changes.append(.write(part.offset, payload))
            }
        }
        if changes.count == 1 { return try await link.change(changes[0]) }
        _ = try await concurrently(changes, limit: Self.mostChanges) { [link] change throws(VolumeError) in
            try await link.change(change)
        }
    }

    /// On the caller's thread: several callers pack side by side.
    private func pack(_ bytes: UnsafeRawBufferPointer) -> Payload {
        let acceleration = compression.withLock { $0.tries(bytes.count) ? $0.acceleration : nil }
        let payload = unsafe Payload(bytes, acceleration: acceleration)
        if acceleration != nil { compression.withLock { $0.note(isShorter: payload.encoding == .lz4) } }
        return payload
    }

    package func zero(_ extent: Extent) async throws(VolumeError) {
        if !extent.isEmpty { try await link.change(.zero(extent)) }
    }

    package func flush() async throws(VolumeError) { try await link.ask(.flush) }

    // MARK: The end

    package func furnish(as source: VolumeDescription) async throws(VolumeError) {
        try await link.ask(.furnish(source))
    }

    package func commit(as source: VolumeDescription) async throws(VolumeError) { try await link.ask(.commit(source)) }

    package func uncommit() async throws(VolumeError) { try await link.ask(.uncommit) }

    package func forget() async throws(VolumeError) { try await link.ask(.forget) }

    package func discard() async throws(VolumeError) { try await link.ask(.discard) }

    package func close() async { _ = try? await link.ask(.letGo) }

    package func route(from source: any Volume) async throws(VolumeError) -> (any Route)? { nil }
}
