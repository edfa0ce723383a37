internal import ArgumentParser
internal import Control
internal import Foundation
internal import Mirror
internal import NBDServer
internal import Volumes

struct ExportVolumes: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Serves volumes by the NBD protocol, as qemu-nbd and nbdkit do.",
        discussion: """
            Prints on stdout, a line for each volume, the NBD URI to connect to (nbdcopy, nbdinfo, qemu-img and fio take \
            it), and serves until Ctrl-C or SIGTERM. Then what is under way is answered, all is flushed, and the socket \
            removed. A volume is served under its image's or file's name, or that of --name; where there is only one, \
            clients needn't name it. An image that another client has open for writing is served --read-only alone.
            """)

    @Argument(help: "The volumes; of an image, a snapshot can be named: rbd:POOL/IMAGE@SNAP, which is only read.")
    var addresses: [String]
    @Option(help: "Where to listen: unix:PATH, or HOST:PORT. By default a Unix socket in the runtime directory.")
    var listen: String?
    @Option(help: "The name of an export: one for each volume, in their order.") var name: [String] = []
    @Flag(help: "Refuse every write.") var readOnly = false
    @OptionGroup var listening: ListeningArguments

    func validate() throws {
        guard !addresses.isEmpty else { throw ValidationError("expected a volume") }
        for text in addresses { _ = try AddressArgument.explained(text) }
        _ = try names()
        _ = try listenAddress()
    }

    func run() async throws {
        let interruption = Interruption(then: "clients may miss replies.")
        try await reporting { () async throws(MoveError) in
            let credentials = try await staged(.target) { () throws(VolumeError) in try await listening.credentials() }
            let exports = try await open()
            let server = ExportServer(exports, credentials: credentials, isInsecureAllowed: listening.insecure) {
                tell("godwit: \($0)")
            }
            do throws(MoveError) {
                try await staged(.target) { () throws(VolumeError) in
                    try await server.serve(at: try place()) { serving in
                        for offer in serving.offers { emit(offer.uri + "\n", to: 1) }
                        await interruption.untilAsked()
                    }
                }
            } catch {
                await close(exports)
                throw error
            }
            await close(exports)
        }
    }

    private func close(_ exports: [Export]) async {
        for export in exports { await export.disk.close() }
    }

    // MARK: What is served

    private func open() async throws(MoveError) -> [Export] {
        var exports: [Export] = []
        do throws(MoveError) {
            for (text, name) in zip(addresses, names(of: addresses)) {
                exports.append(try await open(text, as: name))
            }
        } catch {
            await close(exports)
            throw error
        }
        return exports
    }

    private func open(_ text: String, as name: String) async throws(MoveError) -> Export {
        let argument = Self.address(text)
        let isWritable = !readOnly && argument.snapshot == nil
        let volume = try await staged(.source) { () throws(VolumeError) in try await Opening.disk(argument.address) }
        if isWritable {
            let found = try await staged(.source) { () throws(VolumeError) in try await volume.obstacles() }
            if !found.isEmpty {
                let refusal = MoveError(found, at: .source)
                throw MoveError(
                    refusal.kind, refusal.lines, advice: "With --read-only it is served as it is, whoever writes to it."
                )
            }
        }
        let disk = try await staged(.source) { () throws(VolumeError) in
            try await volume.attach(try await volume.revision(named: argument.snapshot), isWritable: isWritable)
        }
        let how = isWritable ? "" : ", read-only"
        tell("godwit: \(argument.address.text) is \"\(name)\" (\(disk.size.bytes) bytes\(how))")
        return Export(name: name, description: argument.address.text, disk: disk)
    }

    /// Validated before.
    private static func address(_ text: String) -> AddressArgument {
        guard let argument = AddressArgument(argument: text) else { preconditionFailure("validated") }
        return argument
    }

    // MARK: Names and places

    private func names() throws -> [String] {
        guard name.isEmpty || name.count == addresses.count else {
            throw ValidationError("\(addresses.count) volumes and \(name.count) names: give --name for each, or none")
        }
        let names = names(of: addresses)
        for name in names {
            guard name.utf8.count <= 4096, !name.utf8.contains(0) else {
                throw ValidationError("an export's name has at most 4096 bytes, and no NUL")
            }
            guard names.count(where: { $0 == name }) == 1 else {
                throw ValidationError("several volumes would be called '\(name)': give --name for each")
            }
        }
        return names
    }

    private func names(of addresses: [String]) -> [String] {
        guard name.isEmpty else { return name }
        return addresses.map { AddressArgument(argument: $0)?.address.exportName ?? $0 }
    }

    private func listenAddress() throws -> ListenAddress? {
        try listen.map { try ListenAddress.argument($0) }
    }

    private func place() throws(VolumeError) -> ListenAddress {
        if let given = try? listenAddress() { return given }
        let directory = RuntimeDirectory.ownMoves()
        try directory.make()
        return .unix(path: "\(directory.path)/nbd-\(ProcessInfo.processInfo.processIdentifier).sock")
    }
}

extension VolumeAddress {
    /// What an export of it is called, unless its operator says otherwise.
    var exportName: String {
        switch self {
        case .rbd(let address): address.image + (address.snapshot.map { "@" + $0 } ?? "")
        case .nbd(let address): address.export
        case .relay(let address): address.target
        case .file(let path): String(path.split(separator: "/").last ?? "/")
        }
    }
}
