/// How the peer broke the protocol. There is no going on after it: what follows on the connection has no meaning.
package enum Violation: Error, Sendable, Equatable {
    /// A message doesn't begin as it must: junk, or the place in the stream is lost.
    case magic(found: UInt64)
    /// The server speaks the oldstyle negotiation, which knows neither names nor TLS.
    case oldstyle
    /// Client flags that don't exist, or that the server didn't offer.
    case clientFlags(UInt32)
    /// More was announced than is waited for.
    case tooLong(String, announced: UInt64, most: UInt64)
    /// More of them than anybody needs.
    case tooMany(String, most: Int)
    /// Bytes came in clear after `NBD_OPT_STARTTLS`: whoever put them there isn't who TLS will vouch for.
    case clearAfterStartTLS
    /// TLS is required, and something was asked for that has no way to be refused.
    case tlsRequired
    /// The server doesn't do what the client can't go on without.
    case notFixedNewstyle
    /// A message contradicts itself or what was agreed.
    case malformed(String)
    /// A reply to something that was not asked.
    case unexpected(String)
    /// No request in flight has this cookie.
    case unknownCookie(UInt64)
    /// A reply reaches outside its request, twice to the same bytes, or not to all of them.
    case wrongBytes(String)
}

extension Violation: CustomStringConvertible {
    package var description: String {
        switch self {
        case .magic(let found): "a message begins with 0x\(String(found, radix: 16)), which has no place there"
        case .oldstyle: "the server speaks the oldstyle negotiation: only newstyle is supported"
        case .clientFlags(let flags): "client flags 0x\(String(flags, radix: 16)) were never offered"
        case .tooLong(let what, let announced, let most):
            "\(what) of \(announced) bytes, when at most \(most) are taken"
        case .tooMany(let what, let most): "more than \(most) \(what)"
        case .clearAfterStartTLS: "bytes in clear after NBD_OPT_STARTTLS"
        case .tlsRequired: "TLS is required, and NBD_OPT_EXPORT_NAME came without it"
        case .notFixedNewstyle: "the peer doesn't speak fixed newstyle, without which this can't be asked"
        case .malformed(let what): what
        case .unexpected(let what): what
        case .unknownCookie(let cookie): "a reply to 0x\(String(cookie, radix: 16)), which nobody waits for"
        case .wrongBytes(let what): what
        }
    }
}
