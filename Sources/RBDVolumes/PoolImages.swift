internal import CCeph
internal import Foundation
internal import Volumes

/// An image as its pool's directory, or its trash, names it.
struct ListedImage: Sendable, Equatable {
    let name: String
    /// Nothing for an image of format 1.
    let id: String?
    var isInTrash = false

    /// Tells it from all others: by bytes, as two names may look alike to Unicode.
    func key(in pool: Pool) -> [UInt8] { Array("\(pool.path)/\(id == nil ? "name" : "id")/\(id ?? name)".utf8) }
}

extension Pool {
    private static let pageSize: UInt64 = 1024

    /// The images of this namespace, a page at a time, those in the trash at the end.
    func forEachImage(_ found: ([ListedImage]) async throws(VolumeError) -> Void) async throws(VolumeError) {
        try await forEachPage("dir_list", on: "rbd_directory") { decoder throws(CephDecoder.Malformed) in
            try decoder.string()
        } found: { page throws(VolumeError) in
            try await found(page.map { ListedImage(name: String(decoding: $0.key, as: UTF8.self), id: $0.value) })
        }
        let old = try await namesOfOldFormat()
        if !old.isEmpty { try await found(old.map { ListedImage(name: $0, id: nil) }) }
        try await forEachInTrash { page throws(VolumeError) in
            try await found(
                page.map {
                    ListedImage(name: $0.value.name, id: String(decoding: $0.key, as: UTF8.self), isInTrash: true)
                })
        }
    }

    func forEachInTrash(
        _ found: ([(key: [UInt8], value: TrashEntry)]) async throws(VolumeError) -> Void
    ) async throws(VolumeError) {
        try await forEachPage(
            "trash_list", on: "rbd_trash",
            { decoder throws(CephDecoder.Malformed) in
                try decoder.structure(known: 2, TrashEntry.init(decoding:))
            }, found: found)
    }

    /// What `method` lists after a key, page by page.
    private func forEachPage<Value>(
        _ method: String, on object: String,
        _ value: (inout CephDecoder) throws(CephDecoder.Malformed) -> Value,
        found: ([(key: [UInt8], value: Value)]) async throws(VolumeError) -> Void
    ) async throws(VolumeError) {
        var last: [UInt8] = []
        while true {
            let call = ClassCall(method, CephEncoder.byteString(last) + CephEncoder.integer(Self.pageSize))
            guard let answer = try await self.call([call], on: object)?[0] else { return }
            // The directory may be there without any image.
            if answer.code == -2 { return }
            let page = try answer.decoded(of: object, in: self) { decoder throws(CephDecoder.Malformed) in
                try decoder.list { decoder throws(CephDecoder.Malformed) in
                    (key: try decoder.byteString(), value: try value(&decoder))
                }
            }
            try await found(page)
            guard page.count == Self.pageSize, let end = page.last?.key, end != last else { return }
            last = end
        }
    }

    /// Images of format 1 stand in the directory's bytes rather than in its keys.
    private func namesOfOldFormat() async throws(VolumeError) -> [String] {
        guard namespace.isEmpty else { return [] }
        return try await blocking { () throws(VolumeError) in
            var size: UInt64 = 0
            let found = unsafe rados_stat(self.handle, "rbd_directory", &size, nil)
            if found == -2 { return [] }
            try check(found, "rados_stat", on: "object rbd_directory of pool \(self.path)")
            guard size > 0 else { return [] }
            var count = 1024
            while true {
                var specs = unsafe [rbd_image_spec_t](repeating: rbd_image_spec_t(), count: count)
                let code = unsafe rbd_list2(self.handle, &specs, &count)
                if code == -34 { continue }
                try check(code, "rbd_list2", on: "pool \(self.path)")
                defer { unsafe rbd_image_spec_list_cleanup(&specs, count) }
                return unsafe specs.prefix(count).compactMap { spec in
                    guard unsafe spec.id == nil || spec.id.pointee == 0 else { return nil }
                    return unsafe spec.name.map { unsafe String(cString: $0) }
                }
            }
        }
    }

    func namespaces() async throws(VolumeError) -> [String] {
        try await blocking { () throws(VolumeError) in
            var size = 4096
            while true {
                var names = [CChar](repeating: 0, count: size)
                let code = unsafe rbd_namespace_list(self.handle, &names, &size)
                if code == -34 { continue }
                if code == -2 { return [] }
                try check(code, "rbd_namespace_list", on: "pool \(self.path)")
                return Image.strings(names[..<min(size, names.count)]).filter { !$0.isEmpty }
            }
        }
    }
}

/// What the trash knows of an image (cls::rbd::TrashImageSpec): its source, its name, and what doesn't matter here.
struct TrashEntry: Sendable {
    /// `RBD_TRASH_IMAGE_SOURCE_…`.
    let source: UInt8
    let name: String

    init(decoding decoder: inout CephDecoder) throws(CephDecoder.Malformed) {
        source = try decoder.integer()
        name = try decoder.string()
    }
}

extension Pool {
    func hasObject(_ name: String) async throws(VolumeError) -> Bool {
        try await blocking { () throws(VolumeError) in
            let code = unsafe rados_stat(self.handle, name, nil, nil)
            if code == -2 { return false }
            try check(code, "rados_stat", on: "object \(name)")
            return true
        }
    }
}
