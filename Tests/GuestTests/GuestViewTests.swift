import Foundation
import Testing
import Volumes

@testable import Guest

struct GuestViewTests {
    static let rbd: JSONValue = ["driver": "rbd", "pool": "fast", "image": "v", "conf": "/w.conf", "user": "qemu"]

    /// A node as QEMU tells of it.
    static func node(_ name: String, _ options: JSONValue, more: [String: JSONValue] = [:]) throws -> JSONValue {
        let filename = "json:" + String(decoding: try options.encoded(), as: UTF8.self)
        var info: [String: JSONValue] = [
            "node-name": .string(name), "drv": options["driver"] ?? .null, "ro": false, "detect_zeroes": "off",
            "cache": ["direct": true, "no-flush": false], "image": ["filename": .string(filename)],
        ]
        info.merge(more) { _, new in new }
        return .object(info)
    }

    static func view(
        _ disks: [JSONValue], others: [JSONValue] = [], source: String = "rbd:fast/v", target: String = "rbd:slow/v"
    ) throws -> GuestView {
        let (source, target) = (try RBDAddress(source), try RBDAddress(target))
        return GuestView(
            source: source, target: target, names: GuestView.Names(source: source, target: target),
            disks: disks.enumerated().compactMap {
                GuestDisk(["qdev": .string("/machine/peripheral/vd\($0)/virtio-backend"), "inserted": $1])
            },
            nodes: (disks + others).compactMap(BlockNode.init))
    }

    func refusal(_ view: GuestView) -> GuestView.Obstacle? {
        do throws(GuestView.Obstacle) {
            _ = try view.place()
            return nil
        } catch {
            return error
        }
    }

    func shape(_ view: GuestView) throws -> GuestView.Shape? {
        if case .atSource(_, let shape) = try view.place() { shape } else { nil }
    }

    @Test func `an image is found as the root, and under a raw root`() throws {
        let other = try Self.node("o", ["driver": "rbd", "pool": "fast", "image": "w"])
        let image = try Self.node("i", Self.rbd)
        let raw = try Self.node("r", ["driver": "raw", "file": Self.rbd])
        #expect(try shape(Self.view([other, image]))?.nodes.map(\.name) == ["i"])
        #expect(try shape(Self.view([other, raw], others: [image]))?.nodes.map(\.name) == ["r", "i"])
    }

