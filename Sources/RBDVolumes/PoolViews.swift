internal import Capacity
internal import CCeph
internal import Foundation
internal import Volumes

extension Cluster {
    /// What the monitors say of pools.
    /// - Returns: Nothing if they refuse to tell.
    func views(ofPools names: Set<String>) async -> [PoolView] {
        struct Usage: Decodable {
            struct Pool: Decodable {
                struct Stats: Decodable {
                    let stored: UInt64?
                    let bytes_used: UInt64
                    let max_avail: UInt64
                }
                let name: String
                let stats: Stats
            }
            let pools: [Pool]
        }
        struct Map: Decodable {
            struct Pool: Decodable {
                let pool_name: String
                let size: Int
                let erasure_code_profile: String?
                let quota_max_bytes: UInt64
            }
            let pools: [Pool]
            let erasure_code_profiles: [String: [String: String]]?
        }
        guard let usage: Usage = await ask(["prefix": "df", "format": "json"]) else { return [] }
        let map: Map? = await ask(["prefix": "osd dump", "format": "json"])
        return usage.pools.filter { names.contains($0.name) }.map { pool in
            let entry = map?.pools.first { $0.pool_name == pool.name }
            let profile = entry?.erasure_code_profile.flatMap { map?.erasure_code_profiles?[$0] }
            var redundancy = entry.map { $0.size == 1 ? "1 copy" : "\($0.size) copies" } ?? ""
            var overhead = Double(entry?.size ?? 1)
            if let data = profile?["k"].flatMap(Double.init), let parity = profile?["m"].flatMap(Double.init), data > 0
            {
                redundancy = "erasure-coded \(Int(data))+\(Int(parity))"
                overhead = (data + parity) / data
            }
            return PoolView(
                name: pool.name, stored: ByteCount(pool.stats.stored ?? pool.stats.bytes_used),
                used: ByteCount(pool.stats.bytes_used), available: ByteCount(pool.stats.max_avail),
                quota: entry.flatMap { $0.quota_max_bytes > 0 ? ByteCount($0.quota_max_bytes) : nil },
                redundancy: redundancy, overhead: overhead)
        }
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
        guard unsafe rados_application_list(pool.handle, &values, &count) >= 0 else { return false }
        return Image.strings(values[..<min(count, values.count)]).contains("rbd")
    }
}
