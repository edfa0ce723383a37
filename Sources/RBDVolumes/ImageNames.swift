internal import CCeph
internal import Volumes

/// How a pool knows its images by name: an object `rbd_id.NAME` that holds the image's id, and an entry in the object
/// `rbd_directory` (cls_rbd, `dir_get_id`, `dir_get_name`). librbd changes them one after the other: whoever ended it
/// in between has left them at odds.
extension Pool {
    /// The id that an image's name leads to when it is opened.
    func id(ofNamed name: String) async throws(VolumeError) -> String? {
        let object = "rbd_id." + name
        return try await blocking { () throws(VolumeError) in
            var bytes = [UInt8](repeating: 0, count: 512)
            let count = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe rados_read(
                    self.handle, object, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), buffer.count, 0)
            }
            if count == -2 { return nil }
            try check(count, "rados_read", on: "object \(object)")
            return Self.string(bytes.prefix(Int(count)))
        }
    }

    /// The id that the directory has for a name.
    func idInDirectory(ofNamed name: String) async throws(VolumeError) -> String? {
        try await askDirectory("dir_get_id", name)
    }

    /// The name that the directory has for an id.
    func nameInDirectory(ofImage id: String) async throws(VolumeError) -> String? {
        try await askDirectory("dir_get_name", id)
    }

    func removeID(ofNamed name: String) async throws(VolumeError) {
        let object = "rbd_id." + name
        try await blocking { () throws(VolumeError) in
            let code = unsafe rados_remove(self.handle, object)
            if code != -2 { try check(code, "rados_remove", on: "object \(object)") }
        }
    }

    /// Whether an image of this name is in the trash only because librbd was ended while it removed it: `rbd_remove`
    /// puts an image there first, and goes on from there when it is called again. `rbd_trash_list` leaves those out.
    func isHalfRemoved(_ name: String) async throws(VolumeError) -> Bool {
        let removing = UInt8(RBD_TRASH_IMAGE_SOURCE_REMOVING.rawValue)
        var isThere = false
        try await forEachPage("trash_list", on: "rbd_trash") { decoder throws(CephDecoder.Malformed) in
            (key: try decoder.string(), value: try decoder.structure(TrashEntry.init(decoding:)))
        } found: { page throws(VolumeError) in
            isThere =
                isThere
                || page.contains { $0.value.source == removing && $0.value.name.utf8.elementsEqual(name.utf8) }
        }
        return isThere
    }

    private func askDirectory(_ method: String, _ key: String) async throws(VolumeError) -> String? {
        try await blocking { () throws(VolumeError) in
            let size = UInt32(key.utf8.count)
            let question = (0..<4).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) } + Array(key.utf8)
            var answer = [UInt8](repeating: 0, count: 4096)
            let count = unsafe question.withUnsafeBytes { question in
                unsafe answer.withUnsafeMutableBytes { answer in
                    unsafe rados_exec(
                        self.handle, "rbd_directory", "rbd", method,
                        question.baseAddress?.assumingMemoryBound(to: CChar.self), question.count,
                        answer.baseAddress?.assumingMemoryBound(to: CChar.self), answer.count)
                }
            }
            if count == -2 { return nil }
            try check(count, method, on: "object rbd_directory of pool \(self.path)")
            return Self.string(answer.prefix(Int(count)))
        }
    }

    /// A string as Ceph encodes it: its length (le32), then its bytes.
    private static func string(_ bytes: ArraySlice<UInt8>) -> String? {
        guard bytes.count >= 4 else { return nil }
        let size = bytes.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
        guard bytes.count >= 4 + size else { return nil }
        return String(decoding: bytes.dropFirst(4).prefix(size), as: UTF8.self)
    }
}

extension RBDTarget {
    /// Gives the unfinished image its name, from wherever an earlier run was ended.
    func settleName() async throws(VolumeError) {
        guard let old = try await pool.id(ofNamed: unfinishedName) else { return }
        if try await pool.id(ofNamed: name) == old {
            guard try await pool.nameInDirectory(ofImage: old) == unfinishedName else {
                return try await pool.removeID(ofNamed: unfinishedName)
            }
            // librbd would refuse a name that leads somewhere, even where it leads to this very image.
            try await pool.removeID(ofNamed: name)
        }
        try await blocking { () throws(VolumeError) in
            let code = unsafe rbd_rename(self.pool.handle, self.unfinishedName, self.name)
            try check(code, "rbd_rename", on: self.address)
        }
    }

    /// Whether anything at all has the unfinished target's name: an image that was being made or removed may not open.
    func hasUnfinishedName() async throws(VolumeError) -> Bool {
        if try await pool.id(ofNamed: unfinishedName) != nil { return true }
        if try await pool.idInDirectory(ofNamed: unfinishedName) != nil { return true }
        return try await pool.isHalfRemoved(unfinishedName)
    }
}
