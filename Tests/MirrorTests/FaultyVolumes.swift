import Conformance
import Synchronization
import Volumes

/// What a volume can do wrong without saying so.
enum PlantedFault: CaseIterable, Sendable {
    case dropsAWrite
    case forgetsToMakeAHole
    case forgetsASnapshot
    case forgetsToFlush
    case missesAnExtent
    case overlooksAWriter
}

/// A target that does one thing wrong.
final class FaultyTarget: TargetWrapper {
    var inner: any TargetVolume { volume }
    private let volume: MemoryVolume
    private let fault: PlantedFault?
    private let endsBeforeProtecting: Bool
    private let writes = Counter()

    /// - Parameter endsBeforeProtecting: Whether it fails, and says so, between making a snapshot and protecting it.
    init(_ volume: MemoryVolume, _ fault: PlantedFault? = nil, endsBeforeProtecting: Bool = false) {
        self.volume = volume
        self.fault = fault
        self.endsBeforeProtecting = endsBeforeProtecting
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        if fault == .dropsAWrite, writes.next() == 2 { return }
        unsafe try await volume.write(bytes, at: offset)
    }
    func zero(_ extent: Extent) async throws(VolumeError) {
        if fault == .forgetsToMakeAHole { return }
        try await volume.zero(extent)
    }
    func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot {
        if fault == .forgetsASnapshot { return snapshot }
        if endsBeforeProtecting, snapshot.isProtected {
            try await volume.keep(Snapshot(id: snapshot.id, name: snapshot.name, size: snapshot.size))
            throw VolumeError(.failed, "rbd_snap_protect", on: address, reason: "it was to fail")
        }
        return try await volume.keep(snapshot)
    }
    func flush() async throws(VolumeError) {
        if fault == .forgetsToFlush { return }
        try await volume.flush()
    }
}

/// A source that does one thing wrong.
final class FaultySource: SourceVolume {
    private let volume: MemoryVolume
    private let fault: PlantedFault

    init(_ volume: MemoryVolume, _ fault: PlantedFault) {
        self.volume = volume
        self.fault = fault
    }

    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        let reader = try await volume.open(revision)
        return fault == .missesAnExtent ? FaultyReader(reader: reader) : reader
    }
    func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        let isUnchanged = try await volume.isUnchanged(since: snapshot)
        return fault == .overlooksAWriter || isUnchanged
    }

    var address: String { volume.address }
    func describe() async throws(VolumeError) -> VolumeDescription { try await volume.describe() }
    func obstacles() async throws(VolumeError) -> [Obstacle] { try await volume.obstacles() }
    func standing() async throws(VolumeError) -> Standing { try await volume.standing() }
    func freeze(as name: String) async throws(VolumeError) -> Snapshot? { try await volume.freeze(as: name) }
    func thaw(_ name: String) async throws(VolumeError) { try await volume.thaw(name) }
}

private struct FaultyReader: VolumeReader {
    let reader: any VolumeReader
    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        ExtentSet(try await reader.extents(in: range, since: base).extents.dropLast())
    }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        unsafe try await reader.read(into: buffer, at: offset)
    }
    func close() async { await reader.close() }
}
