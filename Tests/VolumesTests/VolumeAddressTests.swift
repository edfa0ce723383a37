import Conformance
import Testing
import Volumes

struct VolumeAddressTests {
    // MARK: Images

    struct Form: CustomTestStringConvertible {
        let text: String
        let pool: String
        var namespace = ""
        let image: String
        var snapshot: String?
        var configuration: String?
        var user: String?
        var keyring: String?
        var testDescription: String { text }
    }

    static let forms: [Form] = [
        Form(text: "rbd:fast/v", pool: "fast", image: "v"),
        Form(text: "rbd:fast/tenant/v", pool: "fast", namespace: "tenant", image: "v"),
        Form(text: "rbd:fast/v@monday", pool: "fast", image: "v", snapshot: "monday"),
        Form(text: "rbd:fast/tenant/v@monday", pool: "fast", namespace: "tenant", image: "v", snapshot: "monday"),
        Form(text: "rbd:fast/v:conf=/etc/west.conf", pool: "fast", image: "v", configuration: "/etc/west.conf"),
        Form(
            text: "rbd:fast/v:keyring=/k:id=mover:conf=c", pool: "fast", image: "v", configuration: "c", user: "mover",
            keyring: "/k"),
        Form(text: "rbd:fast/v:id=a:id=b", pool: "fast", image: "v", user: "b"),
        Form(text: "rbd:fast/v:conf=a=b", pool: "fast", image: "v", configuration: "a=b"),
        Form(text: "rbd:fast/v:conf=/a@b/c", pool: "fast", image: "v", configuration: "/a@b/c"),
        Form(text: #"rbd:fast/v:conf=/a\:b"#, pool: "fast", image: "v", configuration: "/a:b"),
        Form(text: #"rbd:fa\/st/v\@1\:2"#, pool: "fa/st", image: "v@1:2"),
        Form(text: #"rbd:fast/v@a\@b"#, pool: "fast", image: "v", snapshot: "a@b"),
        Form(text: #"rbd:fast/a\\b"#, pool: "fast", image: #"a\b"#),
        Form(text: #"rbd:fast/a\\:id=x"#, pool: "fast", image: #"a\"#, user: "x"),
        Form(text: #"rbd:fast/\v"#, pool: "fast", image: "v"),
        Form(text: "rbd:po@ol/v", pool: "po@ol", image: "v"),
        Form(text: "rbd:faßt/größe und ☃@Ω", pool: "faßt", image: "größe und ☃", snapshot: "Ω"),
        Form(text: "rbd:fast/ v ", pool: "fast", image: " v "),
    ]

    @Test(arguments: forms)
    func `an image's address is read as QEMU and rbd read it`(form: Form) throws {
        let address = try RBDAddress(form.text)
        #expect(address.pool == form.pool)
        #expect(address.namespace == form.namespace)
        #expect(address.image == form.image)
        #expect(address.snapshot == form.snapshot)
        #expect(address.configuration == form.configuration)
        #expect(address.user == form.user)
        #expect(address.keyring == form.keyring)
        #expect(try VolumeAddress(form.text) == .rbd(address))
        #expect(try RBDAddress(address.text) == address)
        let names = [form.pool, form.namespace, form.image].filter { !$0.isEmpty }
        #expect(address.spec == names.joined(separator: "/"))
    }

    static let refused: [(text: String, why: String)] = [
        ("rbd:", "a pool and an image"), ("rbd:fast", "a pool and an image"), ("rbd:a/b/c/d", "a pool and an image"),
        ("rbd:/v", "pool's name is empty"), ("rbd:fast/", "image's name is empty"),
        ("rbd:fast//v", "namespace's name is empty"), ("rbd:fast/@s", "image's name is empty"),
        ("rbd:fast/v@", "snapshot's name is empty"), ("rbd:fast/v@a@b", "more than one '@'"),
        ("rbd:fast/v\0", "NUL"), ("rbd:fast/v:conf", "is no KEY=VALUE"),
        ("rbd:fast/v:conf=", "is no KEY=VALUE"), ("rbd:fast/v:", "is no KEY=VALUE"),
        ("rbd:fast/v::id=x", "is no KEY=VALUE"), ("rbd:fast/v:pool=x", "'pool'"),
        ("rbd:fast/v:CONF=x", "unknown option"),
    ]

    @Test(arguments: refused)
    func `what is no image's address is refused, and why is said`(text: String, why: String) {
        #expect {
            try VolumeAddress(text)
        } throws: { error in
            let words = "\(error)"
            return words.contains(why) && words.contains("rbd:POOL/[NAMESPACE/]IMAGE")
        }
    }

    @Test(arguments: [
        "rbd:fast/v:key=AQBsecret", "rbd:fast/v:password=AQBsecret:id=x", "rbd:fast/v:id=x:key=AQBsecret:conf=",
        "rbd:fast/v@:key=AQBsecret", "rbd:fast:key=AQBsecret", #"rbd:fast/v:key=a\:AQBsecret"#,
        "rbd:fast/v:mon_host=h:key=AQBsecret", "rbd:fast/v\0:key=AQBsecret", "rbd:fast/v:AQBsecret",
        "rbd:fast/v:id=x:AQBsecret==",
    ])
    func `no refusal tells what may be a secret`(text: String) {
        #expect {
            try VolumeAddress(text)
        } throws: { error in
            !"\(error)".contains("AQBsecret")
        }
    }

    @Test(arguments: 1...400 as ClosedRange<UInt64>)
    func `any names come back from the text they were written as`(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        // Separators, the escape, and what Swift may join with its neighbour into one character.
        let letters: [Unicode.Scalar] = [
            "a", "b", ":", "/", "@", "\\", "=", " ", "é", "\u{301}", "☃", "\u{FE0F}", "\r", "\n",
        ]
        func name() -> String {
            var name = ""
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                name.unicodeScalars.append(letters.randomElement(using: &random)!)
            }
            return name
        }
        func maybe() -> String? { Bool.random(using: &random) ? name() : nil }
        var address = try RBDAddress("rbd:p/i")
        (address.pool, address.image) = (name(), name())
        (address.namespace, address.snapshot) = (maybe() ?? "", maybe())
        (address.configuration, address.user, address.keyring) = (maybe(), maybe(), maybe())
        let again = try RBDAddress(address.text)
        #expect(scalars(again) == scalars(address), "seed \(seed): \(address.text.debugDescription)")
        #expect(again.text == address.text, "seed \(seed)")
    }

    /// Swift takes strings for equal that Ceph tells apart.
    private func scalars(_ address: RBDAddress) -> [[UInt32]] {
        [
            address.pool, address.namespace, address.image, address.snapshot ?? "", address.configuration ?? "",
            address.user ?? "", address.keyring ?? "",
        ].map { $0.unicodeScalars.map(\.value) }
    }

    @Test(arguments: 1...300 as ClosedRange<UInt64>)
    func `any text at all is an address or is refused, and what is read can be written`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let parts = ["rbd:", "file:", "nbd:", "a", "/", "@", ":", "\\", "conf=", "id=", "=", "\0", "\u{301}", "é", " "]
        var text = ""
        for _ in 0..<Int.random(in: 0...12, using: &random) { text += parts.randomElement(using: &random)! }
        let rest = Bool.random(using: &random) ? "rbd:a/" + text : text
        guard case .rbd(let address) = try? VolumeAddress(rest) else { return }
        #expect((try? RBDAddress(address.text)) == address, "seed \(seed): \(rest.debugDescription)")
    }

    // MARK: Files

    @Test(arguments: [
        ("file:/a/b", "/a/b"), ("/a/b", "/a/b"), ("disk.img", "disk.img"), ("file:disk.img", "disk.img"),
        ("a:b", "a:b"), ("file:nbd:x", "nbd:x"), ("file:rbd:a/b", "rbd:a/b"), ("file:file:x", "file:x"),
        ("rbdx", "rbdx"), ("RBD:a/b", "RBD:a/b"), ("./nbd:x", "./nbd:x"), ("nbdx:1", "nbdx:1"), (" ", " "),
    ])
    func `whatever else is a file's path`(text: String, path: String) throws {
        #expect(try VolumeAddress(text) == .file(path: path))
    }

    @Test(arguments: ["", "file:", "a\0b", "file:\0"])
    func `no file has no name`(text: String) {
        #expect { try VolumeAddress(text) } throws: { "\($0)".contains("names no volume") }
    }

    @Test(arguments: [
        "nbd:unix:/s", "nbd:h:10809:exportname=x", "nbds:h", "nbd+unix:/x", "http://h/x", "https://h", "ssh://h/x",
        "iscsi://h",
    ])
    func `other kinds of volumes are refused, and not taken for files`(text: String) {
        #expect { try VolumeAddress(text) } throws: { error in
            let words = "\(error)"
            return words.contains("'\(text.prefix { $0 != ":" })'") && words.contains("file:\(text)")
        }
    }
}
