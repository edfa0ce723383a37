/// An export of an NBD server, as the NBD URI specification writes it (NetworkBlockDevice/nbd, doc/uri.md).
///
///     nbd://HOST[:PORT][/EXPORT]
///     nbd+unix:///[EXPORT]?socket=PATH
///     nbds://…, nbds+unix://…: the same under TLS; with tls-certificates=FOLDER, tls-verify-peer=false, tls-hostname=NAME
///     as parameters (libnbd, nbd_connect_uri(3))
///
/// What a URI can't hold as it is stands there as `%` and two hexadecimal digits for each byte (RFC 3986, 2.1).
package struct NBDAddress: Hashable, Sendable {
    package enum Server: Hashable, Sendable {
        /// - Parameter host: A name, or an IPv4 or IPv6 address, without brackets.
        case tcp(host: String, port: UInt16)
        case unix(path: String)
    }

    /// What is said under TLS, and to whom.
    package struct TLS: Hashable, Sendable {
        /// The folder of the client's certificates; by default one of libnbd's.
        package var certificates: String?
        /// Whether the server has to be who it should be.
        package var verifiesServer = true
        /// Whom the server's certificate has to be for; by default the host, of a Unix socket `localhost`.
        package var hostname: String?

        package init(certificates: String? = nil, verifiesServer: Bool = true, hostname: String? = nil) {
            (self.certificates, self.verifiesServer, self.hostname) = (certificates, verifiesServer, hostname)
        }
    }

    /// The port that IANA has for NBD.
    package static let standardPort: UInt16 = 10809
    /// Bytes of an export's name. NBD protocol, "Conventions".
    package static let longestExport = 4096
    /// Bytes: `sun_path` has 108, and one of them ends it (sys/un.h).
    static let longestSocket = 107
    /// Bytes of a host's name. RFC 1035, 2.3.4.
    static let longestHost = 255
    /// Bytes of a folder's path. `PATH_MAX`, linux/limits.h.
    static let longestPath = 4095
    /// Bytes of an address: each byte of its names may take three.
    static let longestText = 3 * (longestExport + 2 * longestHost + longestSocket + longestPath) + 128

    package let server: Server
    /// Empty for the server's default.
    package let export: String
    /// Nothing where all is said in clear; otherwise nothing is.
    package let tls: TLS?

    package init(server: Server, export: String, tls: TLS? = nil) {
        (self.server, self.export, self.tls) = (server, export, tls)
    }

    /// Whether a text is meant to be such an address.
    static func isMeant(by text: String) -> Bool { Scheme.allCases.contains { text.utf8.starts(with: $0.prefix.utf8) } }

    private enum Scheme: String, CaseIterable {
        case tcp = "nbd"
        case tcpUnderTLS = "nbds"
        case unix = "nbd+unix"
        case unixUnderTLS = "nbds+unix"

        var prefix: String { rawValue + "://" }
        var isUnderTLS: Bool { self == .tcpUnderTLS || self == .unixUnderTLS }
    }

    package init(_ text: String) throws(VolumeAddress.ParseError) {
        guard let scheme = Scheme.allCases.first(where: { text.utf8.starts(with: $0.prefix.utf8) }) else {
            throw Self.refusal("nbd", "no scheme of NBD's")
        }
        func refuse(_ why: String) -> VolumeAddress.ParseError { Self.refusal(scheme.rawValue, why) }
        guard text.utf8.count <= Self.longestText else { throw refuse("more than \(Self.longestText) bytes") }
        guard text.utf8.allSatisfy(Self.mayStand) else {
            throw refuse("a character that a URI can't hold: write each of its bytes as %XX")
        }
        let rest = Substring(text.utf8.dropFirst(scheme.prefix.utf8.count))
        let halves = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let parts = halves[0].split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let export = Self.decoded(parts.count == 2 ? parts[1] : "") else {
            throw refuse("the export's name is no UTF-8 in %XX, or has a NUL")
        }
        guard export.utf8.count <= Self.longestExport else {
            throw refuse("an export's name of more than \(Self.longestExport) bytes")
        }
        var query = Query()
        for field in (halves.count == 2 ? halves[1] : "").split(separator: "&") { try query.take(field, refuse) }
        switch scheme {
        case .tcp, .tcpUnderTLS:
            guard query.socket == nil else { throw refuse("'socket' is for \(Scheme.unix.prefix)") }
            server = try Self.host(parts[0], refuse)
        case .unix, .unixUnderTLS:
            guard parts[0].isEmpty else { throw refuse("a socket of this host has no host's name: three slashes") }
            guard let socket = query.socket else { throw refuse("'?socket=PATH' is missing") }
            server = .unix(path: socket)
        }
        self.export = export
        guard scheme.isUnderTLS || query.tls == TLS() else {
            throw refuse("'tls-…' is for \(Scheme.tcpUnderTLS.prefix) and \(Scheme.unixUnderTLS.prefix)")
        }
        tls = scheme.isUnderTLS ? query.tls : nil
    }

    /// Nothing of the text itself is told: where a user's name may stand, a secret may.
    private static func refusal(_ scheme: String, _ why: String) -> VolumeAddress.ParseError {
        .init(
            description: "'\(scheme)://…': \(why); "
                + "write nbd://HOST[:PORT][/EXPORT] or nbd+unix:///[EXPORT]?socket=PATH, under TLS nbds:… for nbd:…")
    }

    private static func host(
        _ text: Substring, _ refuse: (String) -> VolumeAddress.ParseError
    ) throws(VolumeAddress.ParseError) -> Server {
        guard !text.contains("@") else { throw refuse("a user's name has no use here") }
        // RFC 3986, 3.2.2: colons stand in brackets, but for the one before the port.
        guard let match = text.wholeMatch(of: /(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._~-]+))(?::([0-9]*))?/),
            let host = match.1 ?? match.2, host.utf8.count <= longestHost
        else { throw refuse(text.isEmpty ? "the host is missing" : "no HOST or HOST:PORT") }
        guard let digits = match.3, !digits.isEmpty else { return .tcp(host: String(host), port: standardPort) }
        guard let port = UInt16(digits), port > 0 else { throw refuse("the port is a number from 1 to 65535") }
        return .tcp(host: String(host), port: port)
    }

    /// The parameters after `?`: each one once.
    private struct Query {
        var socket: String?
        var tls = TLS()
        private var seen: Set<Substring> = []

        mutating func take(
            _ field: Substring, _ refuse: (String) -> VolumeAddress.ParseError
        ) throws(VolumeAddress.ParseError) {
            let pair = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let value = pair.count == 2 ? decoded(pair[1]) ?? "" : ""
            guard seen.insert(pair[0]).inserted else { throw refuse("a parameter is there twice") }
            switch pair[0] {
            case "socket":
                guard !value.isEmpty else { throw refuse("'socket' is one path, and no abstract one") }
                guard value.utf8.count <= longestSocket else {
                    throw refuse("a socket's path of more than \(longestSocket) bytes")
                }
                socket = value
            case "tls-certificates":
                guard !value.isEmpty, value.utf8.count <= longestPath else {
                    throw refuse("'tls-certificates' is the path of a folder")
                }
                tls.certificates = value
            case "tls-verify-peer":
                guard let isTrue = ["true": true, "1": true, "false": false, "0": false][value] else {
                    throw refuse("'tls-verify-peer' is true or false")
                }
                tls.verifiesServer = isTrue
            case "tls-hostname":
                // What is all digits and dots is an address, and those are held against the connection's own.
                guard value.wholeMatch(of: /[A-Za-z0-9._-]+/) != nil, value.utf8.count <= longestHost,
                    value.contains(where: \.isLetter)
                else { throw refuse("'tls-hostname' is a host's name") }
                tls.hostname = value
            default:
                // A name, if it looks like one: what stands there may be a secret.
                let isName = pair[0].wholeMatch(of: /[a-z-]{1,24}/) != nil
                throw refuse(
                    "\(isName ? "'\(pair[0])'" : "a parameter") is unknown "
                        + "(known: socket, tls-certificates, tls-verify-peer, tls-hostname)")
            }
        }
    }

    // MARK: RFC 3986

    /// 2.3: what never has a meaning.
    private static func isUnreserved(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "-._~".utf8.contains(byte)
        }
    }

    /// 2.2, without `#`: a fragment has no meaning here.
    private static func mayStand(_ byte: UInt8) -> Bool {
        isUnreserved(byte) || "%:/?[]@!$&'()*+,;=".utf8.contains(byte)
    }

    /// 2.1
    /// - Returns: Nothing if it isn't UTF-8, or holds a NUL, or a `%` without its digits.
    private static func decoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(digit), let low = rest.popFirst().flatMap(digit) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        return bytes.contains(0) ? nil : String(validating: bytes, as: UTF8.self)
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    /// - Parameter others: What stands for itself besides, as '/' does in a path.
    package static func encoded(_ name: String, keeping others: String = "/") -> String {
        var text = ""
        for byte in name.utf8 {
            if isUnreserved(byte) || others.utf8.contains(byte) {
                text.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let digits = String(byte, radix: 16, uppercase: true)
                text += digits.utf8.count == 1 ? "%0" + digits : "%" + digits
            }
        }
        return text
    }

    /// The whole address, as it can be written again.
    package var text: String { text(of: "nbd", keeping: "/") }

    /// - Parameters:
    ///   - family: What the scheme begins with.
    ///   - others: What stands for itself in the export's name.
    func text(of family: String, keeping others: String) -> String {
        let secure = tls == nil ? "" : "s"
        var (text, query): (String, [String])
        switch server {
        case .tcp(let host, let port):
            text = "\(family)\(secure)://" + (host.contains(":") ? "[\(host)]" : host)
            if port != Self.standardPort { text += ":\(port)" }
            if !export.isEmpty { text += "/" + Self.encoded(export, keeping: others) }
            query = []
        case .unix(let path):
            text = "\(family)\(secure)+unix:///" + Self.encoded(export, keeping: others)
            query = ["socket=" + Self.encoded(path)]
        }
        if let folder = tls?.certificates { query.append("tls-certificates=" + Self.encoded(folder)) }
        if tls?.verifiesServer == false { query.append("tls-verify-peer=false") }
        if let name = tls?.hostname { query.append("tls-hostname=" + Self.encoded(name)) }
        return query.isEmpty ? text : text + "?" + query.joined(separator: "&")
    }
}
