import Conformance
import Testing
import Volumes

struct NBDAddressTests {
    static func tcp(_ host: String, _ port: UInt16 = 10809, _ export: String = "") -> NBDAddress {
        NBDAddress(server: .tcp(host: host, port: port), export: export)
    }
    static func unix(_ path: String, _ export: String = "") -> NBDAddress {
        NBDAddress(server: .unix(path: path), export: export)
    }

    static let forms: [(text: String, address: NBDAddress)] = [
        // The specification's own examples.
        ("nbd://example.com/disk", tcp("example.com", 10809, "disk")),
        ("nbd+unix:///disk?socket=sock", unix("sock", "disk")),
        ("nbd://example.com/", tcp("example.com")), ("nbd://example.com", tcp("example.com")),
        ("nbd://example.com//disk", tcp("example.com", 10809, "/disk")),
        ("nbd://example.com/hello%20world", tcp("example.com", 10809, "hello world")),
        ("nbd://example.com:10809/export", tcp("example.com", 10809, "export")),
        ("nbd+unix:///export?socket=nbd.sock", unix("nbd.sock", "export")),
        ("nbd://h:1/x", tcp("h", 1, "x")), ("nbd://h:65535", tcp("h", 65535)), ("nbd://h:/x", tcp("h", 10809, "x")),
        ("nbd://127.0.0.1:7000/a/b", tcp("127.0.0.1", 7000, "a/b")), ("nbd://[::1]:7000/x", tcp("::1", 7000, "x")),
        ("nbd://[fe80::1.2.3.4]", tcp("fe80::1.2.3.4")), ("nbd://h/a%3Fb%23c%25", tcp("h", 10809, "a?b#c%")),
        ("nbd://h/%e2%98%83", tcp("h", 10809, "☃")), ("nbd://h/a+b@c:d", tcp("h", 10809, "a+b@c:d")),
        ("nbd+unix://?socket=/run/a%20b", unix("/run/a b")), ("nbd+unix:///?socket=/s%26t", unix("/s&t")),
        ("nbd+unix:////x?socket=/s=t", unix("/s=t", "/x")),
        ("nbds://h/x", NBDAddress(server: .tcp(host: "h", port: 10809), export: "x", tls: .init())),
        ("nbds+unix:///x?socket=/s", NBDAddress(server: .unix(path: "/s"), export: "x", tls: .init())),
        (
            "nbds://h/?tls-certificates=/etc/a%20b&tls-hostname=disk-1.example",
            NBDAddress(
                server: .tcp(host: "h", port: 10809), export: "",
                tls: .init(certificates: "/etc/a b", hostname: "disk-1.example"))
        ),
        (
            "nbds+unix:///x?tls-verify-peer=0&socket=/s",
            NBDAddress(server: .unix(path: "/s"), export: "x", tls: .init(verifiesServer: false))
        ),
    ]

    @Test(arguments: forms)
    func `an address is read as the specification has it`(text: String, address: NBDAddress) throws {
        #expect(try NBDAddress(text) == address)
        #expect(try VolumeAddress(text) == .nbd(address))
        #expect(try NBDAddress(address.text) == address)
        #expect(try VolumeAddress(text).text == address.text)
    }

    @Test func `what needs no writing isn't written`() throws {
        #expect(try NBDAddress("nbd://h:10809/").text == "nbd://h")
        #expect(try NBDAddress("nbd://[::1]:7/a%2fb%2D").text == "nbd://[::1]:7/a/b-")
        #expect(try NBDAddress("nbd+unix://?socket=/s%3f").text == "nbd+unix:///?socket=/s%3F")
    }

