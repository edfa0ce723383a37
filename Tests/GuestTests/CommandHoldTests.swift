import Cutover
import Foundation
import Testing
import Volumes

@testable import Guest

/// Against /bin/sh itself.
struct CommandHoldTests {
    func hold(_ command: String, limit: Duration = .seconds(20)) -> CommandHold {
        CommandHold(command: command, source: "rbd:fast/v", target: "rbd:slow/v w", limit: limit)
    }

    /// Writes a script, and removes it afterwards.
    func script<Result>(_ text: String, mode: Int = 0o755, _ body: (String) async throws -> Result) async throws
        -> Result
    {
        let path = NSTemporaryDirectory() + "godwit-hook-\(UInt64.random(in: 0...(.max)))"
        #expect(
            FileManager.default.createFile(
                atPath: path, contents: Data(text.utf8), attributes: [.posixPermissions: mode]))
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try await body(path)
    }

    func failure(_ command: String, limit: Duration = .seconds(20)) async -> VolumeError? {
        let hold = hold(command, limit: limit)
        let error = await #expect(throws: VolumeError.self) { try await hold.freeze() }
        #expect(error?.operation == "freeze")
        #expect(error?.object == "exec:" + command)
        return error
    }

    @Test func `the command is told what to do, and with what`() async throws {
        let text = """
            #!/bin/sh
            printf '%s|' "$0" "$@" "$GODWIT_SOURCE" "$GODWIT_TARGET" >> "$0.out"
            readlink /proc/self/fd/0 >> "$0.out"
            """
        try await script(text) { path in
            let hold = hold(path + " 'a b'")
            try await hold.prepare()
            try await hold.adopt()
            try await hold.freeze()
            try await hold.switchOver()
            try await hold.thaw()
            let said = try String(contentsOfFile: path + ".out", encoding: .utf8)
            try FileManager.default.removeItem(atPath: path + ".out")
            let rest = "rbd:fast/v|rbd:slow/v w|/dev/null\n"
            #expect(
                said == "\(path)|a b|freeze|\(rest)\(path)|a b|switch|rbd:slow/v w|\(rest)\(path)|a b|thaw|\(rest)")
            #expect(hold.clientsAtSource == 0)
            #expect(hold.title == "exec:\(path) 'a b'")
        }
    }

    @Test func `a failure is told with the last that it said`() async throws {
        let error = await failure(
            "for i in 1 2 3 4 5 6 7; do echo out $i; done; printf 'no \\033[31msuch VM\\n' >&2; exit 3; :")
        #expect(error?.kind == .failed)
        #expect(
            error?.reason
                == "the command ended with exit status 3; it said:\n    out 4\n    out 5\n    out 6\n    out 7\n    no [31msuch VM"
        )
    }

    @Test func `a command that isn't found is told of`() async throws {
        let missing = await failure("godwit-has-no-such-command")
        #expect(missing?.kind == .missing)
        #expect(missing?.reason.contains("127") == true)
        #expect(missing?.advice?.contains("PATH") == true)
        try await script("#!/no/such/interpreter\n", mode: 0o644) { path in
            let forbidden = await failure(path)
            #expect(forbidden?.kind == .forbidden)
            #expect(forbidden?.reason.contains("126") == true)
        }
    }

    @Test func `what can be known before is refused in prepare`() async throws {
        for (command, kind) in [
            ("/no/such/hook --x", VolumeError.Kind.missing), ("/tmp", .forbidden), ("", .missing), (" \t", .missing),
        ] {
            let error = await #expect(throws: VolumeError.self) { try await hold(command).prepare() }
            #expect(error?.kind == kind)
            #expect(error?.operation == "prepare")
        }
        for command in ["hook of mine", "'/a b/hook'", "$HOME/hook", "/bin/sh -c true", "cd /tmp && ./hook"] {
            try await hold(command).prepare()
        }
    }

    @Test func `a signal is named`() async throws {
        #expect(await failure("kill -KILL $$; :")?.reason == "the command was ended by SIGKILL")
        #expect(await failure("kill -34 $$; :")?.reason == "the command was ended by signal 34")
    }

    @Test func `a command that hangs is ended in time, with what it has started`() async throws {
        let begin = ContinuousClock.now
        let name = "37\(Int.random(in: 1_000_000...9_999_999))"
        let error = await failure("echo waiting; sleep \(name) & sleep \(name); :", limit: .milliseconds(300))
        #expect(error?.kind == .unreachable)
        #expect(error?.reason == "the command had not ended after 300 ms, and was killed; it said:\n    waiting")
        #expect(ContinuousClock.now - begin < .seconds(5))
        #expect(Self.processes(with: name) == [])
    }

    @Test func `a command that ignores SIGTERM is killed`() async throws {
        let begin = ContinuousClock.now
        let name = "38\(Int.random(in: 1_000_000...9_999_999))"
        let error = await failure(
            "trap '' TERM; echo deaf; (sleep \(name); :) & while :; do sleep \(name); done; :",
            limit: .milliseconds(300))
        #expect(error?.kind == .unreachable)
        let took = ContinuousClock.now - begin
        #expect(took >= Hook.grace && took < .seconds(8))
        #expect(Self.processes(with: name) == [])
    }

    @Test func `a command that ends on SIGTERM has its time to put things right`() async throws {
        try await script("#!/bin/sh\ntrap 'sleep 0.3; echo done > \"$0.out\"; exit 0' TERM\nsleep 30 & wait\n") {
            path in
            let error = await failure(path, limit: .milliseconds(300))
            #expect(error?.kind == .unreachable)
            #expect(FileManager.default.fileExists(atPath: path + ".out"))
            try FileManager.default.removeItem(atPath: path + ".out")
        }
    }

    @Test func `a child that stays behind with the pipes open is not waited for`() async throws {
        let begin = ContinuousClock.now
        let name = "39\(Int.random(in: 1_000_000...9_999_999))"
        // What it leaves behind on purpose, a VM perhaps, stays.
        try await hold("echo started; sleep \(name) & :").freeze()
        #expect(ContinuousClock.now - begin < .seconds(5))
        let left = Self.processes(with: name)
        #expect(left.count == 1)
        for pid in left { kill(pid, SIGKILL) }
    }

    @Test func `a flood of output is read to its end, and little of it is kept`() async throws {
        let error = await failure("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last >&2; exit 1; :")
        let lines = error?.reason.split(separator: "\n") ?? []
        #expect(lines.last == "    last")
        #expect((error?.reason.utf8.count ?? .max) < 2000)
    }

    @Test func `a cancelled task still runs its command`() async throws {
        // Owned: its value is awaited here.
        try await Task {
            unsafe withUnsafeCurrentTask { unsafe $0?.cancel() }
            try await hold("sleep 0.2; :").thaw()
        }.value
    }

    /// Those that have a word in their command line.
    static func processes(with word: String) -> [pid_t] {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return all.compactMap(pid_t.init).filter { pid in
            guard let words = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") else { return false }
            return words.split(separator: 0).contains { $0.elementsEqual(word.utf8) }
        }
    }
}
