import Foundation
import NBDServer
import Synchronization
import Testing
import Volumes

@testable import Credentials
@testable import NBDVolumes

/// Who gets in to whom, with both of our ends.
struct HandshakeTests {
    let authority: Authority
    let other: Authority

    init() throws { (authority, other) = (try Authority.shared.get(), try Authority.other.get()) }

    // MARK: Who belongs together

    @Test func `what is said under TLS comes through`() async throws {
        let site = try await Site.strict()
        let client = try authority.copy(of: "client")
        try await site.serve { uri in
            #expect(uri == "nbds+unix:///disk?socket=\(site.socket)")
            try await expectUse(of: site.address(client))
        }
        site.notices.expectNone()
    }

    @Test(arguments: ["localhost", "127.0.0.1"])
    func `a server is known by its host's name, or its address`(host: String) async throws {
        let site = try await Site.strict()
        let client = try authority.copy(of: "client")
        try await site.serve(at: .tcp(host: "127.0.0.1", port: 0)) { uri in
            var text = uri.replacing("127.0.0.1", with: host)
            #expect(text.hasPrefix("nbds://\(host):"))
            text += "?tls-certificates=\(client.path)"
            try await expectUse(of: try NBDAddress(text))
        }
    }

    @Test func `beyond loopback, TLS is all that is wanted`() async throws {
        let site = try await Site.strict()
        try await site.serve(at: .tcp(host: "0.0.0.0", port: 0)) { #expect($0.hasPrefix("nbds://0.0.0.0:")) }
    }

    @Test func `where clients aren't verified, none needs a certificate`() async throws {
        let site = try await Site(try authority.copy(of: "server"), verifiesClients: false)
        let client = try authority.copy()
        try await site.serve { _ in try await expectUse(of: site.address(client)) }
        site.notices.expectNone()
    }

    @Test func `a server that need not be verified may be anybody`() async throws {
        let site = try await Site(try other.copy(of: "server"), verifiesClients: false)
        let client = try authority.copy()
        try await site.serve { _ in
            try await expectUse(of: site.address(client) { ($0.verifiesServer, $0.hostname) = (false, "else.invalid") })
        }
    }

    @Test func `a server that ends lets go of who is there under TLS`() async throws {
        var site = try await Site.strict()
        // Longer than any machine takes for the rest.
        site.limits.grace = .seconds(300)
        let client = try authority.copy(of: "client")
        let kept = Mutex<NBDExport?>(nil)
        let start = ContinuousClock.now
        try await site.serve { [site] _ in
            let export = try await NBDExport.connect(to: site.address(client))
            kept.withLock { $0 = export }
        }
        #expect(ContinuousClock.now - start < site.limits.grace, "it waited for nothing")
        let held = kept.withLock { $0 }
        let export = try #require(held)
        await #expect(throws: VolumeError.self) { try await export.flush() }
        site.notices.expectNone()
    }

    // MARK: Who doesn't

    @Test func `a server by another CA isn't believed`() async throws {
        let site = try await Site(try other.copy(of: "server"), verifiesClients: false)
        let client = try authority.copy()
        try await site.serve { _ in
            await expectRefusal(
                .forbidden, "by no CA", advice: "ca-cert.pem of \(client.path)", of: site.address(client))
            try await site.notices.expect("it refused this end")
            let friend = try other.copy()
            try await expectUse(of: site.address(friend))
        }
    }

    @Test func `without a folder, the CAs of the host are believed, and no other`() async throws {
        let site = try await Site.strict()
        try await site.serve { _ in
            let credentials = try ClientCredentials(nil, verifiesServer: true)
            await #expect {
                _ = try await Connection.open(
                    NBDAddress(server: .unix(path: site.socket), export: "disk", tls: .init()),
                    tls: ClientTLS(credentials, "localhost"), contexts: [], limit: .seconds(20),
                    silence: .seconds(20))
            } throws: {
                guard let error = $0 as? VolumeError else { return false }
                return error.reason.contains("by no CA") && error.advice?.contains("tls-certificates=FOLDER") == true
            }
        }
    }

    @Test func `a server of another name isn't believed`() async throws {
        let site = try await Site.strict()
        let client = try authority.copy(of: "client")
        try await site.serve { _ in
            let address = site.address(client) { $0.hostname = "storage.example" }
            await expectRefusal(.forbidden, "another name", advice: "for storage.example", of: address)
            try await expectUse(of: site.address(client) { $0.hostname = "LOCALHOST" })
        }
    }

