/// A volume that another Godwit receives (`godwit receive`).
///
///     godwit://HOST[:PORT]/TARGET
///     godwit+unix:///TARGET?socket=PATH
///     godwits://…, godwits+unix://…: the same under TLS, with the parameters that NBD's addresses have
///
/// The target is an address as the far side allows it: `rbd:POOL/[NAMESPACE/]IMAGE` or `file:/PATH`. The rest is as in
/// an NBD URI, whose handshake begins the connection; a server that is no Godwit has it as an export's name.
package struct RelayAddress: Hashable, Sendable {
    package let server: NBDAddress.Server
    package let target: String
    /// Nothing where all is said in clear; otherwise nothing is.
    package let tls: NBDAddress.TLS?

    package init(server: NBDAddress.Server, target: String, tls: NBDAddress.TLS? = nil) {
        (self.server, self.target, self.tls) = (server, target, tls)
    }

    private static let schemes = [
        ("godwit://", "nbd://"), ("godwit+unix://", "nbd+unix://"), ("godwits://", "nbds://"),
        ("godwits+unix://", "nbds+unix://"),
    ]

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
        (server, target, tls) = (address.server, address.export, address.tls)
    }

    /// Nothing of the text itself is told, as of an NBD URI.
    private static func refusal(_ why: String) -> VolumeAddress.ParseError {
        .init(
            description: "'godwit://…': \(why); write godwit://HOST[:PORT]/TARGET or "
                + "godwit+unix:///TARGET?socket=PATH, under TLS godwits:… for godwit:…, where TARGET is rbd:POOL/IMAGE or file:/PATH at the far side"
        )
    }

    /// The same place, for a server that is no Godwit.
    package var export: NBDAddress { NBDAddress(server: server, export: target, tls: tls) }

    /// The whole address, as it can be written again.
    package var text: String { export.text(of: "godwit", keeping: "/:@") }
}
