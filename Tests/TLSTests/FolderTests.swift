import Foundation
import Glibc
import Testing
import Volumes

@testable import Credentials

/// What a folder of certificates has to be.
struct FolderTests {
    private func expectRefusal(
        of folder: Folder, _ kind: VolumeError.Kind, _ name: String, _ words: String, verifiesClients: Bool = true,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async {
        do {
            _ = try await ServerCredentials.load(from: folder.path, verifiesClients: verifiesClients)
            Issue.record("it was taken", sourceLocation: sourceLocation)
        } catch {
            #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
            #expect(error.object == folder.file(name), "\(error)", sourceLocation: sourceLocation)
            #expect("\(error)".contains(words), "\(error)", sourceLocation: sourceLocation)
            #expect(error.advice != nil, "\(error)", sourceLocation: sourceLocation)
        }
    }

    private func server() throws -> Folder { try Authority.shared.get().copy(of: "server") }

    @Test(arguments: ["ca-cert.pem", "server-cert.pem", "server-key.pem"])
    func `a file that is missing is named`(name: String) async throws {
        let folder = try server()
        try folder.remove(name)
        await expectRefusal(of: folder, .missing, name, "no such file")
        if name == "ca-cert.pem" { _ = try await ServerCredentials.load(from: folder.path, verifiesClients: false) }
    }

    @Test func `both of the server's files may be missing, and the folder`() async throws {
        let folder = try Authority.shared.get().copy()
        await expectRefusal(of: folder, .missing, "server-cert.pem", "Operations.md")
        await #expect {
            _ = try await ServerCredentials.load(from: folder.file("none"))
        } throws: { "\($0)".contains("no such folder") && "\($0)".contains("server-key.pem") }
    }

    @Test(arguments: [0o604, 0o602, 0o644, 0o601])
    func `a key that others can get at isn't used`(mode: Int) async throws {
        let folder = try server()
        try folder.setMode(mode, of: "server-key.pem")
        await expectRefusal(of: folder, .forbidden, "server-key.pem", "chmod o= ")
        for mode in [0o600, 0o640, 0o400] {
            try folder.setMode(mode, of: "server-key.pem")
            _ = try await ServerCredentials.load(from: folder.path)
        }
    }

    @Test func `a certificate that isn't valid now is told, with its date`() async throws {
        let authority = try Authority()
        try authority.certify("server", dates: ("20200101000000Z", "20200201000000Z"))
        let folder = try authority.copy(of: "server")
        await expectRefusal(of: folder, .damaged, "server-cert.pem", "expired on 2020-02-01")
        #expect {
            _ = try ServerCredentials(CertificateFolder(folder.path, now: 1_577_000_000), verifiesClients: true)
        } throws: { "\($0)".contains("isn't valid before 2020-01-01") && "\($0)".contains("clock") }
        #expect {
            _ = try ServerCredentials(CertificateFolder(folder.path, now: 1_579_000_000), verifiesClients: true)
        } throws: { ($0 as? VolumeError)?.object == folder.file("ca-cert.pem") }
    }

    @Test func `a key of another certificate is told`() async throws {
        let folder = try server()
        try folder.take("client-key.pem", from: Authority.shared.get().folder, as: "server-key.pem")
        await expectRefusal(of: folder, .damaged, "server-key.pem", "isn't the key of server-cert.pem")
    }

    @Test(arguments: ["ca-cert.pem", "server-cert.pem", "server-key.pem"])
    func `what is no PEM is told`(name: String) async throws {
        let folder = try server()
        for text in ["junk", "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n"] {
            try folder.write(text, to: name)
            await expectRefusal(of: folder, .damaged, name, "openssl")
        }
        for text in ["", String(repeating: "x", count: 1 << 20 + 1)] {
            try folder.write(text, to: name)
            await #expect {
                _ = try await ServerCredentials.load(from: folder.path)
            } throws: { "\($0)".contains(folder.file(name)) && "\($0)".contains("1048576 bytes") }
        }
    }

    @Test func `a key under a passphrase is told, and nobody is asked for it`() async throws {
        let folder = try server()
        try folder.write(
            """
            -----BEGIN ENCRYPTED PRIVATE KEY-----
            MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjfCmEmqhjVeQICCAAw
            -----END ENCRYPTED PRIVATE KEY-----
            """, to: "server-key.pem")
        await expectRefusal(of: folder, .damaged, "server-key.pem", "passphrase")
    }

    @Test func `what stands where a file should doesn't hold anybody up`() async throws {
        let folder = try server()
        try folder.remove("server-key.pem")
        #expect(unsafe mkfifo(folder.file("server-key.pem"), 0o600) == 0)
        await #expect {
            _ = try await ServerCredentials.load(from: folder.path)
        } throws: { "\($0)".contains("it is no file") }
    }

    @Test func `a list of revoked certificates isn't passed over`() async throws {
        let folder = try server()
        try folder.write("anything", to: "ca-crl.pem")
        await expectRefusal(of: folder, .unsupported, "ca-crl.pem", "revoked")
        await #expect {
            _ = try await ClientCredentials.load(from: folder.path)
        } throws: { ($0 as? VolumeError)?.kind == .unsupported }
    }

    @Test(arguments: ["client-cert.pem", "client-key.pem", "ca-cert.pem"])
    func `of a client's files the certificate and its key may be missing, but not one of them`(name: String)
        async throws
    {
        let folder = try Authority.shared.get().copy(of: "client")
        try folder.remove(name)
        await #expect {
            _ = try await ClientCredentials.load(from: folder.path)
        } throws: { ($0 as? VolumeError)?.object == folder.file(name) }
        let bare = try Authority.shared.get().copy()
        _ = try await ClientCredentials.load(from: bare.path)
    }

    @Test func `without a folder, libnbd's are looked for`() {
        #expect(
            ClientCredentials.usualFolders(home: "/h", isRoot: false) == ["/h/.pki/libnbd", "/h/.config/pki/libnbd"])
        #expect(ClientCredentials.usualFolders(home: "/h", isRoot: true) == ["/etc/pki/libnbd"])
        #expect(ClientCredentials.usualFolders(home: nil, isRoot: false) == [])
    }

    @Test(arguments: [
        (0, "1970-01-01"), (-1, "1969-12-31"), (951_782_399, "2000-02-28"), (951_782_400, "2000-02-29"),
        (1_735_603_200, "2024-12-31"), (4_102_444_799, "2099-12-31"), (4_107_542_400, "2100-03-01"),
    ])
    func `days are written as ISO 8601 has them`(seconds: Int, text: String) { #expect(day(seconds) == text) }
}
