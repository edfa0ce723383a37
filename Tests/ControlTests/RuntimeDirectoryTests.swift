import Foundation
import Glibc
import Sockets
import Testing
import Volumes

@testable import Control

/// Where moves listen, and who else may be there.
struct RuntimeDirectoryTests {
    @Test(
        arguments: [
            (["GODWIT_RUNTIME_DIR": "/a/b//", "XDG_RUNTIME_DIR": "/x"], 0, ["/a/b"]),
            (
                ["GODWIT_RUNTIME_DIR": "", "XDG_RUNTIME_DIR": "/run/user/7"], 7,
                ["/run/user/7/godwit", "/tmp/godwit-7"]
            ),
            (["XDG_RUNTIME_DIR": "run"], 7, ["/tmp/godwit-7"]), ([:], 7, ["/tmp/godwit-7"]), ([:], 0, ["/run/godwit"]),
            (["XDG_RUNTIME_DIR": "/run/user/0"], 0, ["/run/godwit"]),
        ] as [([String: String], UInt32, [String])])
    func `the environment and the user say where`(environment: [String: String], user: UInt32, paths: [String]) {
        let all = RuntimeDirectory.allMoves(environment: environment, user: user)
        #expect(all.map(\.path) == paths)
        #expect(RuntimeDirectory.ownMoves(environment: environment, user: user) == all[0])
    }

    /// What a server and a client say of the directory.
    private func refusal(of directory: RuntimeDirectory) async throws -> String {
        var reasons: [String] = []
        let value = await ControlServer(in: directory, control: FakeMove()).serve(unheard: { reasons.append($0.reason) }
        ) { 7 }
        #expect(value == 7)
        let error = await #expect(throws: ControlError.self) {
            try await ControlClient(in: [directory]).give(.pause, to: nil)
        }
        #expect(error?.kind == .unanswered)
        #expect(error?.lines.joined().contains(try #require(reasons.first)) == true)
        #expect(error?.advice != nil || reasons[0].contains("absolute"))
        return reasons[0]
    }

    @Test func `a directory that isn't this user's alone is refused`() async throws {
        let site = Site()
        let path = site.directory.path
        try site.directory.make()

        unsafe chmod(path, 0o770)
        #expect(try await refusal(of: site.directory) == "others may write to it")
        unsafe chmod(path, 0o700)

        let link = RuntimeDirectory(path: path + "/link/")
        unsafe symlink(path, path + "/link")
        #expect(try await refusal(of: link) == "it is a symbolic link")

        let file = RuntimeDirectory(path: path + "/file")
        try Data().write(to: URL(filePath: file.path))
        #expect(try await refusal(of: file) == "it is no directory")

        var foreign = RuntimeDirectory(path: "/usr")
        if geteuid() == 0 {
            foreign = RuntimeDirectory(path: path + "/foreign")
            try foreign.make()
            unsafe chown(foreign.path, 65534, 65534)
        }
        #expect(try await refusal(of: foreign).hasPrefix("it belongs to another user (uid "))

        #expect(try await refusal(of: RuntimeDirectory(path: "here")) == "its path is not absolute")
    }

    @Test func `a place that is refused doesn't hide the moves of another`() async throws {
        let site = Site()
        try await site.serving {
            let client = ControlClient(in: [RuntimeDirectory(path: "/dev/null"), site.directory])
            let answer = try await client.give(.pause, to: nil).answer
            #expect(answer == "noted")
            #expect(await client.moves().problems.count == 1)
        }
    }

    /// A socket that nobody listens on any more.
    private func leaveSocket(_ name: String, in site: Site) throws {
        close(try UnixSocket.listening(at: site.directory.path + "/" + name))
    }

    @Test func `sockets of the dead are removed, by clients and by moves`() async throws {
        let site = Site()
        try site.directory.make()
        let dead = ["99999999.sock", "99999999-2.sock", ".99999999-word.sock"]
        for name in dead { try leaveSocket(name, in: site) }
        #expect(await site.client().moves().isEmpty)
        #expect(site.names.isEmpty)

        for name in dead + ["\(getpid()).sock"] { try leaveSocket(name, in: site) }
        try await site.serving {
            #expect(site.names == ["\(getpid()).sock"])
            #expect(await site.client().moves().answering.count == 1)
        }
    }

    @Test func `what isn't a dead socket is left alone`() async throws {
        let site = Site()
        try site.directory.make()
        // The last is about to listen, as far as anybody can tell.
        let names = ["1.sock", "a.sock", "b.txt", ".\(getpid())-word.sock"].sorted()
        try Data("mine".utf8).write(to: URL(filePath: site.directory.path + "/1.sock"))
        try leaveSocket("a.sock", in: site)
        try Data().write(to: URL(filePath: site.directory.path + "/b.txt"))
        try leaveSocket(".\(getpid())-word.sock", in: site)
        #expect(await site.client().moves().isEmpty)
        try await site.serving {}
        #expect(site.names == names)
    }

    @Test func `a move that ends leaves alone what has come to stand in its place`() async throws {
        let site = Site()
        try await site.serving {
            unsafe unlink(site.ownSocket)
            try Data().write(to: URL(filePath: site.ownSocket))
        }
        #expect(site.names == ["\(getpid()).sock"])
    }
}
