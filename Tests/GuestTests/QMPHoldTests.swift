import Foundation
import Testing
import Volumes

@testable import Guest

/// What no real VM does at a test's wish; the rest is in Tests/Machine.
struct QMPHoldTests {
    static let node = """
        {"node-name": "i", "drv": "rbd", "ro": false, "detect_zeroes": "off", "cache": {}, \
        "image": {"filename": "json:{\\"driver\\": \\"rbd\\", \\"pool\\": \\"fast\\", \\"image\\": \\"v\\"}"}}
        """

    /// A VM in a state, and what was asked of it.
    static func script(_ status: String, version: Int = 7, log: Log, hangs: String = "") -> FakeQMP.Script {
        FakeQMP.Script(atOnce: FakeQMP.greeting.replacing(#""major": 7"#, with: #""major": \#(version)"#)) {
            command, _ in
            log.add(command)
            if command == hangs { return [] }
            let value =
                switch command {
                case "query-status": #"{"status": "\#(status)", "running": \#(status == "running")}"#
                case "query-block": #"[{"device": "d", "inserted": \#(node)}]"#
                case "query-named-block-nodes": "[\(node)]"
                default: "[]"
                }
            return [#"{"return": \#(value), "id": ID}"#]
        }
    }

    final class Log: @unchecked Sendable {
        // Unchecked: every use is under the lock.
        private let lock = NSLock()
        private var commands: [String] = []
        func add(_ command: String) { lock.withLock { commands.append(command) } }
        var all: [String] { lock.withLock { commands } }
    }

    func hold(_ server: FakeQMP, limit: Duration = .seconds(30), target: String = "rbd:slow/v") throws -> QMPHold {
        QMPHold(
            socket: server.path, source: try RBDAddress("rbd:fast/v"), target: try RBDAddress(target), limit: limit)
    }

    @Test(arguments: [
        ("suspended", VolumeError.Kind.failed), ("inmigrate", .busy), ("finish-migrate", .busy), ("postmigrate", .busy),
        ("running", .failed),
    ])
    func `a VM that doesn't stand still after a stop isn't frozen`(status: String, kind: VolumeError.Kind) async throws
    {
        let log = Log()
        try await with(Self.script(status, log: log)) { server in
            let hold = try hold(server)
            let error = await #expect(throws: VolumeError.self) { try await hold.freeze() }
            #expect(error?.kind == kind)
            #expect(error?.operation == "freeze")
            #expect(error?.reason.contains(status) == true)
            #expect(log.all.contains("stop") == (status == "running"))
        }
    }

    @Test func `an old QEMU and a keyring are refused before anything is asked of the VM`() async throws {
        let log = Log()
        for (version, target) in [(5, "rbd:slow/v"), (7, "rbd:slow/v:keyring=/k")] {
            try await with(Self.script("running", version: version, log: log)) { server in
                let hold = try hold(server, target: target)
                let error = await #expect(throws: VolumeError.self) { try await hold.prepare() }
                #expect(error?.kind == .unsupported)
            }
        }
        #expect(Set(log.all) == ["qmp_capabilities"])
    }

    @Test func `a QEMU that stalls is given up in time, and named`() async throws {
        let log = Log()
        try await with(Self.script("running", log: log, hangs: "stop")) { server in
            let hold = try hold(server, limit: .seconds(15))
            let begin = ContinuousClock.now
            let error = await #expect(throws: VolumeError.self) { try await hold.freeze() }
            #expect(error?.kind == .unreachable)
            #expect(error?.object == "qmp:" + server.path)
            #expect(error?.reason == "stop: no answer came in time")
            #expect(ContinuousClock.now - begin < .seconds(60))
        }
    }

    @Test func `a VM that was paused before isn't asked to stop, nor to go on`() async throws {
        let log = Log()
        try await with(Self.script("paused", log: log)) { server in
            let hold = try hold(server)
            try await hold.freeze()
            try await hold.thaw()
            try await hold.adopt()
            try await hold.thaw()
        }
        #expect(Set(log.all).isDisjoint(with: ["stop", "cont", "object-add", "object-del"]))
    }
}
