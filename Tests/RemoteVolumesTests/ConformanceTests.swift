import Conformance
import Foundation
import RemoteVolumes
import Testing
import Volumes

/// What every target must do, done at a receiver.
struct ConformanceTests {
    @Test(arguments: TargetCheck.all)
    func `a volume in memory at a receiver`(check: TargetCheck) async throws {
        try await check.run(.remote(holdsSnapshots: true))
    }

    @Test(arguments: TargetCheck.all)
    func `one without snapshots, over a single connection and uncompressed`(check: TargetCheck) async throws {
        var options = RelayOptions()
        (options.connections, options.compress) = (1, .none)
        try await check.run(.remote(holdsSnapshots: false, options))
    }

    @Test(arguments: TargetCheck.all)
    func `a file at a receiver, over four connections and always compressed`(check: TargetCheck) async throws {
        var options = RelayOptions()
        (options.connections, options.compress, options.acceleration) = (4, .lz4, 8)
        try await check.run(.remoteFile(options))
    }
}

extension TargetKind {
    static func remote(holdsSnapshots: Bool, _ options: RelayOptions = RelayOptions()) -> TargetKind {
        TargetKind(granule: .kibibytes(4), holdsSnapshots: holdsSnapshots) { _ in
            let receiver = try Receiver(newPlace: { MemoryVolume.Place(holdsSnapshots: holdsSnapshots) })
            try await receiver.start()
            return TargetSite(
                target: { try await receiver.connect(options: options) },
                plant: { bytes in
                    receiver.place().make(size: ByteCount(UInt64(bytes.count)))
                    receiver.place().write(bytes, at: .zero)
                }, leftovers: { receiver.place().names }, remove: { try await receiver.stop() })
        }
    }

    static func remoteFile(_ options: RelayOptions) -> TargetKind {
        TargetKind(granule: .kibibytes(64), holdsSnapshots: false) { _ in
            let receiver = try Receiver()
            try await receiver.start()
            let path = receiver.scratch.file("v")
            return TargetSite(
                target: { try await receiver.connect("file:\(path)", options: options) },
                plant: { try Data($0).write(to: URL(filePath: path), options: .withoutOverwriting) },
                leftovers: {
                    try FileManager.default.contentsOfDirectory(atPath: receiver.scratch.path)
                        .filter { $0 != "receiver.sock" }
                }, remove: { try await receiver.stop() })
        }
    }
}
