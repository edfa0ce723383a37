internal import ArgumentParser
internal import Credentials
internal import NBDServer
internal import Volumes

/// Who may connect to what this process serves.
struct ListeningArguments: ParsableArguments {
    @Option(
        name: .customLong("tls"),
        help: ArgumentHelp(
            "Serve under TLS alone, with ca-cert.pem, server-cert.pem and server-key.pem of this folder; clients have to show a certificate by that CA.",
            valueName: "folder"))
    var certificates: String?
    @Flag(help: "With --tls, let in clients that show no certificate.") var tlsNoVerifyPeer = false
    @Flag(help: "Listen on TCP for other hosts, without TLS: whoever can connect can read and write.") var insecure =
        false

    /// Whether nothing was said.
    var isDefault: Bool { certificates == nil && !tlsNoVerifyPeer && !insecure }

    func validate() throws {
        guard certificates != nil || !tlsNoVerifyPeer else {
            throw ValidationError("--tls-no-verify-peer says whom --tls lets in: give --tls, too")
        }
        guard certificates == nil || !insecure else {
            throw ValidationError("--tls lets nobody in without TLS, and --insecure everybody: give one of them")
        }
    }

    func credentials() async throws(VolumeError) -> ServerCredentials? {
        guard let certificates else { return nil }
        return try await ServerCredentials.load(from: certificates, verifiesClients: !tlsNoVerifyPeer)
    }
}

extension ListenAddress {
    /// What an option says.
    static func argument(_ text: String) throws -> ListenAddress {
        do throws(ParseError) {
            return try ListenAddress(text)
        } catch {
            throw ValidationError(error.description)
        }
    }
}
