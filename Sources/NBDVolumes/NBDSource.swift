package import Volumes

/// An export to move away from: a head without snapshots, which must not be written meanwhile.
///
/// A server tells neither who else is connected nor whether anything was written: that nobody writes, from a move's
/// beginning to its end and over its interruptions, is for the operator to see to (Docs/Decisions/0009).
package final class NBDSource: SourceVolume {
    package let address: String
    let export: NBDExport

    package init(_ export: NBDExport) {
        self.export = export
        address = export.address.text
    }

    /// Connects to the server.
    ///
    /// - Parameter bitmap: What it says is dirty is all that is to be moved; `missing` if the server doesn't offer it.
    package static func connect(
        to address: NBDAddress, bitmap: DirtyBitmap? = nil, patience: Patience = .standard
    ) async throws(VolumeError) -> NBDSource {
        NBDSource(try await NBDExport.connect(to: address, bitmap: bitmap, patience: patience))
    }

    package var base: Snapshot? { export.base }

    package func describe() async throws(VolumeError) -> VolumeDescription {
        VolumeDescription(identity: export.identity, size: export.size)
    }

    package func standing() async throws(VolumeError) -> Standing {
        Standing(size: export.size, snapshots: [], transients: [])
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        guard revision == .head else { throw export.noSnapshots("open") }
        return NBDReader(export)
    }

    package func obstacles() async throws(VolumeError) -> [Obstacle] { [] }

    package func freeze(as name: String) async throws(VolumeError) -> Snapshot? { nil }

    package func thaw(_ name: String) async throws(VolumeError) {}

    package func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool { true }
}

extension NBDExport {
    /// All that a server tells of which volume it is. Its size is a part of it: it may not change under a move.
    var identity: String { "\(address.text):\(size.bytes)" }

    /// The state that is known by what differs from it.
    var base: Snapshot? { bitmap?.base(size) }

    func noSnapshots(_ operation: String) -> VolumeError {
        VolumeError(
            .unsupported, operation, on: address.text, reason: "an NBD export has no snapshots",
            advice: "--snapshots none moves the head alone.")
    }
}

/// An export, read as it is. Its extents are what the server says of them; since its base, what its bitmap says.
struct NBDReader: VolumeReader {
    private let export: NBDExport
    let means: ExtentMeans
    /// As of a file: a server answers for one extent as fast as for many. No block is larger.
    let extentUnit = ByteCount.kibibytes(64)

    init(_ export: NBDExport) {
        self.export = export
        means = export.bitmap != nil ? .dirtyBitmap : export.knowsZeros ? .blockStatus : .everything
    }

    var size: ByteCount { export.size }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        guard let base else { return try await export.data(in: range) }
        guard base == export.base else { throw export.noSnapshots("extents") }
        return try await export.dirty(in: range)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try await unsafe export.read(into: buffer, at: offset)
    }

    /// The connections are closed with the last who uses the export.
    func close() async {}
}
