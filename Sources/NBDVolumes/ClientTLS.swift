internal import Credentials
package import NBDProtocol
package import NIOCore
package import Volumes

/// How a client shows itself, and whom it takes for the server.
package struct ClientTLS: Sendable {
    private let credentials: ClientCredentials
    /// The server's, as its certificate has to have it.
    private let name: String

    /// - Returns: Nothing for an address that is used in clear.
    package init?(_ tls: NBDAddress.TLS?, with server: NBDAddress.Server) async throws(VolumeError) {
        guard let tls else { return nil }
        credentials = try await ClientCredentials.load(from: tls.certificates, verifiesServer: tls.verifiesServer)
        switch server {
        case .tcp(let host, _): name = tls.hostname ?? host
        case .unix: name = tls.hostname ?? "localhost"
        }
    }

    init(_ credentials: ClientCredentials, _ name: String) { (self.credentials, self.name) = (credentials, name) }

    /// One connection's, from its first byte in clear to its end. Used on the connection's event loop only.
    package struct Course {
        private let tls: ClientTLS?
        /// There from the answer to `NBD_OPT_STARTTLS` on.
        private var layer: TLSLayer?
        private var isStanding = false

        /// - Parameter tls: Needed where the plan is one under TLS.
        package init(_ tls: ClientTLS?, for plan: ClientPlan) {
            precondition((plan.tls == .required) == (tls != nil), "TLS needs credentials, and they are for TLS")
            self.tls = tls
        }

        /// The server has agreed: from now on all that `handler` sends and receives is TLS's. What is left to be read
        /// came in clear, and the session refuses it.
        ///
        /// - Returns: Why it couldn't be begun; nothing if it was.
        package mutating func begin(before handler: any ChannelHandler, _ context: ChannelHandlerContext) -> End? {
            guard let tls else { preconditionFailure("it wasn't planned") }
            do {
                layer = try tls.credentials.begin(with: tls.name, before: handler, in: context.pipeline)
                return nil
            } catch {
                return End(.failed, "TLS could not be begun: \(error)")
            }
        }

        /// - Returns: Whether an event of the pipeline says that both ends are who they should be.
        package mutating func stands(after event: Any) -> Bool {
            guard TLSLayer.stands(after: event) else { return false }
            isStanding = true
            return true
        }

        /// What an error of the pipeline comes to.
        /// - Parameter isEntered: Whether the handshake of NBD had come to its end.
        package func end(_ error: any Error, isEntered: Bool) -> End {
            guard let tls, let layer else { return End(error) }
            if let failure = layer.failure(error) {
                return End(failure, advice: tls.credentials.advice(on: failure.cause, name: tls.name))
            }
            guard !isEntered else {
                // The server took no leave.
                return error is IOError ? End(error) : End(.lost, isEntered: true)
            }
            // Under TLS 1.3 a client has done its part before the server looks at its certificate.
            return End(
                isStanding ? .forbidden : .unreachable,
                "the server ended the connection "
                    + (isStanding ? "as soon as TLS had begun" : "during the handshake of TLS"),
                advice: tls.credentials.advice(on: isStanding ? .refused : .lost, name: tls.name))
        }
    }
}
