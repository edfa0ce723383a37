internal import Foundation
internal import Relay
internal import Synchronization
internal import Volumes

/// The sessions of a receiver, and its connections: a bounded number of each.
final class Sessions: Sendable {
    /// Opens a target that is allowed.
    typealias Opener = @Sendable (VolumeAddress, LayoutWishes) async throws(VolumeError) -> any TargetVolume

    fileprivate struct State {
        var sessions: [RelayToken: RelaySession] = [:]
        /// How to close each connection.
        var members: [ObjectIdentifier: @Sendable () -> Void] = [:]
        /// Which session owns the target of an address. One client of the cluster, and one process, serves them all, so
        /// that its own locks tell them apart no more.
        var owners: [String: RelayToken] = [:]
        /// Targets whose session ended without having let go of them.
        var abandoned: Set<String> = []
        var isStopping = false
        var whenStopped: CheckedContinuation<Void, Never>?
    }

    let allowances: Allowances
    let limits: RelayLimits
    let notice: @Sendable (String) -> Void
    /// What carries out their requests; nothing for whatever thread is free.
    let executor: (any TaskExecutor)?
    private let time: Timekeeper
    private let open: Opener
    private let state = Mutex(State())

    init(
        _ allowances: Allowances, limits: RelayLimits, notice: @escaping @Sendable (String) -> Void,
        executor: (any TaskExecutor)? = nil, time: Timekeeper = .real, open: @escaping Opener
    ) {
        (self.allowances, self.limits, self.notice, self.open) = (allowances, limits, notice, open)
        (self.executor, self.time) = (executor, time)
    }

    // MARK: Beginning

    enum Refusal: Error, Equatable {
        /// Nothing is told of why.
        case notAllowed
        case failed(VolumeError)
    }

    /// A session of its own for whoever asks.
    func begin(_ address: String, _ wishes: LayoutWishes, _ features: RelayFeatures) async throws(Refusal)
        -> RelaySession
    {
        guard let grant = allowances.grant(address), await isPlain(grant) else { throw .notAllowed }
        await waitForEnding(grant.address.text)
        let target: any TargetVolume
        do throws(VolumeError) {
            target = try await open(grant.address, wishes)
        } catch {
            throw .failed(error.veiled(grant.address.text, as: address))
        }
        let session = RelaySession(
            target, asked: address, grant: grant, wishes: wishes, features: features.intersection(.all), among: self)
        let isAdmitted = state.withLock { state in
            guard !state.isStopping else { return false }
            state.sessions[session.token] = session
            return true
        }
        guard isAdmitted else {
            await target.close()
            throw .failed(
                VolumeError(.unreachable, "begin", on: address, reason: "the receiver is about to stop", advice: nil))
        }
        return session
    }

    private func isPlain(_ grant: Allowances.Grant) async -> Bool {
        guard case .files(let folder) = grant.allowance, case .file(let text) = grant.address,
            let path = FilePath(text)
        else { return true }
        let found = try? await blocking { () throws(VolumeError) in FolderGuard.isPlain(path, below: folder) }
        return found == true
    }

    /// A session whose connection is gone has its last requests carried out still.
    private func waitForEnding(_ address: String) async {
        let deadline = time.now() + limits.ending
        while time.now() < deadline,
            state.withLock({ $0.sessions.values.contains { $0.isEnding && $0.address == address } })
        {
            await time.sleep(.milliseconds(20))
        }
    }

    func session(_ token: RelayToken) -> RelaySession? { state.withLock { $0.sessions[token] } }

    // MARK: Whose it is

    /// The session is to be the only one that changes the target.
    /// - Returns: Whether it was the owner before.
    func claim(_ session: RelaySession) throws(VolumeError) -> Bool {
        try state.withLock { state throws(VolumeError) in
            try Self.check(state, session, "own")
            return state.owners.updateValue(session.token, forKey: session.address) != nil
        }
    }

    /// - Returns: Whether the last owner ended without letting go of it; asked once.
    func takeAbandoned(_ session: RelaySession) -> Bool {
        state.withLock { $0.abandoned.remove(session.address) != nil }
    }

    func disclaim(_ session: RelaySession) {
        state.withLock { if $0.owners[session.address] == session.token { $0.owners[session.address] = nil } }
    }

    /// What changes a target that another session owns.
    func refuseOthers(_ session: RelaySession, _ operation: String) throws(VolumeError) {
        try state.withLock { state throws(VolumeError) in try Self.check(state, session, operation) }
    }

    private static func check(_ state: State, _ session: RelaySession, _ operation: String) throws(VolumeError) {
        guard let owner = state.owners[session.address], owner != session.token else { return }
        throw VolumeError(
            .busy, operation, on: session.asked, reason: "another move goes into it",
            advice: "Wait for it to end, or end it; then give the command again.")
    }

    // MARK: The end

    /// It is over, and its target let go of.
    func ended(_ session: RelaySession) {
        let stopped = state.withLock { state in
            if state.owners[session.address] == session.token {
                state.owners[session.address] = nil
                state.abandoned.insert(session.address)
            }
            state.sessions[session.token] = nil
            return state.stopped()
        }
        stopped?.resume()
    }

    /// - Returns: Whether there is a place for one more connection.
    func admit(_ member: AnyObject, close: @escaping @Sendable () -> Void) -> Bool {
        state.withLock { state in
            guard !state.isStopping, state.members.count < limits.connections else { return false }
            state.members[ObjectIdentifier(member)] = close
            return true
        }
    }

    func leave(_ member: AnyObject) {
        let stopped = state.withLock { state in
            state.members[ObjectIdentifier(member)] = nil
            return state.stopped()
        }
        stopped?.resume()
    }

    /// Closes all connections, and waits until their sessions have let go of their targets. Once.
    func stop() async {
        await withCheckedContinuation { continuation in
            let (stopped, members) = state.withLock { state in
                state.isStopping = true
                state.whenStopped = continuation
                return (state.stopped(), Array(state.members.values))
            }
            stopped?.resume()
            for close in members { close() }
        }
    }
}

extension Sessions.State {
    /// Whom to tell that all is over, if it is.
    fileprivate mutating func stopped() -> CheckedContinuation<Void, Never>? {
        isStopping && sessions.isEmpty && members.isEmpty ? whenStopped.take() : nil
    }
}

extension VolumeError {
    /// The same as the client calls it: how this host reaches the volume is nothing to tell.
    func veiled(_ title: String, as asked: String) -> VolumeError {
        func veil(_ text: String) -> String { text.replacingOccurrences(of: title, with: asked) }
        return VolumeError(kind, operation, on: veil(object), reason: veil(reason), advice: advice.map(veil))
    }
}
