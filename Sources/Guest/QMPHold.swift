internal import Cutover
internal import Foundation
package import Volumes

/// A VM of an unmodified QEMU, held by its QMP socket, and sent on at the target within the same process.
///
/// QEMU copies nothing: the target is finished when it gets there, and a mirror without anything to mirror ("sync":
/// "none", in a stopped VM) is the way of swapping a disk's root that works with and without an iothread and compares
/// the sizes. What was stopped here is marked in QEMU itself, by an object that has no other use. So a later run knows
/// what to let go, however this one ended, and a VM that somebody else has paused stays paused.
package actor QMPHold: WriterHold {
    package nonisolated let title: String
    package nonisolated var clientsAtSource: Int { 1 }

    let socket: String
    let source: RBDAddress
    let target: RBDAddress
    private let limit: Duration
    let names: GuestView.Names

    /// Whether this move has asked the VM to stop, in this run or in an earlier one.
    private var hasFrozen = false
    /// What the guest had written when it was frozen in this run.
    private var writesAtFreeze: [Int64]?

    /// What taking back a failed switch may take beside its limit.
    static let undoLimit = Duration.seconds(10)
    /// object-add's form of today is of 6.0; the namespaces of rbd are of 5.0.
    static let oldest = QMPConnection.Version(major: 6, minor: 0, micro: 0)

    /// - Parameter limit: What each call may take in all; a switch that fails gets `undoLimit` more.
    package init(socket: String, source: RBDAddress, target: RBDAddress, limit: Duration = .seconds(30)) {
        title = "qmp:" + socket
        (self.socket, self.limit) = (socket, limit)
        (self.source, self.target) = (source.withAbsolutePaths, target.withAbsolutePaths)
        names = GuestView.Names(source: source, target: target)
    }

    // MARK: The protocol

    package func prepare() async throws(VolumeError) {
        try await call("prepare") { qemu throws(VolumeError) in
            guard target.keyring == nil else {
                throw obstacle(
                    .unsupported, "prepare",
                    "QEMU's rbd driver takes no keyring, and \(target.spec)'s address names one",
                    "Let its conf= name the keyring, and leave keyring= out; or use --freeze exec:COMMAND.")
            }
            guard qemu.version >= Self.oldest else {
                throw obstacle(.unsupported, "prepare", "QEMU \(qemu.version) is older than \(Self.oldest)")
            }
            try await expectNoMigration(qemu)
            guard case .atSource(let disk, let shape) = try await place(qemu) else {
                return  // an earlier run has switched it over, and died
            }
            try await expectNoOtherUser(of: shape, disk, qemu)
            try await probe(shape, qemu)
        }
    }

    package func adopt() async throws(VolumeError) {
        // What the earlier run has stopped, it has marked.
        hasFrozen = true
    }

    package func freeze() async throws(VolumeError) {
        try await call("freeze") { qemu throws(VolumeError) in
            let isMarked = try await qemu.objects().contains(names.marker)
            if try await qemu.isRunning() {
                hasFrozen = true
                // Before the stop: after a crash between them there is nothing to let go, which does no harm.
                if !isMarked {
                    let secret: [String: JSONValue] = [
                        "qom-type": "secret", "id": .string(names.marker), "data": "stopped",
                    ]
                    try await qemu.execute("object-add", secret)
                }
                // Returns when all that the guest has under way is done and flushed (vm_stop, softmmu/cpus.c).
                try await qemu.execute("stop")
            } else if isMarked, !hasFrozen {
                // Of a move that was never ended, whose VM somebody else has let go and paused again.
                try await qemu.execute("object-del", ["id": .string(names.marker)])
            }
            try await expectStill(qemu)
            if case .atSource(let disk, _) = try await place(qemu) { writesAtFreeze = try await qemu.writes(by: disk) }
        }
    }

    package func switchOver() async throws(VolumeError) {
        let failure = try await call("switch over") { qemu throws(VolumeError) in
            try await removeLeftovers(qemu)
            if case .atSource(let disk, let shape) = try await place(qemu) {
                try await expectStill(qemu)
                if let known = writesAtFreeze, try await qemu.writes(by: disk) != known {
                    throw obstacle(
                        .busy, "switch over",
                        "the guest has written since it was frozen: somebody else let it go meanwhile",
                        "See to it that nobody else continues the VM, then give the command again.")
                }
                if let failure = await attempt(disk, shape, qemu) { return failure as VolumeError? }
            }
            try await goOnAtTarget(qemu)
            return nil
        }
        // By a connection of its own: the first may be what failed, and QEMU serves one at a time.
        if let failure { try await undo(failure) }
        (hasFrozen, writesAtFreeze) = (false, nil)
    }

    package func thaw() async throws(VolumeError) {
        guard hasFrozen else { return }
        try await call("thaw") { qemu throws(VolumeError) in
            try await removeLeftovers(qemu)
            // A disk that is at neither place was taken from the VM: it goes on without.
            if case .atTarget = try? await place(qemu) {
                throw obstacle(
                    .busy, "thaw", "the VM has \(target.spec) as its disk already, and can't go on at \(source.spec)",
                    Self.again)
            }
            try await letGo(qemu)
        }
        (hasFrozen, writesAtFreeze) = (false, nil)
    }

    static let again = "Give the command again: it finds out how far the switch has come, and ends it."

    // MARK: Errors

    func obstacle(
        _ kind: VolumeError.Kind, _ operation: String, _ reason: String, _ advice: String? = nil
    ) -> VolumeError {
        VolumeError(kind, operation, on: title, reason: reason, advice: advice)
    }

    func result<Value>(
        _ body: () async throws(VolumeError) -> Value
    ) async -> Result<Value, VolumeError> {
        do throws(VolumeError) { return .success(try await body()) } catch { return .failure(error) }
    }

    /// Connects, and names the call in what goes wrong.
    func call<Value>(
        _ operation: String, limit: Duration? = nil, _ body: (QMPConnection) async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        do throws(VolumeError) {
            let qemu = try await QMPConnection.open(path: socket, limit: limit ?? self.limit)
            let end = await result { () async throws(VolumeError) in try await body(qemu) }
            await qemu.close()
            return try end.get()
        } catch {
            let reason = error.operation == operation ? error.reason : "\(error.operation): \(error.reason)"
            throw VolumeError(error.kind, operation, on: title, reason: reason, advice: error.advice)
        }
    }
}

extension RBDAddress {
    /// QEMU runs in another folder.
    fileprivate var withAbsolutePaths: RBDAddress {
        var address = self
        address.configuration = configuration.map { URL(filePath: $0).standardizedFileURL.path }
        return address
    }
}