    @Test func `what is no such disk is told of with what is there`() throws {
        let file = try Self.node("f", ["driver": "qcow2", "file": ["driver": "file", "filename": "/x"]])
        let snapshot = try Self.node("s", ["driver": "rbd", "pool": "fast", "image": "v", "snapshot": "monday"])
        let space = try Self.node("n", ["driver": "rbd", "pool": "fast", "namespace": "n", "image": "v"])
        let found = refusal(try Self.view([file, snapshot, space]))
        #expect(found?.kind == .missing)
        #expect(
            found?.reason
                == "the VM has no disk fast/v; it has vd0 (qcow2 over file), vd1 (rbd fast/v), vd2 (rbd fast/n/v)")
        #expect(refusal(try Self.view([]))?.reason == "the VM has no disk fast/v; it has none")
    }

    @Test(arguments: [
        (#"{"driver": "qcow2", "file": RBD}"#, "is qcow2 over rbd;"),
        (#"{"driver": "luks", "file": {"driver": "raw", "file": RBD}}"#, "is luks over raw over rbd;"),
        (#"{"driver": "raw", "offset": 512, "file": RBD}"#, "is raw over rbd with an offset or size;"),
        (#"{"driver": "raw", "file": {"driver": "throttle", "file": RBD}}"#, "is raw over throttle over rbd;"),
    ])
    func `another shape is refused by its name`(options: String, words: String) throws {
        let text = options.replacing("RBD", with: String(decoding: try Self.rbd.encoded(), as: UTF8.self))
        let root = try Self.node("r", JSONValue(parsing: Data(text.utf8)))
        let found = refusal(try Self.view([root], others: [Self.node("i", Self.rbd)]))
        #expect(found?.kind == .unsupported)
        #expect(found?.reason.contains(words) == true)
    }

    @Test func `a disk that is more than one, read-only or encrypted is refused`() throws {
        let image = try Self.node("i", Self.rbd)
        #expect(refusal(try Self.view([image, image]))?.reason.contains("more than one disk") == true)
        #expect(
            refusal(try Self.view([image], others: [Self.node("j", Self.rbd)]))?.reason.contains("as 2 nodes: i, j")
                == true)
        let readOnly = try Self.node("i", Self.rbd, more: ["ro": true])
        #expect(refusal(try Self.view([readOnly]))?.reason.contains("is read-only") == true)
        let encrypted = try Self.node(
            "i", Self.rbd,
            more: [
                "image": [
                    "filename": .string("json:" + String(decoding: try Self.rbd.encoded(), as: UTF8.self)),
                    "format-specific": ["type": "rbd", "data": ["encryption-format": "luks"]],
                ]
            ])
        #expect(refusal(try Self.view([encrypted]))?.reason.contains("librbd's encryption") == true)
    }

    @Test func `a disk at the target is known, also under another's name for it`() throws {
        let target = try Self.node("x", ["driver": "rbd", "pool": "slow", "image": "v"])
        guard case .atTarget = try Self.view([target]).place() else {
            Issue.record("not at the target")
            return
        }
        let both = try Self.view([target, Self.node("i", Self.rbd)])
        #expect(refusal(both)?.kind == .busy)
    }

    @Test func `images of one name in two clusters are told apart`() throws {
        func view(_ node: String, _ conf: String) throws -> GuestView {
            try Self.view(
                [Self.node(node, ["driver": "rbd", "pool": "fast", "image": "v", "conf": .string(conf)])],
                source: "rbd:fast/v", target: "rbd:fast/v:conf=/e.conf")
        }
        func isAtTarget(_ view: GuestView) throws -> Bool {
            if case .atTarget = try view.place() { true } else { false }
        }
        #expect(try !isAtTarget(view("i", "/w.conf")))
        #expect(try isAtTarget(view("i", "/e.conf")))
        let ours = try view("i", "/w.conf").names.image
        #expect(try isAtTarget(view(ours, "/w.conf")))
    }

    @Test func `the target's nodes are as the source's`() throws {
        let options: JSONValue = [
            "driver": "rbd", "pool": "fast", "image": "v", "user": "qemu", "server.0.host": "a", "server.0.port": "1",
            "server.1.host": "b", "server.1.port": "2",
        ]
        let raw = try Self.node(
            "r", ["driver": "raw", "file": options],
            more: ["detect_zeroes": "unmap", "cache": ["direct": false, "no-flush": true]])
        let view = try Self.view([raw], others: [Self.node("i", options)], target: "rbd:slow/n/v")
        let shape = try #require(try shape(view))
        let nodes = view.targetNodes(like: shape, objects: ["i-auth-secret0", "x"])
        #expect(
            nodes == [
                [
                    "driver": "rbd", "node-name": .string(view.names.image), "pool": "slow", "namespace": "n",
                    "image": "v",
                    "user": "qemu", "discard": "unmap", "cache": ["direct": true, "no-flush": false],
                    "detect-zeroes": "off", "key-secret": "i-auth-secret0",
                    "server": [["host": "a", "port": "1"], ["host": "b", "port": "2"]],
                ],
                [
                    "driver": "raw", "node-name": .string(view.names.root), "file": .string(view.names.image),
                    "discard": "unmap", "cache": ["direct": false, "no-flush": true], "detect-zeroes": "unmap",
                ],
            ])
    }

    @Test func `another cluster's target takes nothing but the user from the source`() throws {
        let image = try Self.node("i", Self.rbd)
        func target(_ address: String) throws -> [String: JSONValue] {
            let view = try Self.view([image], target: address)
            return view.targetNodes(like: try #require(try shape(view)), objects: ["i-auth-secret0"])[0]
        }
        let far = try target("rbd:slow/v:conf=/e.conf")
        #expect(far["conf"] == "/e.conf" && far["user"] == "qemu" && far["key-secret"] == nil)
        let other = try target("rbd:slow/v:id=me")
        #expect(other["conf"] == "/w.conf" && other["user"] == "me" && other["key-secret"] == nil)
        #expect(try target("rbd:slow/v")["key-secret"] == "i-auth-secret0")
    }

    @Test func `a name of a node is short enough for QEMU`() throws {
        let address = try RBDAddress("rbd:" + String(repeating: "p", count: 90) + "/v")
        let names = GuestView.Names(source: address, target: try RBDAddress("rbd:a/b"))
        for name in [names.image, names.root, names.probe, names.job, names.marker] { #expect(name.utf8.count <= 31) }
        #expect(GuestView.Names(source: try RBDAddress("rbd:a/b"), target: address) != names)
    }
}
