import Conformance
import Foundation
import NIOCore
import Synchronization
import Testing
import Volumes

@testable import NBDProtocol
@testable import NBDVolumes

struct ConformanceTests {
    @Test(arguments: TargetCheck.all.filter { !$0.needsRecord })
    func `an export as a target`(check: TargetCheck) async throws { try await check.run(.fake(FakeServer.Script())) }

    @Test(arguments: TargetCheck.all.filter { !$0.needsRecord })
    func `an export of large blocks, in short requests`(check: TargetCheck) async throws {
        var script = FakeServer.Script()
        script.flags.insert(.multiConn)
        script.blockSizes = BlockSizes(minimum: 4096, preferred: 4096, maximumPayload: 12_288)!
        try await check.run(.fake(script))
    }

    @Test(arguments: TargetCheck.all.filter { !$0.needsRecord })
    func `an export whose server can't make zeros, with simple replies`(check: TargetCheck) async throws {
        var script = FakeServer.Script()
        script.flags = [.flush]
        script.policy = ServerPolicy(tls: .off, offersExtendedHeaders: false)
        try await check.run(.fake(script))
    }

    @Test(arguments: DiskCheck.all)
    func `an export as a disk`(check: DiskCheck) async throws { try await check.run(.fake(FakeServer.Script())) }

    @Test(arguments: DiskCheck.all)
    func `an export of large blocks and several connections as a disk`(check: DiskCheck) async throws {
        var script = FakeServer.Script()
        script.flags.formUnion([.multiConn, .trim, .cache])
        script.blockSizes = BlockSizes(minimum: 4096, preferred: 4096, maximumPayload: 65_536)!
        try await check.run(.fake(script))
    }

    @Test(arguments: SourceCheck.all)
    func `an export as a source`(check: SourceCheck) async throws { try await check.run(.fake) }
}

extension TargetKind {
    /// Exports are there before a move: as large as the largest that a check makes.
    static func fake(_ script: FakeServer.Script) -> TargetKind {
        TargetKind(granule: .kibibytes(4), holdsSnapshots: false, holdsRecord: false) { _ in
            let server = try await FakeServer([UInt8](repeating: 0, count: 8 << 20), script)
            return TargetSite(
                target: { try await NBDTarget.connect(to: server.address, holding: .zeros) },
                plant: { bytes in server.bytes.withLock { $0 = bytes } }, leftovers: { ["the export"] },
                remove: { await server.close() })
        }
    }
}

extension DiskKind {
    static func fake(_ script: FakeServer.Script) -> DiskKind {
        DiskKind(granule: .kibibytes(4), holdsSnapshots: false) { _, size in
            let server = try await FakeServer([UInt8](repeating: 0, count: Int(size.bytes)), script)
            return DiskSite(
                volume: { try await NBDSource.connect(to: server.address) }, remove: { await server.close() })
        }
    }
}

extension SourceKind {
    static let fake = SourceKind(granule: .kibibytes(4), holdsSnapshots: false, noticesChanges: false) { _, size in
        let server = try await FakeServer([UInt8](repeating: 0, count: Int(size.bytes)))
        return SourceSite(
            source: { try await NBDSource.connect(to: server.address) },
            write: { bytes, offset in
                let start = Int(offset.bytes)
                server.bytes.withLock { $0.replaceSubrange(start..<start + bytes.count, with: bytes) }
            },
            zero: { extent in
                let range = Int(extent.offset.bytes)..<Int(extent.end.bytes)
                server.bytes.withLock { $0.fill(range, with: 0) }
            },
            resize: { _ in preconditionFailure("it wouldn't notice") }, takeSnapshot: { _ in },
            remove: { await server.close() })
    }
}
