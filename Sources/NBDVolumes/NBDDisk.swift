internal import NBDProtocol
package import Volumes

extension NBDSource: DiskVolume {
    package func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk {
        guard revision == .head else { throw export.noSnapshots("attach") }
        guard isWritable else { return NBDDisk(export, isWritable: false) }
        guard !export.isReadOnly else {
            throw VolumeError(
                .forbidden, "attach", on: address, reason: "its server lets nobody write",
                advice: "Have it serve for writing, or use it --read-only.")
        }
        guard export.flushes else {
            throw VolumeError(
                .unsupported, "attach", on: address,
                reason: "its server has no flush, so nothing could be told of what is durable",
                advice: "Have it offer NBD_CMD_FLUSH, or use it --read-only.")
        }
        return NBDDisk(export, isWritable: true)
    }
}

/// An export as those who use it have it.
///
/// With its connections it is gone for good: what the server had acknowledged and not flushed may be lost with them, so
/// going on over new ones would hide that (Docs/Decisions/0009).
struct NBDDisk: Disk {
    private let export: NBDExport
    private let reader: NBDReader
    let isWritable: Bool
    /// Nobody here knows how fast another's server is.
    let zeroesFast = false

    init(_ export: NBDExport, isWritable: Bool) {
        self.export = export
        self.isWritable = isWritable
        reader = NBDReader(export)
    }

    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }
    var blockSize: ByteCount { export.shape.block }
    var caches: Bool { export.caches }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        try await reader.extents(in: range, since: base)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try await unsafe reader.read(into: buffer, at: offset)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try check(Extent(offset: offset, length: ByteCount(UInt64(bytes.count))), "write")
        try await unsafe export.write(bytes, at: offset)
    }

    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        try check(extent, "zero")
        try await export.zero(extent, keepsRoom: keepsRoom)
    }

    func discard(_ extent: Extent) async throws(VolumeError) {
        try check(extent, "discard")
        try await export.discard(extent)
    }

    func cache(_ extent: Extent) async throws(VolumeError) { try await export.cache(extent) }

    func flush() async throws(VolumeError) { if isWritable { try await export.flush() } }

    func close() async {}

    private func check(_ extent: Extent, _ operation: String) throws(VolumeError) {
        try checkChange(extent, operation, on: export.address.text)
    }
}

extension NBDExport {
    /// Whether the server fetches what will be read soon.
    var caches: Bool { agreement.flags.contains(.cache) }

    /// Tells the server that the whole blocks of an extent don't matter any more; nothing, if it can't be told.
    func discard(_ extent: Extent) async throws(VolumeError) {
        guard agreement.flags.contains(.trim) else { return }
        for part in shape.cut(extent).body.parts(ofAtMost: RequestShape.mostZeros) {
            try await unsafe connection.ask(.trim(part))
        }
    }

    func cache(_ extent: Extent) async throws(VolumeError) {
        guard caches else { return }
        for part in shape.widened(extent).parts(ofAtMost: shape.most) {
            try await unsafe connection.ask(.cache(part))
        }
    }
}
