internal import Foundation
internal import Volumes

/// A node of QEMU's block layer, as query-block and query-named-block-nodes tell of it (qapi/block-core.json,
/// BlockDeviceInfo).
struct BlockNode: Sendable, Equatable {
    let name: String
    let driver: String
    /// What it would be opened with again, its children under "file": out of the "json:{...}" that QEMU makes of it.
    /// Empty if QEMU named it otherwise.
    let options: [String: JSONValue]
    let cacheIsDirect: Bool
    let cacheHasNoFlush: Bool
    /// "off", "on" or "unmap".
    let detectZeroes: String
    let isReadOnly: Bool
    let isEncrypted: Bool

    init?(_ info: JSONValue?) {
        guard let info, let name = info["node-name"]?.text, let driver = info["drv"]?.text else { return nil }
        (self.name, self.driver) = (name, driver)
        let filename = info["image"]?["filename"]?.text ?? ""
        let parsed =
            filename.hasPrefix("json:") ? try? JSONValue(parsing: Data(filename.dropFirst("json:".count).utf8)) : nil
        options = parsed?.members ?? [:]
        cacheIsDirect = info["cache"]?["direct"]?.isTrue ?? false
        cacheHasNoFlush = info["cache"]?["no-flush"]?.isTrue ?? false
        detectZeroes = info["detect_zeroes"]?.text ?? "off"
        isReadOnly = info["ro"]?.isTrue ?? false
        isEncrypted = info["image"]?["format-specific"]?["data"]?["encryption-format"] != nil
    }

    /// The drivers from the top down: "qcow2 over rbd".
    var chain: String {
        var names: [String] = []
        var at: [String: JSONValue]? = options
        while let here = at, names.count < 16 {
            if let name = here["driver"]?.text { names.append(name) }
            at = here["file"]?.members
        }
        return names.isEmpty ? driver : names.joined(separator: " over ")
    }

    /// The image at the bottom of it, if that is one of RBD.
    var image: RBDOptions? {
        var at: [String: JSONValue]? = options
        for _ in 0..<16 {
            guard let here = at else { return nil }
            if here["driver"]?.text == "rbd" { return RBDOptions(here) }
            at = here["file"]?.members
        }
        return nil
    }

    /// Whether it is a raw node that adds nothing to the node under it: no offset, no size.
    var isPlainRaw: Bool { driver == "raw" && Set(options.keys) == ["driver", "file"] }
}

/// What an rbd node was opened with (qapi/block-core.json, BlockdevOptionsRbd).
struct RBDOptions: Sendable, Equatable {
    let pool: String
    let namespace: String
    let image: String
    let hasSnapshot: Bool
    let configuration: String?
    let user: String?
    /// "server.0.host" and so on.
    let servers: [String: String]

    init?(_ options: [String: JSONValue]) {
        guard let pool = options["pool"]?.text, let image = options["image"]?.text else { return nil }
        (self.pool, self.image) = (pool, image)
        namespace = options["namespace"]?.text ?? ""
        hasSnapshot = options["snapshot"] != nil
        (configuration, user) = (options["conf"]?.text, options["user"]?.text)
        servers = options.filter { $0.key.hasPrefix("server.") }.compactMapValues(\.text)
    }

    var spec: String { pool + "/" + (namespace.isEmpty ? "" : namespace + "/") + image }

    func isNamed(by address: RBDAddress) -> Bool {
        !hasSnapshot && pool == address.pool && namespace == address.namespace && image == address.image
    }

    /// As blockdev-add takes them again: [{"host": ..., "port": ...}].
    var serverList: [JSONValue] {
        var list: [JSONValue] = []
        while let host = servers["server.\(list.count).host"], let port = servers["server.\(list.count).port"] {
            list.append(["host": .string(host), "port": .string(port)])
        }
        return list
    }
}

/// A disk of the VM, and what stands behind it.
struct GuestDisk: Sendable, Equatable {
    /// "/machine/peripheral/vd0/virtio-backend", or the name of what was made by -drive.
    let device: String
    /// What its users in the block graph may be called.
    let aliases: Set<String>
    let root: BlockNode

    init?(_ entry: JSONValue) {
        guard let root = BlockNode(entry["inserted"]) else { return nil }
        self.root = root
        let name = entry["qdev"]?.text ?? ""
        let drive = entry["device"]?.text ?? ""
        device = name.isEmpty ? drive : name
        aliases = [name, drive].filter { !$0.isEmpty }.reduce(into: []) { $0.insert($1) }
    }

    var title: String {
        // "vd0" of "/machine/peripheral/vd0/virtio-backend": what the operator called it.
        let parts = device.split(separator: "/")
        let name = parts.count > 2 && parts.first == "machine" ? String(parts[2]) : device
        let image = root.image.map { " \($0.spec)" } ?? ""
        return "\(name) (\(root.chain)\(image))"
    }
}
