internal import Gate
internal import Mirror
internal import NBDServer
internal import Synchronization
internal import Volumes

/// The export of a volume that is moved beneath its clients: there as soon as the move has the source for itself, and for
/// as long as they stay.
final class MoveExport: Sendable {
    /// A client that lost its connection comes back within this.
    private static let linger = Duration.seconds(3)
    private static let lookInterval = Duration.milliseconds(50)

    let hold: GateHold
    private var gate: Gate { hold.gate }
    private let server: ExportServer
    private let address: ListenAddress
    private let limits: ServerLimits
    /// Ends the export.
    private let stop: StopRequest
    private let isMoveOver = Mutex(false)
    private let serving = Mutex<Task<Result<Void, VolumeError>, Never>?>(nil)

    /// - Parameter title: Of the volume, as clients are told.
    init(
        _ hold: GateHold, name: String, title: String, at address: ListenAddress, _ listening: ListeningArguments,
        stop: StopRequest
    ) async throws(VolumeError) {
        (self.hold, self.address, self.stop) = (hold, address, stop)
        limits = ServerLimits()
        server = ExportServer(
            [Export(name: name, description: title, disk: hold.gate, watch: hold.gate)], limits: limits,
            credentials: try await listening.credentials(), isInsecureAllowed: listening.insecure
        ) { tell("godwit: \($0)") }
    }

    /// Takes the address at once, so that nothing is moved if that fails, and begins to serve once there is something to
    /// be served.
    func begin() async throws(VolumeError) {
        let bound = try await server.bind(to: address)
        // Owned by this value: `end` waits for it.
        let task = Task { () async -> Result<Void, VolumeError> in
            while true {
                let isOver = self.isMoveOver.withLock { $0 }
                if self.gate.hasOpened { break }
                if isOver {
                    await bound.close()
                    return .success(())
                }
                try? await Task.sleep(for: Self.lookInterval)
            }
            do throws(VolumeError) {
                try await bound.serve { serving in
                    for offer in serving.offers { tell("godwit: serving at \(offer.uri)") }
                    await self.untilLeft(serving)
                }
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        serving.withLock { $0 = task }
    }

    /// Serves on, after the move, until the last client has left, or the operator ends it.
    func end() async throws(VolumeError) {
        isMoveOver.withLock { $0 = true }
        if !gate.isShut, !stop.isAsked {
            tell(
                "godwit: its clients are at \(hold.whereabouts), and had to wait for \(gate.longestShut.text) at most; "
                    + "serving goes on until the last has left, or Ctrl-C")
        }
        let result = await serving.withLock { $0 }?.value ?? .success(())
        await hold.close()
        try result.get()
    }

    private func untilLeft(_ serving: ExportServer.Serving) async {
        let clock = ContinuousClock()
        var lastSeen: ContinuousClock.Instant?
        while true {
            try? await Task.sleep(for: Self.lookInterval)
            if serving.clientCount > 0 { lastSeen = clock.now }
            guard isMoveOver.withLock({ $0 }) else { continue }
            if gate.isShut { return abandonSoon() }
            if stop.isAsked { return }
            if let lastSeen, clock.now - lastSeen > Self.linger { return }
        }
    }

    /// Nobody knows at which of the two volumes the clients belong: they are left waiting until their connections are
    /// closed, as a client may try again where it lost its connection, and not where it was told of an error.
    private func abandonSoon() {
        let (gate, grace) = (gate, limits.grace)
        // Ends by itself, soon.
        Task {
            try? await Task.sleep(for: grace + .seconds(1))
            gate.abandon()
        }
    }
}
