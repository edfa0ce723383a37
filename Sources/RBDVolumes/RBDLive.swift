internal import CCeph
internal import DirtyMap
internal import Foundation
internal import Synchronization
package import Volumes

// An image that is moved while its clients write to it.
extension RBDSource: ServableSource {
    /// librbd has whoever holds the exclusive lock finish its writes before a snapshot is made. A client without that
    /// lock goes on with writes that it had begun: they still get into the snapshot once it was read, and no diff shows
    /// them (Docs/Decisions/0008).
    package func liveObstacles() async throws(VolumeError) -> [Obstacle] {
        let features = try await withImage { image throws(VolumeError) in try await image.features() }
        guard !features.contains(.exclusiveLock) else { return [] }
        return [
            Obstacle(
                .unsupported,
                "\(address) has no exclusive lock: a snapshot of it isn't one moment of its clients' writes",
                remedy:
                    "Enable it: 'rbd feature enable \(pool.path)/\(name) exclusive-lock'; librbd's clients take it up as "
                    + "they run. Or stop them, and move it without --live.")
        ]
    }

    package func stayOpen() async throws(VolumeError) {
        guard kept.withLock({ $0 == nil }) else { return }
        let image = try await Image.open(name, in: pool, title: address, for: .writing)
        do throws(VolumeError) {
            guard try await image.features().contains(.exclusiveLock) else {
                throw VolumeError(
                    .unsupported, "open", on: address, reason: "its exclusive lock was disabled meanwhile",
                    advice:
                        "Nothing tells any more what was written: 'godwit abort', and begin anew with the lock enabled."
                )
            }
        } catch {
            await image.close()
            throw error
        }
        kept.withLock { $0 = image }
    }

    package func lockOut() async throws(VolumeError) {
        _ = try await locked()
    }

    /// The image, where it is kept open, with its lock.
    private func locked() async throws(VolumeError) -> Image {
        try await stayOpen()
        guard let image = kept.withLock({ $0 }) else { preconditionFailure("it stays open") }
        // Asked for like this, librbd keeps it from whoever else asks (librbd/exclusive_lock/StandardPolicy.cc).
        unsafe try await image.call("rbd_lock_acquire") { unsafe rbd_lock_acquire($0, RBD_LOCK_MODE_EXCLUSIVE) }
        return image
    }

    package func letGo() async {
        guard served.withLock({ $0 == nil }) else { return }
        await kept.withLock { $0.take() }?.close()
    }

    /// Its users' image is the one that makes and removes snapshots, too: who holds the lock does it soonest.
    package func serve() async throws(VolumeError) -> (disk: any Disk, watch: (any ChangeWatch)?) {
        do throws(VolumeError) {
            let image = try await locked()
            let reader = try await ImageReader(image, at: nil, isStill: false)
            let changes = ChangeMap(size: reader.size)
            served.withLock { $0 = changes }
            return (RBDDisk(reader: reader, image: image, isWritable: true), changes)
        } catch {
            await letGo()
            throw error
        }
    }

    package func endServing() async {
        served.withLock { $0 = nil }
        await letGo()
    }

    package func writers() async throws(VolumeError) -> [Writer] {
        let others = try await pool.watchers(ofImage: name).filter { $0.client != cluster.clientNumber }
        var seen: Set<Int64> = []
        return others.filter { seen.insert($0.client).inserted }.map {
            Writer(title: "client.\($0.client) at \($0.address)", client: $0.address)
        }
    }

    package func limit(to rate: ByteRate) async throws(VolumeError) -> ByteRate {
        let header = try await headerName()
        let (present, mark) = try await throttle(header)
        // Whoever changed it since knew better than the mark.
        let previous = mark.map { present == $0.set ? $0.previous : present } ?? present
        let inForce = if let previous { previous } else { try await poolThrottle() }
        if let own = inForce.flatMap(ThrottleMark.bytesPerSecond), own <= rate {
            try await lift()
            return own
        }
        let set = Array(String(rate.bytesPerSecond).utf8)
        try await pool.change(
            header,
            .setMetadata([
                (Marking.throttle, ThrottleMark(previous: previous, set: set).encoded), (ThrottleMark.key, set),
            ]))
        await pool.tellOfChange(header)
        return rate
    }

    package func lift() async throws(VolumeError) {
        // An image of format 1 has no limit of ours.
        guard let header = try await newHeaderName() else { return }
        let (present, mark) = try await throttle(header)
        guard let mark else { return }
        let forget = ClassCall.removeMetadata(Marking.throttle)
        if present != mark.set {
            try await pool.change(header, forget)
        } else if let previous = mark.previous {
            try await pool.change(header, .setMetadata([(ThrottleMark.key, previous)]), forget)
        } else {
            try await pool.change(header, .removeMetadata(ThrottleMark.key), forget)
        }
        await pool.tellOfChange(header)
    }

    package func retire(to target: String, _ rest: Retirement) async throws(VolumeError) {
        let header = try await headerName()
        try await pool.change(header, .setMetadata([(Marking.moved, Array(target.utf8))]))
        switch rest {
        case .keep: return
        case .rename:
            let moved = name + Marking.movedSuffix
            try await blocking { () throws(VolumeError) in
                try check(
                    unsafe rbd_rename(self.pool.handle, self.name, moved), "rbd_rename", on: self.address)
            }
        case .trash:
            try await blocking { () throws(VolumeError) in
                try check(unsafe rbd_trash_move(self.pool.handle, self.name, 0), "rbd_trash_move", on: self.address)
            }
        }
    }

