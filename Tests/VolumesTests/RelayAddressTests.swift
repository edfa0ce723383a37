import Testing
import Volumes

struct RelayAddressTests {
    static let forms: [(text: String, server: NBDAddress.Server, target: String)] = [
        ("godwit://far/rbd:slow/v", .tcp(host: "far", port: 10809), "rbd:slow/v"),
        ("godwit://far:7000/rbd:slow/ns/v", .tcp(host: "far", port: 7000), "rbd:slow/ns/v"),
        ("godwit://[::1]:7/file:/srv/v.raw", .tcp(host: "::1", port: 7), "file:/srv/v.raw"),
        ("godwit://far/rbd:slow/a%20b%3F", .tcp(host: "far", port: 10809), "rbd:slow/a b?"),
        ("godwit+unix:///rbd:slow/v?socket=/run/r.sock", .unix(path: "/run/r.sock"), "rbd:slow/v"),
        ("godwit+unix:///file:/a%23b?socket=/run/a%20b", .unix(path: "/run/a b"), "file:/a#b"),
    ]

    @Test(arguments: forms)
    func `an address is read, and written as it was`(text: String, server: NBDAddress.Server, target: String) throws {
        let address = RelayAddress(server: server, target: target)
        #expect(try RelayAddress(text) == address)
        #expect(try VolumeAddress(text) == .relay(address))
        #expect(address.text == text)
        #expect(try VolumeAddress(text).text == text)
        #expect(address.export == NBDAddress(server: server, export: target))
    }

    @Test(arguments: [
        ("godwits://far/rbd:slow/v", NBDAddress.TLS()),
        ("godwits://far:7/rbd:slow/v?tls-certificates=/etc/pki", .init(certificates: "/etc/pki")),
        ("godwits+unix:///rbd:slow/v?socket=/s&tls-hostname=far", .init(hostname: "far")),
    ])
    func `under TLS it stays so`(text: String, tls: NBDAddress.TLS) throws {
        let address = try RelayAddress(text)
        #expect(address.tls == tls)
        #expect(address.text == text)
        #expect(address.export.tls == tls)
    }

    @Test(
        arguments: [
            ("godwit://", "host is missing"), ("godwit:///rbd:slow/v", "host is missing"),
            ("godwit://far", "target is missing"), ("godwit://far/", "target is missing"),
            ("godwit://far:0/rbd:slow/v", "1 to 65535"), ("godwit://secret@far/rbd:slow/v", "user's name"),
            ("godwit://far/rbd:slow/v?socket=/s", "'socket' is for"), ("godwit+unix:///rbd:slow/v", "is missing"),
            ("godwit+unix:///?socket=/s", "target is missing"), ("godwit://far/a b", "%XX"),
            ("godwit://far/rbd:slow/v?tls-verify-peer=false", "'tls-…' is for"),
            ("godwits://far/rbd:slow/v?tls-secret=secret", "is unknown"),
        ])
    func `what isn't one is refused with why, and no secret`(text: String, why: String) {
        do throws(VolumeAddress.ParseError) {
            _ = try VolumeAddress(text)
            Issue.record("it was taken")
        } catch {
            #expect(error.description.contains(why), "\(error.description)")
            #expect(!error.description.contains("=secret") && !error.description.contains("secret@"))
        }
    }
}
