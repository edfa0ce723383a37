internal import Glibc
internal import NIOSSL
package import NIOCore
package import Volumes

/// Who a client is under TLS, and which servers it believes.
package struct ClientCredentials: Sendable {
    private let context: NIOSSLContext
    /// Nothing for the CAs that this host trusts.
    private let folder: String?
    private let showsCertificate: Bool

    /// - Parameters:
    ///   - folder: With `ca-cert.pem`, and `client-cert.pem` and `client-key.pem` where servers want to see them. Nothing
    ///     for the first there is of those that libnbd takes (nbd_set_tls_certificates(3)); without any, the CAs that the
    ///     host trusts.
    ///   - verifiesServer: Otherwise it may be anybody.
    /// - Throws: Which file isn't as it has to be.
    package static func load(
        from folder: String?, verifiesServer: Bool = true
    ) async throws(VolumeError) -> ClientCredentials {
        try await blocking { () throws(VolumeError) in
            if let folder {
                let folder = CertificateFolder(folder)
                guard folder.exists else {
                    throw VolumeError(
                        .missing, "open", on: folder.path, reason: "there is no such folder",
                        advice: "'tls-certificates' names the one with ca-cert.pem, client-cert.pem and client-key.pem."
                    )
                }
                return try ClientCredentials(folder, verifiesServer: verifiesServer)
            }
            let usual = Self.usualFolders(home: environment("HOME"), isRoot: geteuid() == 0)
            return try ClientCredentials(
                usual.map { CertificateFolder($0) }.first(where: \.exists), verifiesServer: verifiesServer)
        }
    }

    /// In the order in which libnbd looks for them.
    static func usualFolders(home: String?, isRoot: Bool) -> [String] {
        guard !isRoot else { return ["/etc/pki/libnbd"] }
        return home.map { ["\($0)/.pki/libnbd", "\($0)/.config/pki/libnbd"] } ?? []
    }

    init(_ folder: CertificateFolder?, verifiesServer: Bool) throws(VolumeError) {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.hold()
        configuration.certificateVerification = .none
        if verifiesServer {
            try folder?.refuseRevocations()
            configuration.certificateVerification = .fullVerification
            configuration.trustRoots = .default
            if let folder {
                guard let authorities = try folder.authorities() else {
                    throw folder.missing(
                        CertificateFolder.authority, advice: "It holds the CA whose servers are believed.")
                }
                configuration.trustRoots = .certificates(authorities)
            }
        }
        let identity = try folder?.identity(of: .client)
        if let identity {
            configuration.certificateChain = identity.chain.map { .certificate($0) }
            configuration.privateKey = .privateKey(identity.key)
        }
        showsCertificate = identity != nil
        self.folder = folder?.path
        context = try configuration.context(of: .client, in: folder)
    }

    /// Has everything go under TLS that `handler` sends and receives from now on.
    ///
    /// - Parameter name: What the server's certificate has to be for: a host's name, or the IP address that was
    ///   connected to.
    package func begin(
        with name: String, before handler: any ChannelHandler, in pipeline: ChannelPipeline
    ) throws -> TLSLayer {
        // An address is held against the connection's own.
        let isAddress = (try? SocketAddress(ipAddress: name, port: 0)) != nil
        let layer = try NIOSSLClientHandler(context: context, serverHostname: isAddress ? nil : name)
        try pipeline.syncOperations.addHandler(layer, position: .before(handler))
        return TLSLayer(layer)
    }

    /// What the operator can do about a handshake that failed.
    package func advice(on cause: TLSFailure.Cause, name: String) -> String {
        let place = folder ?? "the folder that 'tls-certificates' names"
        switch cause {
        case .untrusted:
            return folder == nil
                ? "Put the certificate of its CA, ca-cert.pem, into a folder, and name that: tls-certificates=FOLDER."
                : "Put the certificate of its CA into ca-cert.pem of \(place)."
        case .otherName:
            return "It has to be for \(name). If it is the right one, say whom it is for: tls-hostname=NAME."
        case .expired: return "Its operator has to make a new certificate; or this host's clock is wrong."
        case .refused:
            return showsCertificate
                ? "Its CA has to be the one that client-cert.pem of \(place) is by; the server's log says more."
                : "It may want to see a certificate: put client-cert.pem and client-key.pem into \(place)."
        case .otherVersion: return "TLS 1.2 and 1.3 are spoken; the server's log says more."
        case .noTLS, .lost, .other: return "The server's log may say more."
        }
    }
}

private func environment(_ name: String) -> String? {
    guard let value = unsafe getenv(name) else { return nil }
    let text = unsafe String(cString: value)
    return text.isEmpty ? nil : text
}
