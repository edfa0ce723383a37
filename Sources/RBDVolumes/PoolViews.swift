internal import Capacity
internal import CCeph
internal import Foundation
internal import Volumes

extension Cluster {
    /// Whether the monitors answer.
    var answers: Bool {
        get async {
            struct Identity: Decodable { let fsid: String }
            let identity: Identity? = await ask(["prefix": "fsid", "format": "json"])
            return identity != nil
        }
    }

    /// What the monitors say of pools.
    /// - Returns: Nothing of those of which they refuse to tell.
    func views(ofPools names: Set<String>) async -> [PoolView] {
        struct Pool: Decodable {
            let pool_name: String
            let size: Int
            let erasure_code_profile: String?
            let quota_max_bytes: UInt64
        }
        let pools: [Pool]? = await ask(["prefix": "osd pool ls", "detail": "detail", "format": "json"])
        let usage = await usage()
        var views: [PoolView] = []
        for pool in pools ?? [] where names.contains(pool.pool_name) {
            var view = PoolView(name: pool.pool_name, copies: pool.size)
            view.quota = pool.quota_max_bytes > 0 ? ByteCount(pool.quota_max_bytes) : nil
            if let profile = pool.erasure_code_profile, !profile.isEmpty, let data = await dataChunks(profile) {
                // Some codes have more parities than their m.
                view.redundancy = "erasure-coded \(data)+\(pool.size - data)"
                view.overhead = Double(pool.size) / Double(data)
            }
            // Of a pool that was just made they know no figures yet.
            if let stats = usage[pool.pool_name] {
                view.stored = ByteCount(stats.stored ?? stats.bytes_used)
                view.used = ByteCount(stats.bytes_used)
                view.available = ByteCount(stats.max_avail)
            }
            views.append(view)
        }
        return views
    }

    private struct Stats: Decodable, Sendable {
        let stored: UInt64?
        let bytes_used: UInt64
        let max_avail: UInt64
    }

    /// By pool.
    private func usage() async -> [String: Stats] {
        struct Usage: Decodable {
            struct Pool: Decodable {
                let name: String
                let stats: Stats
            }
            let pools: [Pool]
        }
        let usage: Usage? = await ask(["prefix": "df", "format": "json"])
        return Dictionary((usage?.pools ?? []).map { ($0.name, $0.stats) }) { first, _ in first }
    }

    private func dataChunks(_ profile: String) async -> Int? {
        let fields: [String: String]? = await ask(
            ["prefix": "osd erasure-code-profile get", "name": profile, "format": "json"])
        guard let data = fields?["k"].flatMap({ Int($0) }), data > 0 else { return nil }
        return data
    }

    /// The pools that are marked as RBD's (`ceph osd pool application enable`).
    func rbdPools() async throws(VolumeError) -> [String] {
        try await blocking { () throws(VolumeError) in
            var size = 4096
            var names: [CChar] = []
            repeat {
                size = max(size, names.count)
                names = [CChar](repeating: 0, count: size)
                size = Int(unsafe rados_pool_list(self.handle, &names, names.count))
                try check(Int32(size), "rados_pool_list", on: "cluster \(self.fsid)")
            } while size > names.count
            let all = Image.strings(names[...]).filter { !$0.isEmpty }
            var found: [String] = []
            for name in all where try self.isForRBD(name) { found.append(name) }
            return found
        }
    }

    private func isForRBD(_ name: String) throws(VolumeError) -> Bool {
        let pool: Pool
        do throws(VolumeError) {
            pool = try Pool(self, name: name, namespace: "")
        } catch let gone where gone.kind == .missing {
            return false
        }
        var values = [CChar](repeating: 0, count: 4096)
        var count = values.count
        try check(
            unsafe rados_application_list(pool.handle, &values, &count), "rados_application_list", on: "pool \(name)")
        return Image.strings(values[..<min(count, values.count)]).contains("rbd")
    }
}
