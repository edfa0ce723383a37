import Testing
import Volumes

struct RBDScopeTests {
    @Test(
        arguments: [
            ("rbd:fast", "fast", []), ("rbd:fast/team", "fast", ["team"]), ("rbd:fast/team/v", "fast", ["team", "v"]),
            ("rbd:fast/team/", "fast", ["team", ""]), (#"rbd:fast/a\/b"#, "fast", ["a/b"]), ("rbd:", nil, []),
            (#"rbd:fast/a\@b"#, "fast", ["a@b"]),
        ] as [(String, String?, [String])])
    func `a pool, and what is in it`(text: String, pool: String?, names: [String]) throws {
        let scope = try RBDScope(text)
        #expect(scope.pool == pool)
        #expect(scope.names == names)
    }

    @Test func `how to reach the cluster`() throws {
        let scope = try RBDScope("rbd:fast/v:conf=/etc/ceph/west.conf:id=reader:keyring=/k")
        #expect(scope.names == ["v"])
        #expect(scope.access.configuration == "/etc/ceph/west.conf")
        #expect(scope.access.user == "reader")
        #expect(scope.access.keyring == "/k")
        #expect(try RBDScope("rbd::id=reader").pool == nil)
    }

    @Test(arguments: [
        "fast", "file:/x", "rbd:a/b/c/d", "rbd:a/b@c", "rbd:a//c", "rbd:a:conf", "rbd:a:what=1", "rbd:a\0",
    ])
    func `what is none is refused`(text: String) {
        #expect(throws: VolumeAddress.ParseError.self) { _ = try RBDScope(text) }
    }
}
