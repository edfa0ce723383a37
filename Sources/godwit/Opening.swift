internal import ArgumentParser
internal import Control
internal import Cutover
internal import FileVolumes
internal import Guest
internal import Mirror
internal import NBDVolumes
internal import RBDVolumes
internal import RemoteVolumes
internal import Tracker
internal import Volumes

/// A volume on the command line.
struct AddressArgument: ExpressibleByArgument, Sendable {
    let address: VolumeAddress

    init?(argument: String) {
        do throws(VolumeAddress.ParseError) {
            address = try VolumeAddress(argument)
        } catch {
            return nil
        }
    }

    /// Why an argument was refused, which the parser itself can't tell.
    static func explained(_ text: String) throws -> AddressArgument {
        do throws(VolumeAddress.ParseError) {
            return AddressArgument(address: try VolumeAddress(text))
        } catch {
            throw ValidationError(error.description)
        }
    }

    private init(address: VolumeAddress) { self.address = address }

    /// The snapshot that the address names with '@'.
    var snapshot: String? { if case .rbd(let address) = address { address.snapshot } else { nil } }
}

/// Opens what an address names. Nothing else knows which kinds of volumes there are.
enum Opening {
    /// - Parameters:
    ///   - bitmap: Of an NBD server's export: what it says is dirty is all that matters of it.
    ///   - isServed: Whether it has users through this process, too.
    static func source(
        _ address: VolumeAddress, bitmap: DirtyBitmap? = nil, isServed: Bool = false
    ) async throws(VolumeError) -> any SourceVolume {
        switch address {
        case .rbd(let address): try await RBDSource.connect(to: address, caching: isServed ? .asConfigured : .off)
        case .nbd(let address): try await NBDSource.connect(to: address, bitmap: bitmap)
        case .relay(let address):
            throw VolumeError(
                .unsupported, "open", on: address.text, reason: "a receiver's volume can't be moved away from here",
                advice: "Give the command on its host, with this one as the receiver.")
        case .file(let path): isServed ? try await tracked(path) : FileSource(path: path)
        }
    }

    /// A file that is changed through this process alone, which marks what is.
    private static func tracked(_ path: String) async throws(VolumeError) -> TrackedSource {
        let directory = RuntimeDirectory.ownMoves()
        try directory.make()
        return try await Tracker.open(FileSource(path: path), marksIn: directory.path)
    }

    /// What can be compared.
    static func volume(_ address: VolumeAddress) async throws(VolumeError) -> any Volume {
        guard case .relay(let relay) = address else { return try await source(address) }
        if let target = try await RemoteTarget.connect(to: relay) { return target }
        return try await NBDSource.connect(to: relay.export)
    }

    /// What can be exported.
    static func disk(_ address: VolumeAddress) async throws(VolumeError) -> any DiskVolume & SourceVolume {
        switch address {
        case .rbd(var address):
            address.snapshot = nil
            return try await RBDSource.connect(to: address)
        case .nbd(let address): return try await NBDSource.connect(to: address)
        case .relay(let address):
            throw VolumeError(
                .unsupported, "export", on: address.text, reason: "it is at another host",
                advice: "Export it there.")
        case .file(let path): return FileSource(path: path)
        }
    }

    /// - Parameters:
    ///   - holding: What is there, where a volume can't be made.
    ///   - relay: How it goes to a receiver. A server that is none is taken for an NBD server like others.
    static func target(
        _ address: VolumeAddress, wishes: LayoutWishes = LayoutWishes(),
        holding: NBDTarget.Holding = .zeros,
        relay: RelayOptions = RelayOptions(),
        notice: @escaping @Sendable (String) -> Void = { _ in }, isStopped: @escaping @Sendable () -> Bool = { false }
    ) async throws(VolumeError) -> any TargetVolume {
        switch address {
        case .rbd(let address):
            try await RBDTarget.connect(to: address, wishes: wishes, notice: notice, isStopped: isStopped)
        case .nbd(let address):
            try await NBDTarget.connect(to: address, holding: holding, notice: notice, isStopped: isStopped)
        case .relay(let address):
            if let target = try await RemoteTarget.connect(to: address, wishes: wishes, options: relay) {
                target
            } else {
                try await NBDTarget.connect(
                    to: address.export, holding: holding, notice: notice, isStopped: isStopped)
            }
        case .file(let path): FileTarget(path: path)
        }
    }
}

extension Opening {
    /// An address that a record holds.
    static func recorded(_ text: String) throws(VolumeError) -> VolumeAddress {
        do throws(VolumeAddress.ParseError) {
            return try VolumeAddress(text)
        } catch {
            throw VolumeError(.damaged, "parse", on: text, reason: error.description, advice: "Give --source.")
        }
    }

    /// - Parameter given: Where the source is, if not where the record says.
    static func abort(
        of target: any TargetVolume, at address: VolumeAddress, source given: VolumeAddress? = nil
    ) -> Abort {
        @Sendable func place(_ recorded: String) throws(VolumeError) -> VolumeAddress {
            if let given { given } else { try self.recorded(recorded) }
        }
        return Abort(
            of: target,
            hold: { title, recorded throws(VolumeError) in
                try hold(titled: title, from: try place(recorded), to: address)
            },
            source: { recorded throws(VolumeError) in try await source(try place(recorded)) })
    }

    /// Who holds a writer still, by the title that a record has.
    static func hold(
        titled title: String, from source: VolumeAddress, to target: VolumeAddress
    ) throws(VolumeError) -> (any WriterHold)? {
        guard let freeze = FreezeArgument(argument: title) else { return nil }
        return try hold(freeze, from: source, to: target, limit: .seconds(30))
    }

    static func hold(
        _ freeze: FreezeArgument, from source: VolumeAddress, to target: VolumeAddress, limit: Duration
    ) throws(VolumeError) -> (any WriterHold)? {
        switch freeze {
        case .wait: return nil
        case .command(let command):
            return CommandHold(command: command, source: source.text, target: target.text, limit: limit)
        case .qmp(let socket):
            guard case .rbd(let source) = source, case .rbd(let target) = target else {
                throw VolumeError(
                    .unsupported, "freeze", on: "qmp:\(socket)", reason: "QEMU is pointed from image to image only")
            }
            return QMPHold(socket: socket, source: source, target: target, limit: limit)
        }
    }
}

extension Volume {
    /// The snapshot of that name, or the head.
    func revision(named name: String?) async throws(VolumeError) -> Revision {
        guard let name else { return .head }
        let snapshots = try await describe().snapshots
        guard let snapshot = snapshots.first(where: { $0.isNamed(name) }) else {
            throw VolumeError(
                .missing, "open", on: "\(address)@\(name)", reason: "no such snapshot",
                advice: snapshots.isEmpty
                    ? "It has none." : "It has: \(snapshots.map(\.name).joined(separator: ", ")).")
        }
        return .snapshot(snapshot)
    }
}

extension RBDScope {
    /// What arguments name: all pools, if there are none.
    static func all(_ texts: [String]) throws -> [RBDScope] {
        var scopes: [RBDScope] = []
        for text in texts {
            do throws(VolumeAddress.ParseError) {
                scopes.append(try RBDScope(text))
            } catch {
                throw ValidationError(error.description)
            }
        }
        func cluster(_ scope: RBDScope) -> [String?] {
            [scope.access.configuration, scope.access.user, scope.access.keyring]
        }
        guard Set(scopes.map(cluster)).count <= 1 else {
            throw ValidationError("one cluster at a time: give all scopes the same conf, id and keyring")
        }
        return scopes.isEmpty ? [.everything] : scopes
    }
}
