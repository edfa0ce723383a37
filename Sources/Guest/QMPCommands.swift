internal import Volumes

extension QMPConnection {
    func status() async throws(VolumeError) -> String {
        try await execute("query-status")["status"]?.text ?? ""
    }

    func isRunning() async throws(VolumeError) -> Bool {
        try await execute("query-status")["running"]?.isTrue ?? false
    }

    /// Names of the objects that were made by -object or object-add.
    func objects() async throws(VolumeError) -> Set<String> {
        let list = try await execute("qom-list", ["path": "/objects"]).elements ?? []
        return Set(list.compactMap { $0["name"]?.text })
    }

    func hasJob(_ id: String) async throws(VolumeError) -> Bool {
        try await execute("query-jobs").elements?.contains { $0["id"]?.text == id } ?? false
    }

    /// How much a disk was written to, by QEMU's own count (qapi/block-core.json, BlockDeviceStats).
    func writes(by disk: GuestDisk) async throws(VolumeError) -> [Int64] {
        let all = try await execute("query-blockstats").elements ?? []
        let stats = all.first { entry in
            [entry["qdev"]?.text, entry["device"]?.text].contains { $0.map(disk.aliases.contains) == true }
        }?["stats"]
        return ["wr_operations", "wr_bytes", "unmap_operations"].map { stats?[$0]?.integer ?? 0 }
    }

    /// Waits for a stage of a block job.
    ///
    /// - Throws: What the job ended of, if it ended before, or with an error.
    func job(_ id: String, reaches stage: String) async throws(VolumeError) {
        let ends: Set = [stage, "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"]
        let event = try await event(stage) { ends.contains($0.name) && $0.data["device"]?.text == id }
        let reason = event.data["error"]?.text
        guard event.name == stage, reason == nil else {
            throw VolumeError(
                .failed, "blockdev-mirror", on: title, reason: reason ?? "the job was ended by somebody else")
        }
    }
}

/// Who uses whom in QEMU's block layer (qapi/block-core.json, XDbgBlockGraph; its form isn't promised).
struct BlockGraph {
    private var names: [Int64: (type: String, name: String)] = [:]
    private var parents: [Int64: [Int64]] = [:]

    init(_ graph: JSONValue) {
        for node in graph["nodes"]?.elements ?? [] {
            guard let id = node["id"]?.integer else { continue }
            names[id] = (node["type"]?.text ?? "", node["name"]?.text ?? "")
        }
        for edge in graph["edges"]?.elements ?? [] {
            guard let child = edge["child"]?.integer, let parent = edge["parent"]?.integer else { continue }
            parents[child, default: []].append(parent)
        }
    }

    /// Whoever uses any of these nodes, other than one another and the device itself.
    func users(of nodes: [String], without aliases: Set<String>) -> [String] {
        var found: [String] = []
        for (id, node) in names where node.type == "block-driver" && nodes.contains(node.name) {
            for parent in (parents[id] ?? []).compactMap({ names[$0] }) {
                switch parent.type {
                case "block-driver" where nodes.contains(parent.name): continue
                case "block-backend" where aliases.contains(parent.name): continue
                case "block-backend": found.append(parent.name.isEmpty ? "an export" : parent.name)
                case "block-job": found.append("the job \(parent.name)")
                default: found.append("the node \(parent.name)")
                }
            }
        }
        return found.sorted()
    }
}
