import NBDServer
import RelayServer
import RemoteVolumes
import Testing
import Volumes

@testable import Credentials

/// A receiver under TLS, and near sides that may and may not come in.
struct ReceiverTests {
    let authority: Authority
    let folder: Folder

    init() throws { (authority, folder) = (try Authority.shared.get(), try Folder()) }

    private func address(_ tls: NBDAddress.TLS?) -> RelayAddress {
        RelayAddress(server: .unix(path: folder.file("r")), target: "rbd:slow/v", tls: tls)
    }

    /// - Parameter certificates: Nothing for a receiver without TLS.
    private func receive(
        _ certificates: Folder?, _ body: @escaping @Sendable (Site.Notices) async throws -> Void
    ) async throws {
        var credentials: ServerCredentials?
        if let certificates { credentials = try await ServerCredentials.load(from: certificates.path) }
        let notices = Site.Notices()
        let place = MemoryVolume.Place()
        let server = try RelayServer([Allowance("rbd:slow")], credentials: credentials, notice: notices.add) {
            address, _ throws(VolumeError) in
            MemoryVolume(at: place, address: "\(address)")
        }
        let result: Result<Void, any Error> = try await server.serve(at: .unix(path: folder.file("r"))) { _ in
            do {
                return .success(try await body(notices))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private func expectRefusal(
        _ kind: VolumeError.Kind, _ words: String, _ tls: NBDAddress.TLS?,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async {
        await #expect(sourceLocation: sourceLocation) {
            _ = try await RemoteTarget.connect(to: address(tls))
        } throws: {
            guard let error = $0 as? VolumeError else { return false }
            return error.kind == kind && "\(error) \(error.advice ?? "")".contains(words)
        }
    }

    @Test func `a near side with a certificate is let in, over each of its connections`() async throws {
        let client = try authority.copy(of: "client")
        try await receive(try authority.copy(of: "server")) { _ in
            var options = RelayOptions()
            options.connections = 4
            let tls = NBDAddress.TLS(certificates: client.path)
            let target = try #require(try await RemoteTarget.connect(to: address(tls), options: options))
            #expect(target.connectionCount == 4)
            guard case .absent = try await target.state() else {
                Issue.record("\(try await target.state())")
                return
            }
        }
    }

    @Test func `one without is not`() async throws {
        let stranger = try Folder()
        try stranger.take("ca-cert.pem", from: try authority.copy(of: "client"))
        try await receive(try authority.copy(of: "server")) { notices in
            await expectRefusal(.forbidden, "client-cert.pem", NBDAddress.TLS(certificates: stranger.path))
            try await notices.expect("it has shown no certificate")
        }
    }

    @Test func `one in clear is told how to come`() async throws {
        try await receive(try authority.copy(of: "server")) { _ in
            await expectRefusal(.forbidden, "godwits+unix://", nil)
        }
    }

    @Test func `a receiver without TLS can't talk a near side down`() async throws {
        let client = try authority.copy(of: "client")
        try await receive(nil) { _ in
            await expectRefusal(.unsupported, "refused TLS", NBDAddress.TLS(certificates: client.path))
        }
    }

    @Test func `others than this host's users need TLS, or somebody who takes the risk`() async throws {
        let server = try RelayServer([Allowance("rbd:slow")]) { address, _ throws(VolumeError) in
            MemoryVolume(at: MemoryVolume.Place(), address: "\(address)")
        }
        await #expect {
            try await server.serve(at: .tcp(host: "0.0.0.0", port: 0)) { _ in }
        } throws: {
            ($0 as? VolumeError)?.kind == .forbidden
        }
    }
}
