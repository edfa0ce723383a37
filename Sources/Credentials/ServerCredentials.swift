internal import NIOSSL
package import NIOCore
package import Volumes

/// Who a server is under TLS, and which clients it lets in.
package struct ServerCredentials: Sendable {
    /// Whether a client has to show a certificate by a CA that the server knows.
    package let verifiesClients: Bool
    private let context: NIOSSLContext

    /// - Parameters:
    ///   - folder: With `server-cert.pem`, `server-key.pem`, and `ca-cert.pem` where clients are verified.
    ///   - verifiesClients: Otherwise whoever can connect is let in.
    /// - Throws: Which file isn't as it has to be.
    package static func load(
        from folder: String, verifiesClients: Bool = true
    ) async throws(VolumeError) -> ServerCredentials {
        try await blocking { () throws(VolumeError) in
            try ServerCredentials(CertificateFolder(folder), verifiesClients: verifiesClients)
        }
    }

    init(_ folder: CertificateFolder, verifiesClients: Bool) throws(VolumeError) {
        self.verifiesClients = verifiesClients
        guard folder.exists else {
            throw VolumeError(
                .missing, "open", on: folder.path, reason: "there is no such folder",
                advice: "Name the one with ca-cert.pem, server-cert.pem and server-key.pem: "
                    + "Docs/Operations.md shows how to make them.")
        }
        guard let identity = try folder.identity(of: .server) else {
            throw folder.missing(CertificateFolder.Owner.server.certificate)
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: identity.chain.map { .certificate($0) }, privateKey: .privateKey(identity.key))
        configuration.hold()
        if verifiesClients {
            try folder.refuseRevocations()
            guard let authorities = try folder.authorities() else {
                throw folder.missing(
                    CertificateFolder.authority,
                    advice: "It holds the CA whose clients are let in. With --tls-no-verify-peer everybody is.")
            }
            // A client's name isn't its host's: whom the CA made a certificate for is let in.
            configuration.certificateVerification = .noHostnameVerification
            configuration.trustRoots = .certificates(authorities)
        }
        context = try configuration.context(of: .server, in: folder)
    }

    /// Has everything go under TLS that `channel` sends and receives from now on, as `handler` sees it.
    package func begin(before handler: any ChannelHandler, in pipeline: ChannelPipeline) throws -> TLSLayer {
        let layer = NIOSSLServerHandler(context: context)
        try pipeline.syncOperations.addHandler(layer, position: .before(handler))
        return TLSLayer(layer)
    }
}

extension TLSConfiguration {
    /// What both ends hold to.
    mutating func hold() {
        // RFC 8996: older ones are broken.
        minimumTLSVersion = .tlsv12
        // The other end may be gone: how long to wait for its goodbye.
        shutdownTimeout = .seconds(1)
    }

    /// - Parameter folder: Where what is used was read; nothing where only the host's CAs are.
    func context(
        of owner: CertificateFolder.Owner, in folder: CertificateFolder?
    ) throws(VolumeError) -> NIOSSLContext {
        do {
            return try NIOSSLContext(configuration: self)
        } catch NIOSSLError.failedToLoadPrivateKey {
            throw VolumeError(
                .damaged, "load", on: folder?.file(owner.key) ?? "a key",
                reason: "it isn't the key of \(owner.certificate)",
                advice: "Put the two of one certificate there; the \(owner)'s own comes first in \(owner.certificate).")
        } catch {
            throw VolumeError(
                .damaged, "load", on: folder?.path ?? "the CAs of this host", reason: "they can't be used: \(error)",
                advice: "'openssl verify -CAfile ca-cert.pem CERTIFICATE' may say why.")
        }
    }
}
