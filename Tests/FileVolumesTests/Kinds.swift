import Conformance
import FileVolumes
import Foundation
import Volumes

/// A directory that is gone with its last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        let place = FileManager.default.temporaryDirectory.appending(path: "godwit-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: false)
        path = place.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    var names: [String] { get throws { try FileManager.default.contentsOfDirectory(atPath: path).sorted() } }

    func make(_ name: String, _ bytes: [UInt8]) throws {
        try Data(bytes).write(to: URL(filePath: file(name)), options: .withoutOverwriting)
    }

    func bytes(of name: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(filePath: file(name)))) }
}

extension TargetKind {
    /// File systems' blocks are 4 KiB; some count the pages around as well.
    static let file = TargetKind(granule: .kibibytes(64), holdsSnapshots: false) { _ in
        let scratch = try Scratch()
        return TargetSite(
            target: { FileTarget(path: scratch.file("v")) }, plant: { try scratch.make("v", $0) },
            leftovers: { try scratch.names }, remove: {})
    }

    static func memory(
        holdsSnapshots: Bool = true, around wrap: @escaping @Sendable (MemoryVolume) -> any TargetVolume = { $0 }
    ) -> TargetKind {
        TargetKind(granule: .kibibytes(4), holdsSnapshots: holdsSnapshots) { name in
            let place = MemoryVolume.Place(holdsSnapshots: holdsSnapshots)
            return TargetSite(
                target: { wrap(MemoryVolume(at: place, address: "memory:\(name)")) },
                plant: { bytes in
                    place.make(size: ByteCount(UInt64(bytes.count)))
                    place.write(bytes, at: .zero)
                },
                leftovers: { place.names }, remove: {})
        }
    }
}

extension SourceKind {
    static let file = SourceKind(granule: .kibibytes(64), holdsSnapshots: false) { _, size in
        let scratch = try Scratch()
        try scratch.make("v", [])
        let path = scratch.file("v")
        guard unsafe truncate(path, Int(size.bytes)) == 0 else { throw POSIXError(.EIO) }
        @Sendable func change(_ body: (Int32) -> Int) throws {
            let file = unsafe open(path, O_RDWR | O_CLOEXEC)
            defer { close(file) }
            guard body(file) >= 0 else { throw POSIXError(.EIO) }
        }
        return SourceSite(
            source: { [scratch] in FileSource(path: scratch.file("v")) },
            write: { bytes, offset in
                try change { file in
                    unsafe bytes.withUnsafeBytes { unsafe pwrite(file, $0.baseAddress, $0.count, Int(offset.bytes)) }
                }
            },
            zero: { extent in
                try change { file in
                    Int(
                        fallocate(
                            file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, Int(extent.offset.bytes),
                            Int(extent.length.bytes)))
                }
            },
            resize: { size in try change { Int(ftruncate($0, Int(size.bytes))) } },
            takeSnapshot: { _ in }, remove: {})
    }

    static func memory(
        holdsSnapshots: Bool = true, around wrap: @escaping @Sendable (MemoryVolume) -> any SourceVolume = { $0 }
    ) -> SourceKind {
        SourceKind(granule: .kibibytes(4), holdsSnapshots: holdsSnapshots) { name, size in
            let place = MemoryVolume.Place(holdsSnapshots: holdsSnapshots)
            place.make(size: size)
            return SourceSite(
                source: { wrap(MemoryVolume(at: place, address: "memory:\(name)")) },
                write: { place.write($0, at: $1) }, zero: { place.zero($0) }, resize: { place.resize(to: $0) },
                takeSnapshot: { place.takeSnapshot($0) }, remove: {})
        }
    }
}

extension DiskKind {
    static let file = DiskKind(granule: .kibibytes(64), holdsSnapshots: false) { _, size in
        let scratch = try Scratch()
        try scratch.make("v", [])
        guard unsafe truncate(scratch.file("v"), Int(size.bytes)) == 0 else { throw POSIXError(.EIO) }
        return DiskSite(volume: { [scratch] in FileSource(path: scratch.file("v")) })
    }

    static let memory = DiskKind(granule: .kibibytes(4), holdsSnapshots: true) { name, size in
        let place = MemoryVolume.Place()
        place.make(size: size)
        return DiskSite(
            volume: { MemoryVolume(at: place, address: "memory:\(name)") },
            takeSnapshot: { place.takeSnapshot($0) })
    }
}

extension LiveSourceSite {
    static func memory() -> LiveSourceSite {
        let place = MemoryVolume.Place()
        place.make(size: .mebibytes(1))
        let writer = Writer(title: "a client", client: "1")
        return LiveSourceSite(
            source: { MemoryVolume(at: place, address: "memory:live") },
            attach: {
                place.attach(writer)
                return { place.detach(writer) }
            },
            limit: { place.limit.map { String($0.bytesPerSecond) } },
            setLimit: { limit in place.limit = limit.flatMap(UInt64.init).map { ByteRate(bytesPerSecond: $0) } },
            remove: {})
    }
}
