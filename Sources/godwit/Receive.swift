internal import ArgumentParser
internal import Mirror
internal import NBDServer
internal import RelayServer
internal import Volumes

struct Receive: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Takes volumes from other Godwits: makes the targets of their moves on this host's side.",
        discussion: """
            Prints on stdout where it listens, and serves until Ctrl-C or SIGTERM; then every target is let go of as it \
            is, and the same move goes on once a receiver is there again. The other side gives 'godwit migrate SOURCE \
            godwit://HOST:PORT/rbd:POOL/IMAGE', or godwit+unix:///rbd:POOL/IMAGE?socket=PATH. Only what --allow names \
            can be made, compared or given up there. How the cluster is reached is said here, by the options of \
            --allow; none are taken from the other side.
            """)

    @Option(help: "Where to listen: unix:PATH, or HOST:PORT.") var listen: String
    @Option(
        help: ArgumentHelp(
            "What clients may make and see: rbd:POOL or rbd:POOL/NAMESPACE, exactly that, with :conf=, :id= and "
                + ":keyring= as needed; file:/FOLDER and the folders in it. May be given more than once.",
            valueName: "what"))
    var allow: [String]
    @OptionGroup var listening: ListeningArguments

    func validate() throws {
        _ = try allowances()
        _ = try ListenAddress.argument(listen)
    }

    func run() async throws {
        let interruption = Interruption(then: "clients may miss replies; their moves go on from their records.")
        let (address, allowances) = (try ListenAddress.argument(listen), try allowances())
        try await reporting { () async throws(MoveError) in
            try await staged(.target) { () throws(VolumeError) in
                let credentials = try await listening.credentials()
                let server = try RelayServer(
                    allowances, credentials: credentials, isInsecureAllowed: listening.insecure,
                    notice: { tell("godwit: \($0)") }
                ) { address, wishes throws(VolumeError) in
                    try await Opening.target(
                        address, wishes: wishes, notice: { tell("godwit: \($0)") },
                        isStopped: { interruption.stop.isAsked })
                }
                try await server.serve(at: address) { port in
                    emit(address.title(port: port, isUnderTLS: credentials != nil) + "\n", to: 1)
                    await interruption.untilAsked()
                }
            }
        }
    }

    private func allowances() throws -> [Allowance] {
        guard !allow.isEmpty else { throw ValidationError("--allow: nothing is allowed by itself; name something") }
        return try allow.map { text in
            do throws(Allowance.ParseError) {
                return try Allowance(text)
            } catch {
                throw ValidationError("--allow: \(error.description)")
            }
        }
    }
}

extension ListenAddress {
    /// As a client's address begins.
    fileprivate func title(port: Int?, isUnderTLS: Bool) -> String {
        switch self {
        case .unix(let path): "listening on unix:\(path)"
        case .tcp(let host, let given):
            "listening on godwit\(isUnderTLS ? "s" : "")://\(Self.authority(host, port ?? given))/"
        }
    }
}
