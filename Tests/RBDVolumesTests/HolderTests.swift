import Foundation
import Glibc
import Testing

@testable import RBDVolumes

/// Whether the process that was at an unfinished target still lives.
struct HolderTests {
    /// This process's holder with some fields of its written form changed.
    private func changed(_ changes: [String: Any]) throws -> Holder {
        let written = try JSONEncoder().encode(Holder.own(client: "1.2.3.4:0/5"))
        var fields = try #require(try JSONSerialization.jsonObject(with: written) as? [String: Any])
        for (key, value) in changes {
            try #require(fields[key] != nil)
            fields[key] = value
        }
        return try JSONDecoder().decode(Holder.self, from: JSONSerialization.data(withJSONObject: fields))
    }

    @Test func `this process is alive, and says so after being written and read`() throws {
        let own = Holder.own(client: "1.2.3.4:0/5")
        #expect(own.life == .alive)
        #expect(own.process == getpid())
        #expect(own.started > 0 && !own.boot.isEmpty && !own.host.isEmpty)
        #expect(own == Holder.own(client: "1.2.3.4:0/5"))
        #expect(try JSONDecoder().decode(Holder.self, from: JSONEncoder().encode(own)) == own)
    }

    @Test func `a number that no process has is dead`() throws {
        // Above what the kernel gives out (proc(5), /proc/sys/kernel/pid_max: at most 2^22).
        #expect(try changed(["process": Int32.max]).life == .dead)
    }

    @Test func `a number that another process has now is dead`() throws {
        #expect(try changed(["started": Holder.own(client: "").started + 1]).life == .dead)
    }

    @Test func `of a process on a host that was started anew, or on another, nothing is known`() throws {
        #expect(try changed(["boot": "00000000-0000-0000-0000-000000000000"]).life == .unknown)
    }

    @Test func `of a process in another container on this host nothing is known`() throws {
        // It has the same boot, and process numbers of its own (pid_namespaces(7)).
        #expect(try changed(["namespace": "pid:[1]"]).life == .unknown)
    }

    @Test(arguments: [
        ("127.0.0.1:0/31", ["127.0.0.1:0/31"]), ("v1:127.0.0.1:0/31", ["127.0.0.1:0/31"]),
        ("[v2:10.0.0.1:0/7,v1:10.0.0.1:0/7]", ["10.0.0.1:0/7"]), ("[2001:db8::1]:0/7", ["[2001:db8::1]:0/7"]),
        ("[v2:[2001:db8::1]:0/7,v1:[2001:db8::1]:0/8]", ["[2001:db8::1]:0/7", "[2001:db8::1]:0/8"]), ("", []),
    ])
    func `a client is known by its plain addresses`(name: String, addresses: [String]) throws {
        #expect(plainAddresses(of: name) == Set(addresses))
        for address in addresses { #expect(try changed(["client": name]).has(address)) }
    }

    @Test func `a killed process is dead before and after its parent took notice`() throws {
        var child: pid_t = 0
        var arguments = unsafe [strdup("sleep"), strdup("1000"), nil]
        defer { unsafe arguments.forEach { unsafe free($0) } }
        let spawned = unsafe posix_spawn(&child, "/bin/sleep", nil, nil, &arguments, nil)
        try #require(spawned == 0)
        let stat = try String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8)
        let started = try #require(stat.split(separator: ")").last?.split(separator: " ").dropFirst(19).first)
        let holder = try changed(["process": child, "started": try #require(UInt64(started))])
        #expect(holder.life == .alive)

        kill(child, SIGKILL)
        var information = unsafe siginfo_t()
        // Waits for its end, and leaves it as it is.
        let waited = unsafe waitid(P_PID, id_t(child), &information, WEXITED | WNOWAIT)
        try #require(waited == 0)
        #expect(holder.life == .dead)
        let buried = waitpid(child, nil, 0)
        try #require(buried == child)
        #expect(holder.life == .dead)
    }
}
