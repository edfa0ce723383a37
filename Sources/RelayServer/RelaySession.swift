internal import Checksums
internal import Relay
internal import Synchronization
internal import Volumes

/// What a near side does with one target, over one or several connections. It ends with the first of them that ends: the
/// target is let go of then, as soon as what is under way has come to its end.
final class RelaySession: Sendable {
    /// Changes of one frame that are made at a time.
    private static let makers = 16

    let token = RelayToken.random()
    /// As the client named it.
    let asked: String
    /// As it is opened here; the same for all sessions with that target.
    let address: String
    let features: RelayFeatures
    private let target: any TargetVolume
    private let grant: Allowances.Grant
    private let wishes: LayoutWishes
    private let sessions: Sessions
    private let lock = SharedLock()
    private let compression: Mutex<Compression>

    private struct State {
        var readers: [UInt32: any VolumeReader] = [:]
        var lastReader: UInt32 = 0
        /// How to close each connection.
        var members: [ObjectIdentifier: @Sendable () -> Void] = [:]
        var isEnding = false
    }

    private let state = Mutex(State())

    init(
        _ target: any TargetVolume, asked: String, grant: Allowances.Grant, wishes: LayoutWishes,
        features: RelayFeatures, among sessions: Sessions
    ) {
        (self.target, self.asked, self.grant, self.wishes) = (target, asked, grant, wishes)
        (self.features, self.sessions) = (features, sessions)
        address = grant.address.text
        compression = Mutex(Compression(features.contains(.lz4) ? .auto : .none))
    }

    var isEnding: Bool { state.withLock { $0.isEnding } }

    /// What the client is told as it begins or joins.
    var terms: RelayGrant {
        var probe = VolumeDescription(identity: "", size: .zero)
        probe.metadata["key"] = "value"
        return RelayGrant(
            features: features, holdsMetadata: target.losses(from: probe).isEmpty,
            connections: UInt16(RelayBounds.connections), requests: UInt16(RelayBounds.requests), token: token)
    }

    // MARK: Connections

    /// - Returns: Whether there is a place for one more.
    func join(_ member: AnyObject, close: @escaping @Sendable () -> Void) -> Bool {
        state.withLock { state in
            guard !state.isEnding, state.members.count < RelayBounds.connections else { return false }
            state.members[ObjectIdentifier(member)] = close
            return true
        }
    }

    /// The first of the connections is gone, or its client never came to have one: all of it ends.
    func end() {
        let others: [@Sendable () -> Void]? = state.withLock { state in
            guard !state.isEnding else { return nil }
            state.isEnding = true
            defer { state.members = [:] }
            return Array(state.members.values)
        }
        guard let others else { return }
        for close in others { close() }
        // Owned by the receiver, which doesn't stop before its sessions have ended.
        Task(executorPreference: sessions.executor) { await self.letGo() }
    }

    private func letGo() async {
        // What was begun has come to its end once the gate lets this in, and nothing is begun any more.
        try? await lock.run(alone: true) { () throws(VolumeError) in
            let readers = state.withLock { state in
                defer { state.readers = [:] }
                return Array(state.readers.values)
            }
            for reader in readers { await reader.close() }
            await target.close()
        }
        sessions.ended(self)
    }

    // MARK: Requests

    /// Does what is asked, however long it takes.
    func carryOut(_ request: RelayRequest) async -> RelayReply {
        do throws(VolumeError) {
            return try await lock.run(alone: request.kind.isAlone) { () throws(VolumeError) in
                guard !isEnding else {
                    throw VolumeError(.unreachable, "\(request.kind)", on: asked, reason: "the session has ended")
                }
                return try await perform(request)
            }
        } catch {
            return .failed(error.veiled(address, as: asked))
        }
    }

    private func perform(_ request: RelayRequest) async throws(VolumeError) -> RelayReply {
        if request.kind.isChange { try sessions.refuseOthers(self, "\(request.kind)") }
        switch request {
        case .state: return .state(try await target.state())
        case .describe: return .description(try await target.describe())
        case .obstacles(let source, let room):
            return .obstacles(try await refusals(source) + target.obstacles(to: source, room: room).map(veiled))
        case .make(let source, let record):
            if let refusal = refusals(source).first {
                throw VolumeError(refusal.kind, "make", on: asked, reason: refusal.fact, advice: refusal.remedy)
            }
            try await target.make(as: source, record: record)
        case .own: return .owned(try await own())
        case .save(let record): try await target.save(record: record)
        case .kept: return .snapshots(try await target.kept())
        case .resize(let size): try await target.resize(to: size)
        case .keep(let snapshot): return .snapshot(try await target.keep(snapshot))
        case .alter(let kept, let wanted): try await target.alter(kept, to: wanted)
        case .drop(let kept): try await target.drop(kept)
        case .change(let changes): try await make(changes)
        case .flush: try await target.flush()
        case .furnish(let source): try await target.furnish(as: source)
        case .commit(let source): try await target.commit(as: source)
        case .uncommit: try await target.uncommit()
        case .forget:
            try await target.forget()
            sessions.disclaim(self)
        case .discard:
            try await target.discard()
            sessions.disclaim(self)
        case .letGo:
            await target.close()
            sessions.disclaim(self)
        case .open(let revision): return .opened(try await open(revision))
        case .extents(let number, let extent, let base):
            return .extents(try await reader(number).extents(in: extent, since: base))
        case .read(let number, let extent): return .bytes(try await read(try reader(number), extent))
        case .digest(let number, let extent, let chunk):
            return .digests(try await digests(try reader(number), extent, chunk))
        case .close(let number):
            let reader = try reader(number)
            state.withLock { $0.readers[number] = nil }
            await reader.close()
        }
        return .done
    }

