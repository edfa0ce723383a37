import Conformance
import Testing
import Volumes

/// What a disk could do wrong.
enum PlantedDiskFault: String, CaseIterable, Sendable {
    case writeDropsItsLastByte, zeroDoesNothing, zeroGoesAByteTooFar, zeroWritesZeros, discardTakesNeighbours
    case changesAreAllowed, writesPastTheEnd, extentsMissABlock, atOnceLies, snapshotIsTheHead, flushForgets

    var check: String {
        switch self {
        case .writeDropsItsLastByte, .discardTakesNeighbours, .extentsMissABlock:
            "what was written is read, whatever else was done"
        case .zeroDoesNothing, .zeroGoesAByteTooFar, .zeroWritesZeros:
            "zeros read as zeros, with and without their room"
        case .changesAreAllowed: "a disk that is only read refuses every change"
        case .writesPastTheEnd: "nothing reaches past the end"
        case .atOnceLies: "what is done at once is done as well"
        case .snapshotIsTheHead: "a snapshot stays as it was, and is only read"
        case .flushForgets: "what was flushed is there for others"
        }
    }
}

/// A disk in memory with one fault.
private struct FaultyDisk: Disk {
    let inner: any Disk
    let fault: PlantedDiskFault
    let isWritable: Bool

    var blockSize: ByteCount { inner.blockSize }
    var zeroesFast: Bool { inner.zeroesFast }
    var size: ByteCount { inner.size }
    var means: ExtentMeans { inner.means }
    var extentUnit: ByteCount { inner.extentUnit }
    var readsAtOnce: Bool { fault == .atOnceLies }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        let found = try await inner.extents(in: range, since: base)
        guard fault == .extentsMissABlock, let missed = found.extents.max(by: { $0.length < $1.length }) else {
            return found
        }
        return found.subtracting(ExtentSet([missed]))
    }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        unsafe try await inner.read(into: buffer, at: offset)
    }
    func readAtOnce(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) throws(VolumeError) -> Bool {
        fault == .atOnceLies
    }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        if fault == .flushForgets { return }
        let isPast = offset.bytes + UInt64(bytes.count) > size.bytes
        if fault == .writesPastTheEnd, isPast { return }
        let cut = fault == .writeDropsItsLastByte ? bytes.count - 1 : bytes.count
        unsafe try await inner.write(UnsafeRawBufferPointer(rebasing: bytes[..<cut]), at: offset)
    }
    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        var extent = extent
        if fault == .zeroDoesNothing { return }
        if fault == .zeroGoesAByteTooFar, extent.end.bytes < size.bytes { extent.length += ByteCount(1) }
        try await inner.zero(extent, keepsRoom: keepsRoom || fault == .zeroWritesZeros)
    }
    func discard(_ extent: Extent) async throws(VolumeError) {
        guard fault == .discardTakesNeighbours else { return try await inner.discard(extent) }
        let start = extent.offset.rounded(downTo: zeroBlock)
        let end = min(extent.end.rounded(upTo: zeroBlock), ByteOffset(size.bytes))
        try await inner.zero(Extent(from: start, to: end), keepsRoom: false)
    }
    func flush() async throws(VolumeError) { try await inner.flush() }
    func close() async { await inner.close() }
}

private struct FaultyVolume: DiskVolume {
    let inner: MemoryVolume
    let fault: PlantedDiskFault

    var address: String { inner.address }
    func describe() async throws(VolumeError) -> VolumeDescription { try await inner.describe() }
    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader { try await inner.open(revision) }
    func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk {
        let revision = fault == .snapshotIsTheHead ? .head : revision
        let inner = try await inner.attach(revision, isWritable: isWritable || fault == .changesAreAllowed)
        return FaultyDisk(inner: inner, fault: fault, isWritable: isWritable)
    }
}

@Suite struct PlantedDiskFaultTests {
    @Test(.filterIssues(Catch.isUnexpected), arguments: PlantedDiskFault.allCases)
    func `a fault planted in a disk is caught by the check it breaks`(fault: PlantedDiskFault) async throws {
        let check = try #require(DiskCheck.all.first { $0.name == fault.check })
        let kind = DiskKind(granule: .kibibytes(4), holdsSnapshots: true) { _, size in
            let place = MemoryVolume.Place()
            place.make(size: size)
            return DiskSite(
                volume: { FaultyVolume(inner: MemoryVolume(at: place), fault: fault) },
                takeSnapshot: { place.takeSnapshot($0) })
        }
        await PlantedFaultTests.catches(fault.rawValue) { try await check.run(kind) }
    }
}
