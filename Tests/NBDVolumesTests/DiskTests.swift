import Testing
import Volumes

@testable import NBDProtocol
@testable import NBDVolumes

/// An export as a disk: what its users ask for is what the server is asked.
struct DiskTests {
    private static let extent = Extent(offset: .zero, length: .mebibytes(1))

    private func server(_ flags: TransmissionFlags) async throws -> FakeServer {
        var script = FakeServer.Script()
        script.flags = flags
        return try await FakeServer([UInt8](repeating: 1, count: 1 << 20), script)
    }

    @Test func `each request is passed on as it is`() async throws {
        let server = try await server([.flush, .trim, .writeZeroes, .cache])
        let disk = try await NBDSource.connect(to: server.address).attach(.head, isWritable: true)
        #expect(disk.caches && disk.isWritable)
        try await disk.zero(Self.extent, keepsRoom: true)
        try await disk.zero(Self.extent, keepsRoom: false)
        try await disk.discard(Self.extent)
        try await disk.cache(Self.extent)
        try await disk.flush()
        #expect(
            server.requests.map(\.command) == [
                .writeZeroes(Self.extent, noHole: true, fast: false),
                .writeZeroes(Self.extent, noHole: false, fast: false), .trim(Self.extent), .cache(Self.extent), .flush,
            ])
        await server.close()
    }

    @Test func `what the server can't do, it isn't asked for`() async throws {
        let server = try await server([.flush])
        let disk = try await NBDSource.connect(to: server.address).attach(.head, isWritable: true)
        #expect(!disk.caches)
        try await disk.discard(Self.extent)
        try await disk.cache(Self.extent)
        #expect(server.requests.isEmpty)
        await server.close()
    }

    @Test(arguments: [[], [.flush, .readOnly]] as [TransmissionFlags])
    func `a server that can't flush, or be written, is only read`(flags: TransmissionFlags) async throws {
        let server = try await server(flags)
        let source = try await NBDSource.connect(to: server.address)
        await #expect {
            _ = try await source.attach(.head, isWritable: true)
        } throws: {
            let error = $0 as? VolumeError
            return error?.kind == (flags.isEmpty ? .unsupported : .forbidden)
                && error?.advice?.contains("--read-only") == true
        }
        let disk = try await source.attach(.head, isWritable: false)
        #expect(!disk.isWritable)
        try await disk.flush()
        #expect(server.requests.isEmpty)
        await server.close()
    }
}