    @Test func `another address than the certificate's isn't believed`() async throws {
        let site = try await Site.strict()
        let client = try authority.copy(of: "client")
        try await site.serve(at: .tcp(host: "127.0.0.2", port: 0)) { uri in
            await expectRefusal(
                .forbidden, "another name", of: try NBDAddress(uri + "?tls-certificates=\(client.path)"))
        }
    }

    @Test func `a client by another CA isn't let in`() async throws {
        let site = try await Site.strict()
        let client = try other.copy(of: "client")
        try client.take("ca-cert.pem", from: authority.folder)
        let good = try authority.copy(of: "client")
        try await site.serve { _ in
            await expectRefusal(
                .forbidden, "refused", advice: "client-cert.pem of \(client.path)", of: site.address(client))
            try await site.notices.expect("by no CA")
            try await expectUse(of: site.address(good))
        }
    }

    @Test func `a client without a certificate isn't let in`() async throws {
        let site = try await Site.strict()
        let client = try authority.copy()
        try await site.serve { _ in
            await expectRefusal(
                .forbidden, "refused", advice: "put client-cert.pem and client-key.pem into \(client.path)",
                of: site.address(client))
            try await site.notices.expect("it has shown no certificate")
        }
    }

    @Test func `a server's certificate is no client's`() async throws {
        let site = try await Site.strict()
        let client = try authority.copy(of: "client")
        try client.take("server-cert.pem", from: authority.folder, as: "client-cert.pem")
        try client.take("server-key.pem", from: authority.folder, as: "client-key.pem")
        try await site.serve { _ in
            await expectRefusal(.forbidden, "refused", of: site.address(client))
            try await site.notices.expect("isn't made for this use")
        }
    }

    // MARK: Dates

    /// In which `-old` certificates were valid.
    private static let january = 1_579_000_000
    private static let old = ("20200101000000Z", "20200201000000Z")

    @Test func `a server whose certificate has expired isn't believed`() async throws {
        let authority = try Authority()
        try authority.certify("server", names: "DNS:localhost", dates: Self.old)
        let server = try authority.copy(of: "server")
        var site = try await Site()
        // As one that was started while it was valid.
        site.credentials = try ServerCredentials(
            CertificateFolder(server.path, now: Self.january), verifiesClients: false)
        let client = try authority.copy()
        try await site.serve { [site] _ in
            await expectRefusal(.forbidden, "expired on 2020-02-01", of: site.address(client))
        }
    }

    @Test func `a client whose certificate has expired isn't let in, nor tries`() async throws {
        let authority = try Authority()
        try authority.certify("client", dates: Self.old)
        let site = try await Site(try authority.copy(of: "server"))
        let client = try authority.copy(of: "client")
        try await site.serve { _ in
            await #expect {
                _ = try await NBDExport.connect(to: site.address(client))
            } throws: {
                guard let error = $0 as? VolumeError else { return false }
                return error.object == client.file("client-cert.pem") && error.reason.contains("2020-02-01")
            }
            site.notices.expectNone()
            let credentials = try ClientCredentials(
                CertificateFolder(client.path, now: Self.january), verifiesServer: false)
            await #expect(throws: VolumeError.self) {
                _ = try await Connection.open(
                    site.address(client), tls: ClientTLS(credentials, "localhost"), contexts: [],
                    limit: .seconds(20), silence: .seconds(20))
            }
            try await site.notices.expect("expired on 2020-02-01")
        }
    }

    // MARK: No way down

    @Test func `a client in clear is told how to come`() async throws {
        let site = try await Site.strict()
        try await site.serve { _ in
            let address = NBDAddress(server: .unix(path: site.socket), export: "disk")
            await expectRefusal(.forbidden, "demands TLS", advice: "nbds+unix://", of: address)
        }
    }

    @Test func `a server without TLS isn't used in clear`() async throws {
        let site = try await Site()
        let client = try authority.copy(of: "client")
        try await site.serve { _ in
            await expectRefusal(.unsupported, "refused TLS", advice: "in clear", of: site.address(client))
            try await expectUse(of: NBDAddress(server: .unix(path: site.socket), export: "disk"))
        }
    }
}
