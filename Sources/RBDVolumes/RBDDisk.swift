internal import CCeph
package import Volumes

extension RBDSource: DiskVolume {
    /// Through librbd, whose cache is as the cluster's configuration has it (`rbd_cache`). Others that write to the image
    /// aren't kept from it here: librbd hands its exclusive lock on to whoever asks for it. `obstacles` tells who they are.
    package func attach(_ revision: Revision, isWritable: Bool) async throws(VolumeError) -> any Disk {
        try checkRevision(revision, isWritable: isWritable)
        let cluster = try await Cluster.connect(for: target, caching: .asConfigured)
        let pool = try Pool(cluster, name: target.pool, namespace: target.namespace)
        let image = try await Image.open(
            name, in: pool, title: address, for: isWritable ? .writing : .reading, at: revision.snapshot)
        do throws(VolumeError) {
            // Who writes to the head changes its object map, too.
            let reader = try await ImageReader(image, at: revision.snapshot, isStill: revision.snapshot != nil)
            return RBDDisk(reader: reader, image: image, isWritable: isWritable)
        } catch {
            await image.close()
            throw error
        }
    }
}

/// An RBD image in use.
final class RBDDisk: Disk {
    let isWritable: Bool
    let blockSize = ByteCount(1)
    /// By discards, of which a whole object takes one operation.
    let zeroesFast = true
    private let reader: ImageReader
    private let image: Image

    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }

    init(reader: ImageReader, image: Image, isWritable: Bool) {
        (self.reader, self.image, self.isWritable) = (reader, image, isWritable)
    }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        // The objects don't know yet what is still in librbd's cache.
        try await flush()
        return try await reader.extents(in: range, since: base)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        unsafe try await reader.read(into: buffer, at: offset)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let extent = Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))
        try checkChange(extent, "rbd_aio_write", on: image.title)
        let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
        unsafe try await change("rbd_aio_write", extent) { handle, completion in
            unsafe rbd_aio_write(handle, extent.offset.bytes, bytes.count, start, completion)
        }
    }

    func zero(_ extent: Extent, keepsRoom: Bool) async throws(VolumeError) {
        try checkChange(extent, "rbd_aio_write_zeroes", on: image.title)
        let flags = keepsRoom ? Int32(RBD_WRITE_ZEROES_FLAG_THICK_PROVISION) : 0
        unsafe try await change("rbd_aio_write_zeroes", extent) { handle, completion in
            unsafe rbd_aio_write_zeroes(
                handle, extent.offset.bytes, Int(extent.length.bytes), completion, flags, 0)
        }
    }

    /// librbd passes over what is smaller than `rbd_discard_granularity_bytes`, 64 KiB by default.
    func discard(_ extent: Extent) async throws(VolumeError) {
        try checkChange(extent, "rbd_aio_discard", on: image.title)
        unsafe try await change("rbd_aio_discard", extent) { handle, completion in
            unsafe rbd_aio_discard(handle, extent.offset.bytes, extent.length.bytes, completion)
        }
    }

    func flush() async throws(VolumeError) {
        guard isWritable else { return }
        unsafe try await change("rbd_aio_flush", Extent(offset: .zero, length: .zero)) { handle, completion in
            unsafe rbd_aio_flush(handle, completion)
        }
    }

    func close() async { await reader.close() }

    private func change(
        _ operation: String, _ extent: Extent, _ submit: (rbd_image_t, rbd_completion_t?) -> Int32
    ) async throws(VolumeError) {
        let code = unsafe await completedImage { completion in unsafe submit(image.handle, completion) }
        guard code >= 0 else {
            throw VolumeError(ceph: Int32(code), operation, on: "\(image.title) at byte \(extent.offset.bytes)")
        }
    }
}
