internal import CCeph
internal import Volumes

/// How a pool knows its images by name: an object `rbd_id.NAME` that holds the image's id, and an entry in the object
/// `rbd_directory` (cls_rbd, `dir_get_id`, `dir_get_name`). librbd changes them one after the other: whoever ended it
/// in between has left them at odds.
extension Pool {
    /// The id that an image's name leads to when it is opened.
    func id(ofNamed name: String) async throws(VolumeError) -> String? {
        try await ask("rbd_id." + name, ClassCall("get_id"))
    }

    /// The id that the directory has for a name.
    func idInDirectory(ofNamed name: String) async throws(VolumeError) -> String? {
        try await ask("rbd_directory", ClassCall("dir_get_id", CephEncoder.string(name)))
    }

    /// The name that the directory has for an id.
    func nameInDirectory(ofImage id: String) async throws(VolumeError) -> String? {
        try await ask("rbd_directory", ClassCall("dir_get_name", CephEncoder.string(id)))
    }

    func removeID(ofNamed name: String) async throws(VolumeError) {
        let object = "rbd_id." + name
        try await blocking { () throws(VolumeError) in
            let code = unsafe rados_remove(self.handle, object)
            if code != -2 { try check(code, "rados_remove", on: "object \(object)") }
        }
    }

    /// Gives an image another name, step by step as librbd does (librbd/operation/RenameRequest.cc), and goes on from
    /// wherever that was ended. librbd's own opens the image for it, which takes ten times as long.
    ///
    /// - Precondition: Nobody uses the image's journal, in which librbd would note it.
    func rename(_ id: String, from old: String, to new: String) async throws(VolumeError) {
        let object = "rbd_id." + new
        switch try await self.id(ofNamed: new) {
        case id: break
        case .some:
            throw VolumeError(.exists, "rename", on: "\(path)/\(new)", reason: "there is an image of that name")
        case nil:
            try await blocking { () throws(VolumeError) in
                let operation = unsafe rados_create_write_op()
                defer { unsafe rados_release_write_op(operation) }
                unsafe rados_write_op_create(operation, Int32(LIBRADOS_CREATE_EXCLUSIVE), nil)
                unsafe CephEncoder.string(id).withUnsafeBytes { input in
                    unsafe rados_write_op_exec(
                        operation, "rbd", "set_id", input.baseAddress?.assumingMemoryBound(to: CChar.self), input.count,
                        nil)
                }
                unsafe try check(
                    rados_write_op_operate(operation, self.handle, object, nil, 0), "set_id",
                    on: "object \(object) of pool \(self.path)")
            }
        }
        if try await nameInDirectory(ofImage: id) == old {
            try await change(
                "rbd_directory",
                ClassCall("dir_rename_image", [old, new, id].map(CephEncoder.string).reduce([], +)))
        }
        try await removeID(ofNamed: old)
    }

    /// Whether an image of this name is in the trash only because librbd was ended while it removed it: `rbd_remove`
    /// puts an image there first, and goes on from there when it is called again. `rbd_trash_list` leaves those out.
    func isHalfRemoved(_ name: String) async throws(VolumeError) -> Bool {
        let removing = UInt8(RBD_TRASH_IMAGE_SOURCE_REMOVING.rawValue)
        var isThere = false
        try await forEachInTrash { page throws(VolumeError) in
            isThere =
                isThere
                || page.contains { $0.value.source == removing && $0.value.name.utf8.elementsEqual(name.utf8) }
        }
        return isThere
    }

    /// A method's answer that is a string; nothing if there is no such object, or no such name.
    private func ask(_ object: String, _ call: ClassCall) async throws(VolumeError) -> String? {
        guard let answer = try await self.call([call], on: object)?[0], answer.code != -2 else { return nil }
        return try answer.decoded(of: object, in: self) { decoder throws(CephDecoder.Malformed) in
            try decoder.string()
        }
    }
}

extension RBDTarget {
    /// Gives the unfinished image its name, from wherever an earlier run was ended.
    /// - Parameter hasJournal: Nothing where it isn't known.
    func settleName(hasJournal: Bool? = nil) async throws(VolumeError) {
        guard let old = try await pool.id(ofNamed: unfinishedName) else { return }
        if hasJournal == false { return try await pool.rename(old, from: unfinishedName, to: name) }
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
        if try await unfinishedID() != nil { return true }
        return try await pool.isHalfRemoved(unfinishedName)
    }

    func unfinishedID() async throws(VolumeError) -> String? {
        if let id = try await pool.id(ofNamed: unfinishedName) { return id }
        return try await pool.idInDirectory(ofNamed: unfinishedName)
    }
}
