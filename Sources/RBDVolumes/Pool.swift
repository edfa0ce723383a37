internal import CCeph
internal import Volumes

/// A pool, seen in one namespace and at one snapshot: what librados calls an I/O context.
@safe final class Pool: Sendable {
    let cluster: Cluster
    let name: String
    let namespace: String
    // Unsafe: operations on an I/O context are thread-safe (librados.h); its snapshot and namespace are set in
    // `init` alone, and it is destroyed once, in `deinit`.
    nonisolated(unsafe) let handle: rados_ioctx_t

    /// - Parameter snapshot: What its reads show; the head by default.
    init(_ cluster: Cluster, name: String, namespace: String, snapshot: UInt64 = CCEPH_HEAD) throws(VolumeError) {
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        var created: rados_ioctx_t?
        let code = unsafe rados_ioctx_create(cluster.handle, name, &created)
        guard code == 0, let handle = unsafe created else {
            throw VolumeError(
                ceph: code, "rados_ioctx_create", on: "pool \(name)",
                advice: code == -2 ? "There is no such pool: 'ceph osd pool ls' lists them." : nil)
        }
        unsafe self.handle = unsafe handle
        unsafe rados_ioctx_set_namespace(handle, namespace)
        unsafe rados_ioctx_snap_set_read(handle, snapshot)
        // A write to a full pool waits for room, and says nothing, unless it is asked to fail.
        unsafe rados_set_pool_full_try(handle)
    }

    deinit { unsafe rados_ioctx_destroy(handle) }

    var id: Int64 { unsafe rados_ioctx_get_id(handle) }

    /// The same pool, showing another snapshot.
    func showing(_ snapshot: UInt64) throws(VolumeError) -> Pool {
        try Pool(cluster, name: name, namespace: namespace, snapshot: snapshot)
    }
}