    private func own() async throws(VolumeError) -> Bool {
        let wasOwner = try sessions.claim(self)
        do throws(VolumeError) {
            let hasFenced = try await target.own()
            // Whoever was here before and lost its connection may hold its source still.
            return sessions.takeAbandoned(self) || hasFenced
        } catch {
            if !wasOwner { sessions.disclaim(self) }
            throw error
        }
    }

    /// What the operator of this host doesn't allow of a target that would be like `source`.
    private func refusals(_ source: VolumeDescription) -> [Obstacle] {
        guard case .images = grant.allowance, let pool = wishes.applied(to: source.layout).dataPool,
            !sessions.allowances.allowsDataPool(pool, with: grant)
        else { return [] }
        return [
            Obstacle(
                .forbidden, "\(asked): the receiver doesn't allow data in the pool '\(pool)'",
                remedy: "--data-pool names another; or the receiver has to --allow it.")
        ]
    }

    private func veiled(_ obstacle: Obstacle) -> Obstacle {
        let error = VolumeError(obstacle.kind, "", on: "", reason: obstacle.fact, advice: obstacle.remedy)
            .veiled(address, as: asked)
        return Obstacle(error.kind, error.reason, remedy: error.advice ?? "")
    }

    // MARK: Bytes

    private func make(_ changes: [Change]) async throws(VolumeError) {
        if changes.count == 1 { return try await make(changes[0]) }
        _ = try await concurrently(changes, limit: Self.makers) { change throws(VolumeError) in
            try await self.make(change)
        }
    }

    private func make(_ change: Change) async throws(VolumeError) {
        switch change {
        case .zero(let extent): try await target.zero(extent)
        case .write(let offset, let payload):
            unsafe try await payload.withBytes { bytes throws(VolumeError) in
                guard let bytes = unsafe bytes else {
                    throw VolumeError(
                        .damaged, "write", on: "\(asked) at byte \(offset.bytes)",
                        reason: "what arrived isn't what was sent", advice: "Look at both hosts and what is between.")
                }
                try await unsafe target.write(bytes, at: offset)
            }
        }
    }

    private func open(_ revision: Revision) async throws(VolumeError) -> RelayReply.OpenedReader {
        func tooMany() -> VolumeError {
            VolumeError(
                .busy, "open", on: asked, reason: "\(RelayBounds.readers) states are open already", advice: nil)
        }
        guard state.withLock({ $0.readers.count < RelayBounds.readers }) else { throw tooMany() }
        let reader = try await target.open(revision)
        let number: UInt32? = state.withLock { state in
            guard state.readers.count < RelayBounds.readers else { return nil }
            state.lastReader += 1
            state.readers[state.lastReader] = reader
            return state.lastReader
        }
        guard let number else {
            await reader.close()
            throw tooMany()
        }
        return RelayReply.OpenedReader(
            number: number, size: reader.size, means: reader.means, extentUnit: reader.extentUnit)
    }

    private func reader(_ number: UInt32) throws(VolumeError) -> any VolumeReader {
        guard let reader = state.withLock({ $0.readers[number] }) else {
            throw VolumeError(.failed, "read", on: asked, reason: "no state \(number) is open", advice: nil)
        }
        return reader
    }

    private func check(_ extent: Extent, within reader: any VolumeReader, _ operation: String) throws(VolumeError) {
        guard extent.end.bytes <= reader.size.bytes else {
            throw VolumeError(
                .failed, operation, on: "\(asked) at byte \(extent.offset.bytes)",
                reason: "\(extent.length.bytes) bytes reach past the end at \(reader.size.bytes)", advice: nil)
        }
    }

    private func read(_ reader: any VolumeReader, _ extent: Extent) async throws(VolumeError) -> Payload {
        try check(extent, within: reader, "read")
        let tries = compression.withLock { $0.tries(Int(extent.length.bytes)) }
        let acceleration = compression.withLock { $0.acceleration }
        let payload = unsafe try await withIOBuffer(of: extent.length) { buffer throws(VolumeError) in
            try await unsafe reader.read(into: buffer, at: extent.offset)
            return unsafe Payload(UnsafeRawBufferPointer(buffer), acceleration: tries ? acceleration : nil)
        }
        if tries { compression.withLock { $0.note(isShorter: payload.encoding == .lz4) } }
        return payload
    }

    private func digests(
        _ reader: any VolumeReader, _ extent: Extent, _ chunk: ByteCount
    ) async throws(VolumeError) -> [UInt64] {
        try check(extent, within: reader, "digest")
        return try await reader.digestsByReading(extent, chunk: chunk)
    }
}

extension RelayKind {
    /// Whether nothing else of the session may be under way: a client that doesn't wait for its own replies must not have
    /// an image closed under a write.
    fileprivate var isAlone: Bool {
        switch self {
        case .make, .own, .resize, .keep, .alter, .drop, .furnish, .commit, .uncommit, .forget, .discard, .letGo,
            .close:
            true
        case .state, .describe, .obstacles, .save, .kept, .change, .flush, .open, .extents, .read, .digest: false
        }
    }
}
