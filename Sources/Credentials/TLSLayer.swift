internal import NIOSSL
internal import NIOTLS

/// TLS on one connection, from the moment that it was asked for. Used on the connection's event loop only.
package struct TLSLayer {
    private let handler: NIOSSLHandler

    init(_ handler: NIOSSLHandler) { self.handler = handler }

    /// Whether an event of the pipeline says that both ends are who they should be.
    package static func stands(after event: Any) -> Bool {
        guard case .some(.handshakeCompleted) = event as? TLSUserEvent else { return false }
        return true
    }

    /// What an error of the pipeline says of TLS.
    /// - Returns: Nothing if it is none of TLS's, or only says that the other end took no leave.
    package func failure(_ error: any Error) -> TLSFailure? {
        TLSFailure(error, peer: handler.peerCertificate, now: currentSeconds())
    }
}

/// Why there is no TLS with the other end.
package struct TLSFailure: Equatable {
    package enum Cause: Equatable {
        /// What came is nothing of TLS.
        case noTLS
        /// Its certificate is by nobody that this end knows, or isn't meant for this; or it has shown none.
        case untrusted
        /// Its certificate isn't valid yet, or any more.
        case expired
        /// Its certificate is for others.
        case otherName
        /// It refused this end, or what this end has shown.
        case refused
        case otherVersion
        /// It went away.
        case lost
        case other
    }

    package let cause: Cause
    /// Words for an operator, to follow the other end's name: "its certificate expired on 2026-01-01".
    package let reason: String

    private init(_ cause: Cause, _ reason: String) { (self.cause, self.reason) = (cause, reason) }

    /// - Parameter now: Seconds since 1970.
    init?(_ error: any Error, peer: NIOSSLCertificate?, now: Int) {
        switch error {
        case NIOSSLError.handshakeFailed(let error): self.init(error, peer, now)
        case let error as BoringSSLError: self.init(error, peer, now)
        case let error as NIOSSLExtraError where error == .failedToValidateHostname:
            self.init(.otherName, "its certificate is for another name")
        case NIOSSLError.uncleanShutdown, NIOSSLError.shutdownFailed: return nil
        case is NIOSSLError, is NIOSSLExtraError: self.init(.other, "TLS failed: \(error)")
        default: return nil
        }
    }

    private init(_ error: BoringSSLError, _ peer: NIOSSLCertificate?, _ now: Int) {
        guard case .sslError(let stack) = error, let first = stack.first, first != .eofDuringHandshake else {
            self.init(.lost, "it ended the connection during the handshake of TLS")
            return
        }
        // "Error: 268435581 error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED at FILE:LINE"
        let name = first.description.firstMatch(of: #/:([A-Z0-9_]+) at /#).map { String($0.1) } ?? first.description
        switch name {
        case "CERTIFICATE_VERIFY_FAILED":
            if let peer, peer.notValidAfter < now {
                self.init(.expired, "its certificate expired on \(day(peer.notValidAfter))")
            } else if let peer, peer.notValidBefore > now {
                self.init(.expired, "its certificate isn't valid before \(day(peer.notValidBefore))")
            } else {
                self.init(.untrusted, "its certificate is by no CA that is believed here, or isn't made for this use")
            }
        case "PEER_DID_NOT_RETURN_A_CERTIFICATE": self.init(.untrusted, "it has shown no certificate")
        case "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE",
            "EXCESSIVE_MESSAGE_SIZE", "UNEXPECTED_RECORD", "ENCRYPTED_LENGTH_TOO_LONG", "DECODE_ERROR":
            self.init(.noTLS, "what it sends is no TLS (\(name))")
        case "UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION":
            self.init(.otherVersion, "there is no version of TLS that both ends speak (\(name))")
        case let name where name.contains("_ALERT_"): self.init(.refused, "it refused this end (\(name))")
        default: self.init(.other, "TLS failed (\(name))")
        }
    }
}
