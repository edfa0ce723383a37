import Foundation
import Testing
import Volumes

@testable import Guest

struct QMPConnectionTests {
    static let ok = #"{"return": {}, "id": ID}"#

    /// What comes of opening a connection and asking one thing over it.
    func ask(_ script: FakeQMP.Script, limit: Duration = .seconds(30)) async throws -> Result<JSONValue, VolumeError> {
        try await with(script) { server in
            do throws(VolumeError) {
                let connection = try await QMPConnection.open(path: server.path, limit: limit)
                let value = try await connection.execute("query-status")
                await connection.close()
                return .success(value)
            } catch {
                #expect(error.object == "qmp:" + server.path)
                return .failure(error)
            }
        }
    }

    func failure(_ script: FakeQMP.Script, limit: Duration = .seconds(30)) async throws -> VolumeError {
        switch try await ask(script, limit: limit) {
        case .success(let value): throw Unexpected(what: "\(value)")
        case .failure(let error): return error
        }
    }
    struct Unexpected: Error {
        let what: String
    }

    @Test func `an answer is what was returned`() async throws {
        let script = FakeQMP.Script { command, _ in
            command == "query-status"
                ? [#"{"return": {"running": true, "n": 1, "x": [1.5, null]}, "id": ID}"#] : [Self.ok]
        }
        #expect(try await ask(script).get() == ["running": true, "n": 1, "x": [.number(1.5), .null]])
    }

    @Test func `what another client was to be told is passed over`() async throws {
        // A client's numbers don't begin with the first: whoever came before may have used that as well.
        let others = [1, 2, 7].map { #"{"return": {"running": false}, "id": \#($0)}"# }
        let script = FakeQMP.Script { command, _ in
            others + (command == "query-status" ? [#"{"return": {"running": true}, "id": ID}"#] : [Self.ok])
        }
        #expect(try await ask(script).get() == ["running": true])
    }

    @Test func `events before an answer are kept, and found in any order`() async throws {
        let script = FakeQMP.Script { command, _ in
            command == "qmp_capabilities"
                ? [Self.ok]
                : [
                    #"{"event": "STOP"}"#, #"{"event": "A", "data": {"n": 1}}"#, #"{"event": "A", "data": {"n": 2}}"#,
                    Self.ok,
                ]
        }
        try await with(script) { server in
            let connection = try await QMPConnection.open(path: server.path, limit: .seconds(60))
            try await connection.execute("stop")
            #expect(try await connection.event("A") { $0.data["n"] == 2 }.data == ["n": 2])
            #expect(try await connection.event("STOP") { $0.name == "STOP" }.name == "STOP")
            #expect(try await connection.event("A") { $0.name == "A" }.data == ["n": 1])
            await connection.close()
        }
    }

    @Test func `an event that never comes ends the wait in time`() async throws {
        try await with(FakeQMP.Script()) { server in
            let connection = try await QMPConnection.open(path: server.path, limit: .seconds(60))
            let error = await #expect(throws: VolumeError.self) {
                try await connection.event("BLOCK_JOB_READY") { $0.name == "BLOCK_JOB_READY" }
            }
            #expect(error?.kind == .unreachable)
            #expect(error?.operation == "BLOCK_JOB_READY")
            // The rest of what is asked hears of it, too.
            await #expect(throws: VolumeError.self) { try await connection.execute("cont") }
        }
    }

    @Test func `a refusal is told in QEMU's words`() async throws {
        for (name, text, kind) in [
            ("GenericError", "error connecting: Permission denied", VolumeError.Kind.forbidden),
            ("GenericError", "error reading header from v: No such file or directory", .missing),
            ("CommandNotFound", "The command query-status has not been found", .unsupported),
            ("DeviceNotActive", "Block job 'j' not found", .missing), ("GenericError", "no", .failed),
        ] {
            let error = try await failure(
                FakeQMP.Script { command, _ in
                    command == "query-status"
                        ? [#"{"error": {"class": "\#(name)", "desc": "\#(text)"}, "id": ID}"#] : [Self.ok]
                })
            #expect((error.kind, error.operation, error.reason) == (kind, "query-status", text))
        }
    }

    @Test(arguments: [
        "HTTP/1.1 400 Bad Request", "{", "[]", "3", #"{"return": {}}"#,
        #"{"QMP": {}, "id""#,
        #"{"error": {"class": "GenericError", "desc": "Invalid JSON syntax"}}"#, "\u{0}\u{1}\u{2}",
    ])
    func `junk ends the connection`(junk: String) async throws {
        let first = try await failure(FakeQMP.Script(atOnce: junk))
        #expect(first.kind == .damaged)
        #expect(first.operation == "connect")
        #expect(first.advice?.contains("must be a QMP monitor") == true)
        let later = try await failure(FakeQMP.Script { command, _ in command == "query-status" ? [junk] : [Self.ok] })
        #expect(later.kind == .damaged)
        #expect(later.operation == "query-status")
    }

    @Test func `a line without an end is not read for ever`() async throws {
        let long = String(
            decoding: [UInt8](repeating: UInt8(ascii: "x"), count: QMPSession.mostBytes + 1), as: UTF8.self)
        let error = try await failure(FakeQMP.Script(atOnce: "{\"" + long))
        #expect(error.kind == .damaged)
        #expect(error.reason == "sent a line of more than 16 MiB")
    }

    @Test func `a peer that says nothing is given up in time`() async throws {
        let begin = ContinuousClock.now
        let silent = try await failure(FakeQMP.Script(atOnce: nil), limit: .milliseconds(300))
        #expect(silent.kind == .unreachable)
        #expect(silent.reason == "no greeting came in time")
        #expect(silent.advice?.contains("one client at a time") == true)
        let stalled = try await failure(
            FakeQMP.Script { command, _ in command == "query-status" ? [] : [Self.ok] }, limit: .seconds(15))
        #expect(stalled.reason == "no answer came in time")
        #expect(stalled.operation == "query-status")
        #expect(ContinuousClock.now - begin < .seconds(60))
    }

    @Test func `a peer that goes away is told of`() async throws {
        let error = try await failure(FakeQMP.Script { command, _ in command == "query-status" ? nil : [Self.ok] })
        #expect(error.kind == .unreachable)
        #expect(error.reason == "QEMU closed the connection")
        #expect(error.operation == "query-status")
    }

    @Test func `a socket that isn't there, or that nobody serves, is told of`() async throws {
        let server = try await FakeQMP()
        let path = server.path
        try await server.close()
        for (path, kind) in [("/nonexistent/qmp", VolumeError.Kind.missing), (path, .missing), ("/", .unreachable)] {
            let error = await #expect(throws: VolumeError.self) {
                try await QMPConnection.open(path: path, limit: .seconds(15))
            }
            #expect(error?.operation == "connect")
            if path != "/" { #expect(error?.kind == kind) }
            #expect(error?.advice != nil)
        }
    }

    @Test func `a cancelled task still gets its answer`() async throws {
        let answer = try await with(FakeQMP.Script()) { server in
            // Owned: its value is awaited here.
            try await Task {
                unsafe withUnsafeCurrentTask { unsafe $0?.cancel() }
                let connection = try await QMPConnection.open(path: server.path, limit: .seconds(30))
                return try await connection.execute("cont")
            }.value
        }
        #expect(answer == [:])
    }

    @Test func `what is kept of events has a bound`() async throws {
        let flood = (0..<(QMPHandler.mostEvents + 50)).map { #"{"event": "E", "data": {"n": \#($0)}}"# }
        let script = FakeQMP.Script { command, _ in command == "qmp_capabilities" ? [Self.ok] : flood + [Self.ok] }
        try await with(script) { server in
            let connection = try await QMPConnection.open(path: server.path, limit: .seconds(60))
            try await connection.execute("stop")
            #expect(try await connection.event("E") { $0.name == "E" }.data == ["n": 50])
        }
    }
}
