internal import Credentials
internal import NIOCore
internal import Volumes

extension ClientHandler {
    /// How a client shows itself, and whom it takes for the server.
    struct TLS: Sendable {
        private let credentials: ClientCredentials
        /// The server's, as its certificate has to have it.
        private let name: String

        /// - Returns: Nothing for an address that is used in clear.
        init?(of address: NBDAddress) async throws(VolumeError) {
            guard let tls = address.tls else { return nil }
            credentials = try await ClientCredentials.load(
                from: tls.certificates, verifiesServer: tls.verifiesServer)
            switch address.server {
            case .tcp(let host, _): name = tls.hostname ?? host
            case .unix: name = tls.hostname ?? "localhost"
            }
        }

        init(_ credentials: ClientCredentials, _ name: String) { (self.credentials, self.name) = (credentials, name) }

        func begin(before handler: any ChannelHandler, in pipeline: ChannelPipeline) throws -> TLSLayer {
            try credentials.begin(with: name, before: handler, in: pipeline)
        }

        func advice(on cause: TLSFailure.Cause) -> String { credentials.advice(on: cause, name: name) }
    }
}
