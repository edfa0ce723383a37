package import Credentials
internal import NIOCore
package import NBDServer
internal import Relay
package import Volumes

/// Receives volumes from other Godwits: makes the targets that are allowed, as the near side's move asks for it.
package struct RelayServer: Sendable {
    private let allowances: Allowances
    private let limits: RelayLimits
    private let credentials: ServerCredentials?
    private let isInsecureAllowed: Bool
    private let notice: @Sendable (String) -> Void
    private let open: @Sendable (VolumeAddress, LayoutWishes) async throws(VolumeError) -> any TargetVolume

    /// - Parameters:
    ///   - allowances: All that clients may make and see.
    ///   - credentials: With them nobody is let in but under TLS.
    ///   - isInsecureAllowed: Whether others than this host's users may connect, without TLS.
    ///   - notice: Told, from any thread, what an operator may want to know.
    ///   - open: Opens a target that is allowed.
    package init(
        _ allowances: [Allowance], limits: RelayLimits = RelayLimits(), credentials: ServerCredentials? = nil,
        isInsecureAllowed: Bool = false,
        notice: @escaping @Sendable (String) -> Void = { _ in },
        open: @escaping @Sendable (VolumeAddress, LayoutWishes) async throws(VolumeError) -> any TargetVolume
    ) throws(VolumeError) {
        var resolved: [Allowance] = []
        for allowance in allowances {
            if case .files(let folder) = allowance {
                guard let found = FolderGuard.resolved(folder) else {
                    throw VolumeError(
                        .missing, "realpath", on: "file:" + FilePath(names: folder).text,
                        reason: "there is no such folder", advice: "Make it, or allow another.")
                }
                guard found.elementsEqual(folder, by: { $0.utf8.elementsEqual($1.utf8) }) else {
                    throw VolumeError(
                        .unsupported, "realpath", on: "file:" + FilePath(names: folder).text,
                        reason: "a link is on the way to it", advice: "Allow file:\(FilePath(names: found).text).")
                }
            }
            resolved.append(allowance)
        }
        self.allowances = Allowances(resolved)
        (self.limits, self.credentials, self.isInsecureAllowed) = (limits, credentials, isInsecureAllowed)
        (self.notice, self.open) = (notice, open)
    }

    /// Runs `body`, and listens meanwhile. When it returns, nobody is let in any more, and all targets are let go of as
    /// they are.
    ///
    /// - Parameter body: Is told the port that is listened on, if there is one.
    /// - Throws: If it can't listen; `body` isn't run then.
    package nonisolated(nonsending) func serve<Value>(
        at address: ListenAddress, _ body: nonisolated(nonsending) (Int?) async -> Value
    ) async throws(VolumeError) -> Value {
        let sessions = Sessions(allowances, limits: limits, notice: notice, open: open)
        let listener = try await Listener(
            at: address, isUnderTLS: credentials != nil, isInsecureAllowed: isInsecureAllowed
        ) { [credentials] loop in
            RelayConnection(among: sessions, credentials, on: loop)
        }
        let value = await body(listener.port)
        await listener.close()
        await sessions.stop()
        return value
    }
}