    /// - Returns: Nothing for an image of format 1.
    private func newHeaderName() async throws(VolumeError) -> String? {
        if let id = try await pool.id(ofNamed: name) { return "rbd_header." + id }
        if try await pool.hasObject(name + ".rbd") { return nil }
        throw VolumeError(ceph: -2, "rados_read", on: address, advice: "'rbd ls \(pool.path)' lists its images.")
    }

    func headerName() async throws(VolumeError) -> String {
        guard let header = try await newHeaderName() else {
            throw VolumeError(
                .unsupported, "open", on: address, reason: "it is an image of format 1",
                advice: "Such an image can't be moved live.")
        }
        return header
    }

    /// The limit that clients go by, and what Godwit noted when it set one.
    private func throttle(
        _ header: String
    ) async throws(VolumeError) -> (present: [UInt8]?, mark: ThrottleMark?) {
        let values = try await values([ThrottleMark.key, Marking.throttle], header)
        return (values[0], values[1].flatMap(ThrottleMark.init(encoded:)))
    }

    /// The limit of all images of the pool that have none of their own (`rbd config pool set`).
    private func poolThrottle() async throws(VolumeError) -> [UInt8]? {
        let pool = try Pool(cluster, name: pool.name, namespace: "")
        return try await pool.metadata([ThrottleMark.key], of: "rbd_info")?[0]
    }

    /// The values of an image's metadata, straight from its header.
    private func values(_ keys: [String], _ header: String) async throws(VolumeError) -> [[UInt8]?] {
        guard let values = try await pool.metadata(keys, of: header) else {
            throw VolumeError(ceph: -2, "exec", on: "object \(header) of pool \(pool.path)")
        }
        return values
    }
}

extension Pool {
    /// Values of the metadata in an object; nothing if there is no such object.
    fileprivate func metadata(_ keys: [String], of object: String) async throws(VolumeError) -> [[UInt8]?]? {
        let calls = keys.map { ClassCall("metadata_get", CephEncoder.string($0)) }
        guard let answers = try await call(calls, on: object) else { return nil }
        var values: [[UInt8]?] = []
        for answer in answers {
            guard answer.code != -2 else {
                values.append(nil)
                continue
            }
            values.append(
                try answer.decoded(of: object, in: self) { decoder throws(CephDecoder.Malformed) in
                    try decoder.byteString()
                })
        }
        return values
    }
}

/// What stands in the source while its clients are held back.
struct ThrottleMark: Codable, Sendable, Equatable {
    /// An image's own configuration takes effect within a second on clients that have it open
    /// (`rbd config image set`, rbd(8)).
    static let key = "conf_rbd_qos_write_bps_limit"

    /// The value there was; nothing if there was none.
    let previous: [UInt8]?
    let set: [UInt8]

    init(previous: [UInt8]?, set: [UInt8]) {
        self.previous = previous
        self.set = set
    }

    init?(encoded: [UInt8]) {
        guard let mark = try? JSONDecoder().decode(ThrottleMark.self, from: Data(encoded)) else { return nil }
        self = mark
    }

    /// Two lists of numbers always encode.
    var encoded: [UInt8] { Array((try? JSONEncoder().encode(self)) ?? Data()) }

    /// A limit as an operator wrote it: "1048576", "1M"; nothing for none, which is zero.
    static func bytesPerSecond(_ value: [UInt8]) -> ByteRate? {
        guard
            let match = String(decoding: value, as: UTF8.self).wholeMatch(
                of: /\s*([0-9]+)\s*([KMGT]?)(i?B?)\s*/.ignoresCase()),
            let number = UInt64(match.1), number > 0
        else { return nil }
        let shift: UInt64 = ["K": 10, "M": 20, "G": 30, "T": 40][match.2.uppercased()] ?? 0
        return ByteRate(bytesPerSecond: number > .max >> shift ? .max : number << shift)
    }
}

extension Pool {
    /// Who watches an image's header: whoever has it open for writing.
    func watchers(ofImage name: String) async throws(VolumeError) -> [Image.Watcher] {
        guard let id = try await id(ofNamed: name) else {
            // Of format 1, or not there.
            return try await Image.with(name, in: self, title: "rbd:\(path)/\(name)", for: .reading) {
                image throws(VolumeError) in try await image.watchers()
            }
        }
        return try await blocking { () throws(VolumeError) in
            var capacity = 16
            while true {
                var found = [cceph_watcher](repeating: cceph_watcher(), count: capacity)
                let count = unsafe cceph_list_watchers(self.handle, "rbd_header." + id, &found, capacity)
                try check(Int32(min(count, 0)), "list_watchers", on: "object rbd_header.\(id) of pool \(self.path)")
                if count > capacity {
                    capacity = Int(count)
                    continue
                }
                return found.prefix(Int(count)).map { watcher in
                    let address = unsafe withUnsafeBytes(of: watcher.address) { bytes in
                        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                    }
                    return Image.Watcher(client: watcher.client, address: address)
                }
            }
        }
    }

    /// Tells the clients of an image that its header changed, so that they read it anew. librbd takes an empty notice as
    /// that (librbd/ImageWatcher.cc, `handle_notify`). One that doesn't answer isn't waited for long.
    func tellOfChange(_ header: String) async {
        _ = try? await blocking { () throws(VolumeError) in
            unsafe _ = rados_notify2(self.handle, header, nil, 0, 2000, nil, nil)
        }
    }
}
