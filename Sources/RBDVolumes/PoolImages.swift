internal import CCeph
internal import Foundation
internal import Volumes

/// An image as its pool's directory, or its trash, names it.
struct ListedImage: Sendable, Equatable {
    let name: String
    /// Nothing for an image of format 1.
    let id: String?
    var isInTrash = false
}

extension Pool {
    private static let pageSize: UInt64 = 1024

    /// The images of this namespace, a page at a time, those in the trash at the end.
    func forEachImage(_ found: ([ListedImage]) async throws(VolumeError) -> Void) async throws(VolumeError) {
        try await forEachPage("dir_list", on: "rbd_directory") { decoder throws(CephDecoder.Malformed) in
            (key: try decoder.string(), value: try decoder.string())
        } found: { page throws(VolumeError) in
            try await found(page.map { ListedImage(name: $0.key, id: $0.value) })
        }
        let old = try await namesOfOldFormat()
        if !old.isEmpty { try await found(old.map { ListedImage(name: $0, id: nil) }) }
        try await forEachPage("trash_list", on: "rbd_trash") { decoder throws(CephDecoder.Malformed) in
            (key: try decoder.string(), value: try decoder.structure(TrashEntry.init(decoding:)))
        } found: { page throws(VolumeError) in
            try await found(page.map { ListedImage(name: $0.value.name, id: $0.key, isInTrash: true) })
        }
    }

    /// What `method` lists after a key, page by page.
    func forEachPage<Value>(
        _ method: String, on object: String,
        _ element: (inout CephDecoder) throws(CephDecoder.Malformed) -> (key: String, value: Value),
        found: ([(key: String, value: Value)]) async throws(VolumeError) -> Void
    ) async throws(VolumeError) {
        var last = ""
        while true {
            let call = ClassCall(method, CephEncoder.string(last) + CephEncoder.integer(Self.pageSize))
            guard let answer = try await self.call([call], on: object)?[0] else { return }
            // Of a pool without images, its directory may be there, and know no such method yet.
            if answer.code == -2 { return }
            let page = try answer.decoded(of: object, in: self) { decoder throws(CephDecoder.Malformed) in
                try decoder.list(element)
            }
            try await found(page)
            guard page.count == Self.pageSize, let end = page.last?.key else { return }
            last = end
        }
    }

    /// Images of format 1 stand in the directory's bytes rather than in its keys.
    private func namesOfOldFormat() async throws(VolumeError) -> [String] {
        guard namespace.isEmpty else { return [] }
        return try await blocking { () throws(VolumeError) in
            var size: UInt64 = 0
            guard unsafe rados_stat(self.handle, "rbd_directory", &size, nil) == 0, size > 0 else { return [] }
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