    static let refused: [(text: String, why: String)] = [
        ("nbd://", "host is missing"), ("nbd:///x", "host is missing"), ("nbd://h:0/x", "1 to 65535"),
        ("nbd://h:65536", "1 to 65535"), ("nbd://h:99999999999999999999", "1 to 65535"), ("nbd://h:1a", "no HOST"),
        ("nbd://::1/x", "no HOST"), ("nbd://[::1/x", "no HOST"), ("nbd://[]/x", "no HOST"), ("nbd://h%2e/x", "no HOST"),
        ("nbd://:7/x", "no HOST"), ("nbd://u@h/x", "user's name"), ("nbd://h/x#y", "%XX"), ("nbd://h/a b", "%XX"),
        ("nbd://h/ä", "%XX"), ("nbd://h/a\0", "%XX"), ("nbd://h/%0", "no UTF-8"), ("nbd://h/%", "no UTF-8"),
        ("nbd://h/%zz", "no UTF-8"), ("nbd://h/%00", "NUL"), ("nbd://h/%ff", "no UTF-8"), ("nbd://h/%+1", "no UTF-8"),
        ("nbd://h/x?socket=/s", "'socket' is for"), ("nbd://h/x?tls-type=psk", "'tls-type' is unknown"),
        ("nbd+unix:///x", "'?socket=PATH' is missing"), ("nbd+unix:///x?socket=", "one path"),
        ("nbd+unix:///x?socket", "one path"), ("nbd+unix:///x?socket=a&socket=b", "twice"),
        ("nbds://h/x?tls-certificates=", "path of a folder"), ("nbds://h/x?tls-certificates=/a%00", "path of a folder"),
        ("nbds://h/x?tls-certificates=/" + String(repeating: "a", count: 4095), "path of a folder"),
        ("nbds://h/x?tls-verify-peer=maybe", "true or false"), ("nbds://h/x?tls-verify-peer", "true or false"),
        ("nbds://h/x?tls-hostname=10.0.0.1", "host's name"), ("nbds://h/x?tls-hostname=a/b", "host's name"),
        ("nbds://h/x?tls-verify-peer=0&tls-verify-peer=1", "twice"), ("nbds://h/x?tls-psk-file=/x", "is unknown"),
        ("nbd://h/x?tls-verify-peer=false", "'tls-…' is for nbds"),
        ("nbd+unix:///x?socket=/s&tls-hostname=h", "'tls-…' is for nbds"),
        ("nbd+unix:///x?socket=%00a", "abstract"), ("nbd+unix:///x?sockets=a", "'sockets' is unknown"),
        ("nbd+unix://h/x?socket=/s", "three slashes"),
        ("nbd+unix:///x?socket=/" + String(repeating: "s", count: 107), "more than 107 bytes"),
        ("nbd://h/" + String(repeating: "x", count: 4097), "more than 4096 bytes"),
        ("nbd://" + String(repeating: "h", count: 256), "no HOST"),
        ("nbd://h/" + String(repeating: "x", count: 20_000), "bytes"),
    ]

    @Test(arguments: refused)
    func `what is no address of NBD's is refused, and why is said`(text: String, why: String) {
        #expect {
            try VolumeAddress(text)
        } throws: { error in
            "\(error)".contains(why) && "\(error)".contains("nbd+unix:///[EXPORT]?socket=PATH")
        }
    }

    @Test func `the longest names are taken`() throws {
        let export = String(repeating: "%20", count: 4096)
        let socket = "/" + String(repeating: "s", count: 106)
        let address = try NBDAddress("nbd+unix:///\(export)?socket=\(socket)")
        #expect(address.export.utf8.count == 4096)
        #expect(try NBDAddress(address.text) == address)
    }

    @Test(arguments: ["nbd://u:secret@h/x", "nbd://h/x?secret=1", "nbd://h/x?tls-SECRET=secret", "nbd://secret@/"])
    func `no refusal tells what may be a secret`(text: String) {
        #expect {
            try VolumeAddress(text)
        } throws: { error in
            !"\(error)".contains("secret@") && !"\(error)".contains(":secret") && !"\(error)".contains("=secret")
        }
    }

    @Test(arguments: 1...300 as ClosedRange<UInt64>)
    func `any names come back from the text they were written as`(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let letters: [Unicode.Scalar] = [
            "a", "%", "/", "?", "#", "&", "=", " ", "é", "\u{301}", "☃", "\u{1}", "\n", "+", "@", ":",
        ]
        func name(_ least: Int) -> String {
            var name = ""
            for _ in 0..<Int.random(in: least...8, using: &random) {
                name.unicodeScalars.append(letters.randomElement(using: &random)!)
            }
            return name
        }
        let isUnderTLS = Bool.random(using: &random)
        let address = NBDAddress(
            server: .unix(path: name(1)), export: name(0),
            tls: isUnderTLS ? .init(certificates: name(1), verifiesServer: .random(using: &random)) : nil)
        let again = try NBDAddress(address.text)
        #expect(again == address, "seed \(seed): \(address.text)")
        #expect(again.export.utf8.elementsEqual(address.export.utf8), "seed \(seed)")
    }

    @Test(arguments: 1...300 as ClosedRange<UInt64>)
    func `any text at all is an address or is refused, and what is read can be written`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let parts = [
            "h", ":", "7", "/", "%", "2", "e", "[", "]", "::1", "?", "socket=", "&", "@", "=", "é", "\0", "#",
            "tls-hostname=",
        ]
        var text = ["nbd://", "nbds://", "nbd+unix://", "nbd+unix:///?socket=/s"].randomElement(using: &random)!
        for _ in 0..<Int.random(in: 0...10, using: &random) { text += parts.randomElement(using: &random)! }
        guard let address = try? NBDAddress(text) else { return }
        #expect((try? NBDAddress(address.text)) == address, "seed \(seed): \(text.debugDescription)")
    }
}
