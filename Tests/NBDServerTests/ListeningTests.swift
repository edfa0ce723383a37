import Glibc
import NBDServer
import Sockets
import Testing
import Volumes

private func isThere(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }
private func remove(_ path: String) { _ = unsafe unlink(path) }

/// Where a server listens.
struct ListeningTests {
    @Test func `a socket is its user's alone, and gone after`() async throws {
        let site = try Site(try await TestDisk())
        try await site.serve { socket throws in
            var status = stat()
            #expect(unsafe lstat(socket, &status) == 0)
            #expect(status.st_mode & S_IFMT == S_IFSOCK && status.st_mode & 0o777 == 0o600)
        }
        #expect(!isThere(site.socket))
    }

    @Test func `a dead server's socket makes room, a living one's doesn't, nor does a file`() async throws {
        let site = try Site(try await TestDisk())
        close(try UnixSocket.listening(at: site.socket))
        try await site.serve { socket throws in
            let reply = try Client(socket).read(0..<1)
            #expect(reply.failure == nil)
        }
        let living = try UnixSocket.listening(at: site.socket)
        await #expect { try await site.serve { _ in } } throws: { ($0 as? VolumeError)?.kind == .exists }
        #expect(isThere(site.socket))
        close(living)
        remove(site.socket)
        close(unsafe open(site.socket, O_CREAT | O_WRONLY, 0o600))
        await #expect { try await site.serve { _ in } } throws: { ($0 as? VolumeError)?.kind == .exists }
        #expect(isThere(site.socket))
    }

    @Test func `another's socket of that name stays`() async throws {
        let site = try Site(try await TestDisk())
        let descriptor = try await site.serve { socket throws in
            remove(socket)
            return try UnixSocket.listening(at: socket)
        }
        #expect(isThere(site.socket))
        close(descriptor)
    }

    @Test func `a path that is too long is refused`() async throws {
        let site = try Site(try await TestDisk())
        let long = site.scratch.file(String(repeating: "a", count: 120))
        await #expect { try await site.server.serve(at: .unix(path: long)) { _ in } } throws: {
            ($0 as? VolumeError)?.kind == .unsupported
        }
    }

    @Test(arguments: ["127.0.0.1", "::1", "localhost"])
    func `TCP on loopback takes any free port, and tells it`(host: String) async throws {
        let site = try Site(try await TestDisk())
        let offers = try await site.server.serve(at: .tcp(host: host, port: 0)) { $0.offers }
        let shown = host == "::1" ? "[::1]" : host
        let port = try #require(offers[0].uri.wholeMatch(of: /nbd:\/\/.*:([0-9]+)\/disk/)?.1)
        #expect(offers[0].uri == "nbd://\(shown):\(port)/disk" && port != "0")
    }

    @Test(arguments: ["0.0.0.0", "", "::"])
    func `TCP beyond loopback wants TLS, or the risk taken`(host: String) async throws {
        let site = try Site(try await TestDisk())
        await #expect {
            try await site.server.serve(at: .tcp(host: host, port: 0)) { _ in }
        } throws: {
            let error = $0 as? VolumeError
            return error?.kind == .forbidden && error?.advice?.contains("--insecure") == true
        }
        let server = ExportServer(site.exports, isInsecureAllowed: true)
        #expect(try await server.serve(at: .tcp(host: host, port: 0)) { $0.offers.count } == 1)
    }

    @Test(
        arguments: [
            ("unix:/run/a b.sock", .unix(path: "/run/a b.sock"), "nbd+unix:///n%C3%A4me?socket=/run/a%20b.sock"),
            ("127.0.0.1:10809", .tcp(host: "127.0.0.1", port: 10809), "nbd://127.0.0.1:10809/n%C3%A4me"),
            ("[::1]:1", .tcp(host: "::1", port: 1), "nbd://[::1]:1/n%C3%A4me"),
            (":1", .tcp(host: "", port: 1), "nbd://localhost:1/n%C3%A4me"),
        ] as [(String, ListenAddress, String)])
    func `addresses are read, and URIs made of them`(text: String, address: ListenAddress, uri: String) throws {
        #expect(try ListenAddress(text) == address)
        #expect(address.uri(ofExport: "näme", port: nil) == uri)
    }

    @Test(arguments: ["", "unix:", "localhost", "localhost:", "localhost:70000", "::1:5", "[::1", "a/b:1", "unix:\0"])
    func `what is no address is refused`(text: String) {
        #expect(throws: ListenAddress.ParseError.self) { try ListenAddress(text) }
    }
}
