package import Volumes

/// A target that hands on to another whatever it doesn't do by itself.
package protocol TargetWrapper: TargetVolume {
    var inner: any TargetVolume { get }
}

extension TargetWrapper {
    package var address: String { inner.address }
    package var wished: String { inner.wished }
    package func describe() async throws(VolumeError) -> VolumeDescription { try await inner.describe() }
    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        try await inner.open(revision)
    }
    package func comparison(
        of revision: Revision, with other: any Volume, at otherRevision: Revision
    ) async throws(VolumeError) -> (any Comparison)? {
        try await inner.comparison(of: revision, with: other, at: otherRevision)
    }
    package func state() async throws(VolumeError) -> TargetState { try await inner.state() }
    package func obstacles(
        to source: VolumeDescription, room: ByteCount
    ) async throws(VolumeError) -> [Obstacle] {
        try await inner.obstacles(to: source, room: room)
    }
    package func losses(from source: VolumeDescription) -> [String] { inner.losses(from: source) }
    package func make(as source: VolumeDescription, record: String) async throws(VolumeError) {
        try await inner.make(as: source, record: record)
    }
    package func own() async throws(VolumeError) -> Bool { try await inner.own() }
    package func save(record: String) async throws(VolumeError) { try await inner.save(record: record) }
    package func kept() async throws(VolumeError) -> [Snapshot] { try await inner.kept() }
    package func resize(to size: ByteCount) async throws(VolumeError) { try await inner.resize(to: size) }
    package func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot { try await inner.keep(snapshot) }
    package func alter(_ kept: Snapshot, to snapshot: Snapshot) async throws(VolumeError) {
        try await inner.alter(kept, to: snapshot)
    }
    package func drop(_ kept: Snapshot) async throws(VolumeError) { try await inner.drop(kept) }
    // Several runs in one call come as one call each, so that there is one kind of write to be wrong with.
    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        try await unsafe inner.write(bytes, at: offset)
    }
    package func zero(_ extent: Extent) async throws(VolumeError) { try await inner.zero(extent) }
    package func flush() async throws(VolumeError) { try await inner.flush() }
    package func furnish(as source: VolumeDescription) async throws(VolumeError) {
        try await inner.furnish(as: source)
    }
    package func commit(as source: VolumeDescription) async throws(VolumeError) { try await inner.commit(as: source) }
    package func uncommit() async throws(VolumeError) { try await inner.uncommit() }
    package func forget() async throws(VolumeError) { try await inner.forget() }
    package func discard() async throws(VolumeError) { try await inner.discard() }
    package func close() async { await inner.close() }
    package func route(from source: any Volume) async throws(VolumeError) -> (any Route)? {
        try await inner.route(from: source)
    }
}
