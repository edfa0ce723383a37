import Foundation
import NBDProtocol
import NBDServer
import Synchronization
import Testing
import Volumes

@testable import Credentials
@testable import NBDVolumes

/// A server of one disk in memory, for the time of a test.
struct Site: Sendable {
    /// What a server tells its operator.
    final class Notices: Sendable {
        private let all = Mutex<[String]>([])

        func add(_ notice: String) { all.withLock { $0.append(notice) } }

        /// Waits for one that says so.
        func expect(_ words: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
            for _ in 0..<4000 {
                if all.withLock({ $0.contains { $0.contains(words) } }) { return }
                try await Task.sleep(for: .milliseconds(5))
            }
            Issue.record("\(all.withLock { $0 })", sourceLocation: sourceLocation)
        }

        func expectNone(sourceLocation: SourceLocation = #_sourceLocation) {
            let found = all.withLock { $0 }
            #expect(found.isEmpty, sourceLocation: sourceLocation)
        }
    }

    static let size = ByteCount.mebibytes(16)

    let folder: Folder
    var credentials: ServerCredentials?
    var limits = ServerLimits()
    let notices = Notices()

    /// - Parameter certificates: Nothing for a server without TLS.
    init(_ certificates: Folder? = nil, verifiesClients: Bool = true) async throws {
        folder = try Folder()
        if let certificates {
            credentials = try await ServerCredentials.load(from: certificates.path, verifiesClients: verifiesClients)
        }
    }

    /// A server whose clients need a certificate by the shared CA.
    static func strict() async throws -> Site { try await Site(try Authority.shared.get().copy(of: "server")) }

    var socket: String { folder.file("s") }

    func serve(
        at address: ListenAddress? = nil, _ body: @escaping @Sendable (_ uri: String) async throws -> Void
    ) async throws {
        let place = MemoryVolume.Place()
        place.make(size: Self.size)
        let disk = try await MemoryVolume(at: place).attach(.head, isWritable: true)
        let server = ExportServer(
            [Export(name: "disk", disk: disk)], limits: limits, credentials: credentials, notice: notices.add)
        let result: Result<Void, any Error> = try await server.serve(at: address ?? .unix(path: socket)) { serving in
            do {
                return .success(try await body(serving.offers[0].uri))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// How a client reaches it.
    /// - Parameter folder: Of the client's certificates.
    func address(_ folder: Folder, _ change: (inout NBDAddress.TLS) -> Void = { _ in }) -> NBDAddress {
        var tls = NBDAddress.TLS(certificates: folder.path)
        change(&tls)
        return NBDAddress(server: .unix(path: socket), export: "disk", tls: tls)
    }
}

/// That a client gets in, and its bytes come through.
func expectUse(of address: NBDAddress, sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let export = try await NBDExport.connect(to: address)
    #expect(export.agreement.isUnderTLS == (address.tls != nil), sourceLocation: sourceLocation)
    // Each KiB of another byte than those around it; quick to make in a debug build.
    var bytes: [UInt8] = []
    for number in 0..<1024 { bytes += [UInt8](repeating: UInt8(truncatingIfNeeded: number &* 167), count: 1024) }
    let place = ByteOffset(4096)
    unsafe try await withIOBuffer(of: ByteCount(UInt64(bytes.count))) { buffer throws(VolumeError) in
        unsafe buffer.copyBytes(from: bytes)
        try await unsafe export.write(UnsafeRawBufferPointer(buffer), at: place)
        try await export.flush()
        _ = unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
        for _ in 0..<4 { try await unsafe export.read(into: buffer, at: place) }
        let isSame = unsafe buffer.elementsEqual(bytes)
        #expect(isSame, "other bytes came back", sourceLocation: sourceLocation)
    }
}

/// That a client doesn't get in, and is told why, and what to do.
func expectRefusal(
    _ kind: VolumeError.Kind, _ words: String, advice: String? = nil, of address: NBDAddress,
    patience: Patience = .standard, sourceLocation: SourceLocation = #_sourceLocation
) async {
    do {
        _ = try await NBDExport.connect(to: address, patience: patience)
        Issue.record("it got in", sourceLocation: sourceLocation)
    } catch {
        #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
        #expect(error.reason.contains(words), "\(error)", sourceLocation: sourceLocation)
        if let advice { #expect(error.advice?.contains(advice) == true, "\(error)", sourceLocation: sourceLocation) }
    }
}
