internal import CCeph
internal import Foundation
internal import Synchronization
package import Volumes

/// An RBD image that a move makes.
package final class RBDTarget: TargetVolume {
    package let address: String
    let cluster: Cluster
    let pool: Pool
    let name: String
    let wishes: LayoutWishes
    /// Told what is waited for.
    let notice: @Sendable (String) -> Void
    /// Whether to go on waiting.
    let isStopped: @Sendable () -> Bool
    /// The image as this process made it, and doesn't own it yet.
    let made = Mutex<Image?>(nil)
    /// The unfinished image, once it is this process's.
    let owned = Mutex<Image?>(nil)

    package var wished: String { wishes.text }

    private init(
        _ target: RBDAddress, cluster: Cluster, wishes: LayoutWishes, notice: @escaping @Sendable (String) -> Void,
        isStopped: @escaping @Sendable () -> Bool
    ) throws(VolumeError) {
        address = target.text
        self.cluster = cluster
        pool = try Pool(cluster, name: target.pool, namespace: target.namespace)
        name = target.image
        self.wishes = wishes
        self.notice = notice
        self.isStopped = isStopped
    }

    package static func connect(
        to address: RBDAddress, wishes: LayoutWishes = LayoutWishes(),
        notice: @escaping @Sendable (String) -> Void = { _ in }, isStopped: @escaping @Sendable () -> Bool = { false }
    ) async throws(VolumeError) -> RBDTarget {
        try RBDTarget(
            address, cluster: try await Cluster.connect(for: address), wishes: wishes, notice: notice,
            isStopped: isStopped)
    }

    // MARK: What is there

    var unfinishedName: String { Marking.unfinished(name) }

    package func state() async throws(VolumeError) -> TargetState {
        if let id = try await pool.id(ofNamed: name), let notes = try await notes(in: id) {
            return notes[Marking.record].map { .committed(record: $0) } ?? .foreign
        }
        guard try await hasUnfinishedName() else { return .absent }
        // What has no header was being made, or removed, when a run was ended.
        guard let id = try await pool.id(ofNamed: unfinishedName), let notes = try await notes(in: id) else {
            return .unfinished(record: "")
        }
        if let record = notes[Marking.record] { return .unfinished(record: record) }
        // Without a record: the run that made it was ended before it could say what it was about to do, or one that
        // removed it. That it was one of ours only the holder's name tells, or that nothing was ever written to it.
        if notes[Marking.holder] != nil { return .unfinished(record: "") }
        return try await isUntouched() ? .unfinished(record: "") : .foreign
    }

    /// Whether the image of the unfinished name has neither data, nor snapshots, nor metadata.
    private func isUntouched() async throws(VolumeError) -> Bool {
        do throws(VolumeError) {
            return try await withImage(unfinishedName, for: .reading) { image throws(VolumeError) in
                guard try await image.metadata().isEmpty, try await image.snapshots().isEmpty else { return false }
                let found = DiffCount()
                unsafe try await image.call("rbd_diff_iterate2") { handle in
                    var size: UInt64 = 0
                    let code = unsafe rbd_get_size(handle, &size)
                    guard code >= 0 else { return code }
                    return unsafe rbd_diff_iterate2(
                        handle, nil, 0, size, 0, 1, countDiff, Unmanaged.passUnretained(found).toOpaque())
                }
                return found.count == 0
            }
        } catch  where error.kind == .missing {
            // It was being made, or removed, when a run was ended: librbd can't even open it.
            return true
        }
    }

    /// - Returns: Nothing if there is no header of that id.
    func notes(in id: String) async throws(VolumeError) -> [String: String]? {
        try await pool.ownMetadata("rbd_header." + id).map { notes in
            Dictionary(notes.map { ($0.key, String(decoding: $0.value, as: UTF8.self)) }) { first, _ in first }
        }
    }

    /// Notes several things in one step, without opening the image.
    func note(_ notes: [(key: String, text: String)], in id: String) async throws(VolumeError) {
        try await pool.change("rbd_header." + id, .setMetadata(notes.map { ($0.key, Array($0.text.utf8)) }))
    }

    func withImage<Value: Sendable>(
        _ name: String, for access: Image.Access, _ body: (Image) async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        try await Image.with(name, in: pool, title: address, for: access, body)
    }

    package func describe() async throws(VolumeError) -> VolumeDescription {
        try await withImage(currentName(), for: .reading) { image throws(VolumeError) in try await image.describe() }
    }

    package func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        let image = try await image(at: revision)
        do throws(VolumeError) {
            return try await ImageReader(image, at: revision.snapshot)
        } catch {
            await image.close()
            throw error
        }
    }

    func image(at revision: Revision) async throws(VolumeError) -> Image {
        try await Image.open(try await currentName(), in: pool, title: address, for: .reading, at: revision.snapshot)
    }

    func currentName() async throws(VolumeError) -> String {
        if case .unfinished = try await state() { unfinishedName } else { name }
    }

    // MARK: Making it

    package func make(as source: VolumeDescription, record: String) async throws(VolumeError) {
        try await refuseForeign("rbd_create4")
        let layout = wishes.applied(to: source.layout)
        try await blocking { () throws(VolumeError) in
            var options: rbd_image_options_t?
            unsafe rbd_image_options_create(&options)
            defer { unsafe rbd_image_options_destroy(options) }
            func set(_ option: Int, _ value: UInt64) throws(VolumeError) {
                let code = unsafe rbd_image_options_set_uint64(options, Int32(option), value)
                try check(code, "rbd_image_options_set_uint64", on: self.address)
            }
            // A journal would take every byte once more: it is switched on when the target is finished.
            let features = Features(names: layout.features).intersection(.chosen).subtracting(.journaling)
            try set(Int(RBD_IMAGE_OPTION_FORMAT), 2)
            try set(Int(RBD_IMAGE_OPTION_FEATURES), features.rawValue)
            try set(Int(RBD_IMAGE_OPTION_ORDER), UInt64(layout.objectSize.bytes.trailingZeroBitCount))
            if !layout.isPlain {
                try set(Int(RBD_IMAGE_OPTION_STRIPE_UNIT), layout.stripeUnit.bytes)
                try set(Int(RBD_IMAGE_OPTION_STRIPE_COUNT), layout.stripeCount)
            }
            if let dataPool = layout.dataPool {
                let code = unsafe rbd_image_options_set_string(options, Int32(RBD_IMAGE_OPTION_DATA_POOL), dataPool)
                try check(code, "rbd_image_options_set_string", on: self.address)
            }
            // It begins empty, and takes the size of each state in turn.
            let size = (source.snapshots.first?.size ?? source.size).bytes
            let code = unsafe rbd_create4(self.pool.handle, self.unfinishedName, size, options)
            if code == -17 {
                throw VolumeError(
                    .busy, "rbd_create4", on: self.address, reason: "another run is just making it",
                    advice: "Wait for it to end; then give the command again.")
            }
            try check(code, "rbd_create4", on: self.address)
        }
        // Whose it is and what it is for, at once and before it is opened: whoever comes after a run that was killed can
        // evict it, instead of waiting until its watch is given up.
        guard let id = try await unfinishedID() else {
            throw VolumeError(.missing, "rbd_create4", on: address, reason: "another run has removed it")
        }
        let holder = Holder.own(client: cluster.clientAddresses).text
        try await note([(Marking.holder, holder), (Marking.record, record)], in: id)
        let image = try await openUnfinished()
        made.withLock { $0 = image }
    }

    func image() throws(VolumeError) -> Image {
        guard let image = owned.withLock({ $0 }) else { throw notOwned() }
        return image
    }

    func notOwned() -> VolumeError {
        VolumeError(.failed, "own", on: address, reason: "the target isn't this process's")
    }

    func refuseForeign(_ operation: String) async throws(VolumeError) {
        guard try await state() != .foreign else {
            throw VolumeError(.exists, operation, on: address, reason: "it wasn't begun by Godwit")
        }
    }

    package func save(record: String) async throws(VolumeError) {
        if let image = owned.withLock({ $0 }) { return try await image.mark(Marking.record, record) }
        try await withImage(currentName(), for: .writing) { image throws(VolumeError) in
            try await image.mark(Marking.record, record)
        }
    }

    package func resize(to size: ByteCount) async throws(VolumeError) {
        let present = try await image().size()
        guard present != size else { return }
        // To shrink, librbd removes the objects that it believes are there: it must have read the map as it is now.
        if size < present { try await reopen() }
        unsafe try await image().call("rbd_resize2") { unsafe rbd_resize2($0, size.bytes, true, goOn, nil) }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let image = try image()
        guard let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self) else { return }
        let code = unsafe await completedImage { completion in
            unsafe rbd_aio_write(image.handle, offset.bytes, bytes.count, start, completion)
        }
        try check(Int32(code), "rbd_aio_write", on: "\(address) at byte \(offset.bytes)")
    }

    package func zero(_ extent: Extent) async throws(VolumeError) {
        let image = try image()
        let code = unsafe await completedImage { completion in
            unsafe rbd_aio_write_zeroes(image.handle, extent.offset.bytes, Int(extent.length.bytes), completion, 0, 0)
        }
        try check(Int32(code), "rbd_aio_write_zeroes", on: "\(address) at byte \(extent.offset.bytes)")
    }

    package func flush() async throws(VolumeError) {
        unsafe try await image().call("rbd_flush") { unsafe rbd_flush($0) }
    }

    // MARK: The shorter way

    /// What `ObjectRoute` writes to.
    func objects() async throws(VolumeError) -> ObjectView {
        let image = try image()
        let features = try await image.features()
        if features.contains(.objectMap), try await !image.hasValidObjectMap() { try await mendObjectMap(of: image) }
        return ObjectView(
            objects: DataObjects(pool: try await image.dataPool(), prefix: try await image.objectPrefix()),
            context: SnapshotContext(try await image.snapshots().map(\.snapshot.id)),
            maps: features.contains(.objectMap) ? ObjectMapStore(pool: pool, imageID: try await image.imageID()) : nil,
            marksClean: features.contains(.fastDiff))
    }

    /// librbd marks a map as invalid when it couldn't read or write it, as while an OSD is away.
    private func mendObjectMap(of image: Image) async throws(VolumeError) {
        notice("rebuilding the unfinished target's object map: an OSD that was away has cost it")
        unsafe try await image.call("rbd_rebuild_object_map") { unsafe rbd_rebuild_object_map($0, goOn, nil) }
        guard try await image.hasValidObjectMap() else {
            throw VolumeError(
                .damaged, "rbd_rebuild_object_map", on: address,
                reason: "the unfinished target's object map is still marked as invalid",
                advice: "Mend it: 'rbd object-map rebuild \(pool.path)/\(unfinishedName)'; then give the command again."
            )
        }
    }

    struct ObjectView: Sendable {
        let objects: DataObjects
        let context: SnapshotContext
        let maps: ObjectMapStore?
        /// Whether the maps tell objects that weren't written since the newest snapshot.
        let marksClean: Bool
    }

    package func route(from source: any Volume) async throws(VolumeError) -> (any Route)? {
        guard let source = source as? RBDSource else { return nil }
        guard let from = try await source.layoutOfObjects() else { return nil }
        guard from.placesBytesLike(try await image().layout()) else { return nil }
        let count = try await image().objectCount()
        if let maps = try await objects().maps, try await maps.load(nil, objects: count) == nil { return nil }
        return ObjectRoute(source: source, target: self, objectSize: from.objectSize)
    }
}

private final class DiffCount: @unchecked Sendable {
    // Unchecked: counted in one call, and read after it.
    var count = 0
}

private let countDiff: @convention(c) (UInt64, Int, Int32, UnsafeMutableRawPointer?) -> Int32 = { _, _, _, context in
    guard let context = unsafe context else { return -22 }
    unsafe Unmanaged<DiffCount>.fromOpaque(context).takeUnretainedValue().count += 1
    return 0
}

/// librbd calls it for each object that it removes or looks for, whether there is one or not.
private let goOn: librbd_progress_fn_t = { _, _, _ in 0 }

extension RBDSource {
    /// How the image lies on its objects, if they hold all of its bytes in every state.
    fileprivate func layoutOfObjects() async throws(VolumeError) -> Layout? {
        guard let header = try await header(), header.holdsAllInObjects else { return nil }
        return header.layout
    }
}
