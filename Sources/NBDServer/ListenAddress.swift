internal import Foundation
internal import NIOCore
internal import Volumes

/// Where a server listens: `unix:PATH` or `HOST:PORT`, as it is written on a command line.
package enum ListenAddress: Sendable, Hashable {
    case unix(path: String)
    /// - Parameters:
    ///   - host: A name or an address, without brackets. Empty means all addresses of this host.
    ///   - port: 0 to 65535; 0 means any that is free.
    case tcp(host: String, port: Int)

    package struct ParseError: Error, CustomStringConvertible {
        package let description: String
    }

    package init(_ text: String) throws(ParseError) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst("unix:".count))
            guard !path.isEmpty, !path.utf8.contains(0) else { throw ParseError(description: "'\(text)': no path") }
            self = .unix(path: path)
            return
        }
        guard let colon = text.lastIndex(of: ":") else {
            throw ParseError(description: "'\(text)': expected unix:PATH or HOST:PORT")
        }
        guard let port = UInt16(text[text.index(after: colon)...]) else {
            throw ParseError(description: "'\(text)': a port is a number up to 65535")
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]"), host.count > 2 {
            host = host.dropFirst().dropLast()
        } else if host.contains(where: { ":[]/".contains($0) }) {
            throw ParseError(description: "'\(text)': an IPv6 address is written in brackets: [::1]:10809")
        }
        self = .tcp(host: String(host), port: Int(port))
    }
}

extension ListenAddress {
    /// How clients reach an export here (NBD URI specification, doc/uri.md of the NBD project).
    /// - Parameter port: The one that is listened on.
    package func uri(ofExport name: String, port: Int?, isUnderTLS: Bool = false) -> String {
        let scheme = isUnderTLS ? "nbds" : "nbd"
        switch self {
        case .unix(let path):
            let whole = path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
            return "\(scheme)+unix:///\(NBDAddress.encoded(name, keeping: ""))?socket=\(NBDAddress.encoded(whole))"
        case .tcp(let host, let given):
            let name = NBDAddress.encoded(name, keeping: "")
            return "\(scheme)://\(Self.authority(host, port ?? given))/\(name)"
        }
    }

    /// As a URI has it (RFC 3986, 3.2).
    package static func authority(_ host: String, _ port: Int) -> String {
        (host.isEmpty ? "localhost" : host.contains(":") ? "[\(host)]" : host) + ":\(port)"
    }
}

extension SocketAddress {
    /// The first address that the name has.
    static func resolving(host: String, port: Int) async throws(VolumeError) -> SocketAddress {
        try await blocking { () throws(VolumeError) in
            do {
                return try SocketAddress.makeAddressResolvingHost(host.isEmpty ? "::" : host, port: port)
            } catch {
                throw VolumeError(
                    .missing, "getaddrinfo", on: "\(host):\(port)", reason: "this host has no such name or address")
            }
        }
    }

    /// Whether nobody but this host can be at the other end.
    var isLoopback: Bool {
        switch self {
        case .v4: ipAddress?.hasPrefix("127.") ?? false
        case .v6: ipAddress == "::1"
        case .unixDomainSocket: true
        }
    }
}
