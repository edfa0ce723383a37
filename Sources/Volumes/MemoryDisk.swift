internal import Synchronization

extension MemoryVolume: DiskVolume {
    package func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk {
        try checkRevision(revision, isWritable: isWritable)
        let size = try with("attach", changes: false) { contents throws(VolumeError) in
            guard let body = contents.finished else { throw self.missing("attach") }
            return try body.state(revision, address: self.address).size
        }
        // Extents are whole blocks, whose zeros can be told only where all is told.
        let (means, unit) = place.contents.withLock { ($0.means, $0.extentUnit) }
        return MemoryDisk(
            reader: MemoryReader(volume: self, revision: revision, size: size, means: means, extentUnit: unit),
            isWritable: isWritable)
    }

    /// Changes the finished volume, as its user does.
    func withHead(
        _ operation: String, _ extent: Extent? = nil, _ change: (inout MemoryBody) -> Void
    ) throws(VolumeError) {
        try with(operation, extent) { contents throws(VolumeError) in
            // Taken out meanwhile, so that a change copies no block.
            guard var body = contents.finished.take() else { throw self.missing(operation) }
            let isInside = extent.map { $0.end.bytes <= body.head.size.bytes } ?? true
            if isInside { change(&body) }
            contents.finished = body
            guard isInside else {
                throw VolumeError(.failed, operation, on: self.address, reason: "it was made smaller meanwhile")
            }
        }
    }
}

/// A volume in memory as its user has it.
struct MemoryDisk: Disk {
    let reader: MemoryReader
    let isWritable: Bool
    let blockSize = ByteCount(1)
    let zeroesFast = true
    let tellsHolesFast = true

    private var volume: MemoryVolume { reader.volume }

    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try await reader.extents(in: range, since: base)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        unsafe try await reader.read(into: buffer, at: offset)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        try checkChange(extent, "write", on: volume.address)
        try volume.withHead("write", extent) { unsafe $0.write(bytes, at: offset) }
    }

    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        try checkChange(extent, "zero", on: volume.address)
        try volume.withHead("zero", extent) { body in
            guard keepsRoom else { return body.zero(extent) }
            body.zero(extent)
            body.occupy(extent)
        }
    }

    func discard(_ extent: Extent) async throws(VolumeError) {
        try checkChange(extent, "discard", on: volume.address)
        let block = ByteCount(MemoryState.block)
        let whole = Extent(from: extent.offset.rounded(upTo: block), to: extent.end.rounded(downTo: block))
        try volume.withHead("discard", extent) { $0.zero(whole) }
    }

    func flush() async throws(VolumeError) {
        guard isWritable else { return }
        try volume.withHead("flush") { $0.settle() }
    }

    func close() async { await reader.close() }
}
