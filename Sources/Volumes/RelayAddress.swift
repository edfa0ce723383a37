/// A volume that another Godwit receives (`godwit receive`).
///
///     godwit://HOST[:PORT]/TARGET
///     godwit+unix:///TARGET?socket=PATH
///
/// The target is an address as the far side allows it: `rbd:POOL/[NAMESPACE/]IMAGE` or `file:/PATH`. The rest is as in
/// an NBD URI, whose handshake begins the connection; a server that is no Godwit has it as an export's name.
package struct RelayAddress: Hashable, Sendable {
    package let server: NBDAddress.Server
    package let target: String

    package init(server: NBDAddress.Server, target: String) { (self.server, self.target) = (server, target) }

    private static let schemes = [("godwit://", "nbd://"), ("godwit+unix://", "nbd+unix://")]

    /// Whether a text is meant to be such an address.
    static func isMeant(by text: String) -> Bool { schemes.contains { text.utf8.starts(with: $0.0.utf8) } }

    package init(_ text: String) throws(VolumeAddress.ParseError) {
        guard let (scheme, like) = Self.schemes.first(where: { text.utf8.starts(with: $0.0.utf8) }) else {
            throw Self.refusal("no scheme of Godwit's")
        }
        let address: NBDAddress
        do throws(VolumeAddress.ParseError) {
            address = try NBDAddress(like + String(text.unicodeScalars.dropFirst(scheme.unicodeScalars.count)))
        } catch {
            // "'nbd://…': WHY; write …": what is to be written is something else here.
            let why = error.description.split(separator: ": ", maxSplits: 1).last ?? ""
            throw Self.refusal(why.split(separator: "; write ").first.map(String.init) ?? "not understood")
        }
        guard !address.export.isEmpty else { throw Self.refusal("the target is missing") }
        (server, target) = (address.server, address.export)
    }

    /// Nothing of the text itself is told, as of an NBD URI.
    private static func refusal(_ why: String) -> VolumeAddress.ParseError {
        .init(
            description: "'godwit://…': \(why); write godwit://HOST[:PORT]/TARGET or "
                + "godwit+unix:///TARGET?socket=PATH, where TARGET is rbd:POOL/IMAGE or file:/PATH at the far side")
    }

    /// The same place, for a server that is no Godwit.
    package var export: NBDAddress { NBDAddress(server: server, export: target) }

    /// The whole address, as it can be written again.
    package var text: String {
        let path = NBDAddress.encoded(target, keeping: "/:@")
        switch server {
        case .tcp(let host, let port):
            return "godwit://" + (host.contains(":") ? "[\(host)]" : host)
                + (port == NBDAddress.standardPort ? "" : ":\(port)") + "/" + path
        case .unix(let socket): return "godwit+unix:///\(path)?socket=" + NBDAddress.encoded(socket)
        }
    }
}
