internal import CCeph
internal import Foundation
internal import Synchronization
package import Volumes

/// A connection to a Ceph cluster.
@safe package final class Cluster: Sendable {
    /// How long to wait for a monitor when connecting.
    static let connectLimit = Duration.seconds(20)
    /// How long an operation may wait for its OSD before it fails. Longer than an OSD's restart; a cluster that stays
    /// away longer ends the run, which can be resumed.
    static let operationLimit = Duration.seconds(90)

    // Unsafe: librados's handles are thread-safe (librados.h); this one is shut down once, in `deinit`.
    nonisolated(unsafe) let handle: rados_t
    /// The cluster's own id: two addresses may lead to one cluster.
    package let fsid: String
    /// How this client is known to the OSDs, as a blocklist takes it.
    let clientAddresses: String
    /// Its number among all clients of the cluster: "client.4127".
    let clientNumber: Int64

    private init(handle: rados_t) throws(VolumeError) {
        unsafe self.handle = unsafe handle
        fsid = unsafe try text("rados_cluster_fsid", limit: 37) { buffer, size in
            unsafe rados_cluster_fsid(handle, buffer, size)
        }
        var addresses: UnsafeMutablePointer<CChar>?
        let code = unsafe rados_getaddrs(handle, &addresses)
        clientAddresses = unsafe code == 0 ? addresses.map { unsafe String(cString: $0) } ?? "" : ""
        unsafe rados_buffer_free(addresses)
        clientNumber = Int64(bitPattern: unsafe rados_get_instance_id(handle))
    }

    deinit { unsafe rados_shutdown(handle) }

    /// Connections by how they were asked for: both ends of a move within a cluster share one.
    private static let connections = Mutex<[Access: Cluster]>([:])

    struct Access: Hashable {
        let configuration: String?
        let user: String?
        let keyring: String?
        let caching: Caching
    }

    /// What librbd does with the bytes of images that are opened over a connection.
    package enum Caching: Sendable {
        /// For a move: every byte is read once and written once, and a cache would only copy them.
        case off
        /// For who uses an image: `rbd_cache` and its kin as the operator has them.
        case asConfigured
    }

    /// Connects, or hands on the connection that is there.
    package static func connect(
        for address: RBDAddress, caching: Caching = .off
    ) async throws(VolumeError) -> Cluster {
        let environment = environment()
        let access = Access(
            configuration: address.configuration ?? environment.configuration, user: address.user ?? environment.user,
            keyring: address.keyring, caching: caching)
        if let cluster = connections.withLock({ $0[access] }) { return cluster }
        let cluster = try await blocking { () throws(VolumeError) in try connect(access) }
        return connections.withLock { known in
            if let other = known[access] { return other }
            known[access] = cluster
            return cluster
        }
    }

    private static func connect(_ access: Access) throws(VolumeError) -> Cluster {
        var created: rados_t?
        let name = "client." + (access.user ?? "admin")
        try check(unsafe rados_create2(&created, "ceph", name, 0), "rados_create2", on: name)
        guard let handle = unsafe created else {
            throw VolumeError(.failed, "rados_create2", on: name, reason: "no handle")
        }
        do throws(VolumeError) {
            unsafe try configure(handle, access)
            let where_ =
                access.configuration ?? ProcessInfo.processInfo.environment["CEPH_CONF"] ?? "/etc/ceph/ceph.conf"
            let code = unsafe rados_connect(handle)
            guard code >= 0 else { throw connectError(code, name: name, configuration: where_) }
            return unsafe try Cluster(handle: handle)
        } catch {
            unsafe rados_shutdown(handle)
            throw error
        }
    }

    private static func connectError(_ code: Int32, name: String, configuration: String) -> VolumeError {
        let cause = VolumeError(ceph: code, "rados_connect", on: "cluster of \(configuration) as \(name)")
        let advice =
            switch cause.kind {
            case .missing:
                "No keyring for \(name), or no monitor's address, in \(configuration): name them with :conf=, :id= and :keyring=."
            case .forbidden:
                "The monitors refuse \(name): is its key in the keyring the one that 'ceph auth get \(name)' shows?"
            default:
                "No monitor answered within \(connectLimit.components.seconds) s: is the cluster up, and its address in \(configuration) right?"
            }
        return VolumeError(
            cause.kind == .forbidden ? .forbidden : .unreachable, cause.operation, on: cause.object,
            reason: cause.reason,
            advice: advice)
    }

    private static func configure(_ handle: rados_t, _ access: Access) throws(VolumeError) {
        // Without a path librados looks at CEPH_CONF, then at the usual places.
        let read = unsafe rados_conf_read_file(handle, access.configuration)
        guard read >= 0 else {
            throw VolumeError(
                read == -2 ? .unreachable : .failed, "rados_conf_read_file",
                on: access.configuration ?? ProcessInfo.processInfo.environment["CEPH_CONF"] ?? "/etc/ceph/ceph.conf",
                reason: VolumeError(ceph: read, "", on: "").reason,
                advice: "Name the cluster's ceph.conf with :conf=PATH or CEPH_CONF.")
        }
        try check(unsafe rados_conf_parse_env(handle, "CEPH_ARGS"), "rados_conf_parse_env", on: "CEPH_ARGS")
        if let keyring = access.keyring { unsafe try set(handle, "keyring", keyring) }
        // Waiting for ever is what librados does by default. What the operator has set stays.
        unsafe try setUnlessSet(handle, "client_mount_timeout", "\(connectLimit.components.seconds)", default: "300")
        unsafe try setUnlessSet(handle, "rados_mon_op_timeout", "\(connectLimit.components.seconds)", default: "0")
        unsafe try setUnlessSet(handle, "rados_osd_op_timeout", "\(operationLimit.components.seconds)", default: "0")
        if access.caching == .off { unsafe try set(handle, "rbd_cache", "false") }
        // The buffer of a write stays as it is until its completion. A cache would keep it, and so the completion, for
        // longer (librbd.cc, `create_write_raw`): there librbd makes its copy.
        if unsafe try get(handle, "rbd_cache") == "false" {
            unsafe try set(handle, "rbd_disable_zero_copy_writes", "false")
        }
        // A log of this client's own helps nobody, and its file may not be writable.
        unsafe try set(handle, "log_to_stderr", "false")
        unsafe try set(handle, "log_file", "")
    }

    private static func set(_ handle: rados_t, _ key: String, _ value: String) throws(VolumeError) {
        try check(unsafe rados_conf_set(handle, key, value), "rados_conf_set", on: key)
    }

    private static func get(_ handle: rados_t, _ key: String) throws(VolumeError) -> String {
        unsafe try text("rados_conf_get", limit: 64) { buffer, size in unsafe rados_conf_get(handle, key, buffer, size)
        }
    }

    private static func setUnlessSet(
        _ handle: rados_t, _ key: String, _ value: String, default standard: String
    ) throws(VolumeError) {
        let present = unsafe try get(handle, key)
        // Numbers come back with decimals: "0.000000".
        guard Double(present) == Double(standard) else { return }
        unsafe try set(handle, key, value)
    }

    /// What `CEPH_ARGS` says of how to reach the cluster, which librados leaves to the program.
    private static func environment() -> (configuration: String?, user: String?) {
        var found: (configuration: String?, user: String?)
        let words = (ProcessInfo.processInfo.environment["CEPH_ARGS"] ?? "").split(separator: " ").map(String.init)
        for (index, word) in words.enumerated() {
            let pair = word.split(separator: "=", maxSplits: 1).map(String.init)
            let value = pair.count == 2 ? pair[1] : index + 1 < words.count ? words[index + 1] : nil
            guard let value else { continue }
            switch pair[0] {
            case "--id", "--user", "-i": found.user = value
            case "--name", "-n":
                found.user = value.hasPrefix("client.") ? String(value.dropFirst("client.".count)) : value
            case "--conf", "-c": found.configuration = value
            case "--cluster": found.configuration = "/etc/ceph/\(value).conf"
            default: continue
            }
        }
        return found
    }

    /// Evicts a client: none of its operations is carried out any more, once this returned.
    func evict(_ client: String) async throws(VolumeError) {
        try await blocking { () throws(VolumeError) in
            for address in plainAddresses(of: client) {
                let code = unsafe address.withCString {
                    unsafe rados_blocklist_add(self.handle, UnsafeMutablePointer(mutating: $0), 3600)
                }
                try check(code, "rados_blocklist_add", on: address)
            }
            try check(unsafe rados_wait_for_latest_osdmap(self.handle), "rados_wait_for_latest_osdmap", on: self.fsid)
        }
    }

    /// The name of a pool by its number.
    func poolName(_ id: Int64) throws(VolumeError) -> String {
        unsafe try text("rados_pool_reverse_lookup", limit: 1024) { buffer, size in
            unsafe rados_pool_reverse_lookup(self.handle, id, buffer, size)
        }
    }
}

/// The addresses in a client's name, without the protocol's version: "[v2:10.0.0.1:0/7,v1:10.0.0.1:0/7]" has one,
/// "10.0.0.1:0/7". Those of IPv6 keep their own brackets.
func plainAddresses(of client: String) -> Set<String> {
    let list = client.hasPrefix("[v") ? client.dropFirst().dropLast() : client[...]
    return Set(
        list.split(separator: ",").map { address in
            String(address.hasPrefix("v1:") || address.hasPrefix("v2:") ? address.dropFirst(3) : address)
        })
}

/// Calls a function that writes a C string into a buffer and returns its length, or a negative errno.
func text(
    _ operation: String, limit: Int, _ call: (UnsafeMutablePointer<CChar>, Int) -> Int32
) throws(VolumeError) -> String {
    var failure: Int32 = 0
    let result = unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: limit + 1) { buffer -> String in
        unsafe buffer.initialize(repeating: 0)
        guard let start = buffer.baseAddress else { return "" }
        failure = unsafe call(start, limit)
        return failure < 0 ? "" : unsafe String(cString: start)
    }
    try check(failure, operation, on: "cluster")
    return result
}
