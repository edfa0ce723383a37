internal import Capacity
internal import CCeph
internal import Foundation
package import Volumes

extension RBDTarget {
    package func obstacles(to source: VolumeDescription, room: ByteCount) async throws(VolumeError) -> [Obstacle] {
        var found: [Obstacle] = []
        let state = try await state()
        if state == .foreign {
            let isUnderItsName = try await pool.id(ofNamed: name) != nil
            let standing = isUnderItsName ? address : "the image \(unfinishedName), where \(address) would begin,"
            found.append(
                Obstacle(
                    .exists, "\(standing) exists, and wasn't begun by Godwit",
                    remedy: "Choose another name, or remove it yourself: Godwit never overwrites."))
        }
        let layout = wishes.applied(to: source.layout)
        found += try await obstacles(inPools: layout, room: state == .absent ? room : .zero)
        if layout.features.contains("fast-diff"), !layout.features.contains("object-map") {
            found.append(needs("fast-diff", "object-map"))
        }
        for feature in ["object-map", "journaling"]
        where layout.features.contains(feature) && !layout.features.contains("exclusive-lock") {
            found.append(needs(feature, "exclusive-lock"))
        }
        for snapshot in source.snapshots where snapshot.isProtected && !layout.features.contains("layering") {
            found.append(
                Obstacle(
                    .unsupported,
                    "snapshot \(snapshot.name) is protected, which the target can't do without 'layering'",
                    remedy: "Add --image-feature layering."))
            break
        }
        if !layout.stripeUnit.bytes.isMultiple(of: 512) || layout.stripeUnit == .zero || layout.stripeCount == 0
            || !layout.objectSize.bytes.isMultiple(of: layout.stripeUnit.bytes)
        {
            found.append(
                Obstacle(
                    .unsupported,
                    "a stripe unit of \(layout.stripeUnit.bytes) bytes doesn't divide objects of "
                        + "\(layout.objectSize.bytes)", remedy: "Give --stripe-unit and --object-size that fit."))
        }
        return found
    }

    private func needs(_ feature: String, _ other: String) -> Obstacle {
        Obstacle(
            .unsupported, "the image feature \(feature) needs \(other)",
            remedy: "Add --image-feature \(other), or leave \(feature) out.")
    }

    private func obstacles(inPools layout: Layout, room: ByteCount) async throws(VolumeError) -> [Obstacle] {
        var found: [Obstacle] = []
        if !pool.namespace.isEmpty, try await !pool.hasNamespace() {
            found.append(
                Obstacle(
                    .missing, "pool \(pool.name) has no namespace \(pool.namespace)",
                    remedy: "Make it: 'rbd namespace create \(pool.path)'."))
        }
        var data = pool
        if let name = layout.dataPool {
            do throws(VolumeError) {
                data = try Pool(cluster, name: name, namespace: pool.namespace)
            } catch  where error.kind == .missing {
                found.append(
                    Obstacle(
                        .missing, "the target's cluster has no pool \(name) for the data",
                        remedy: "Name one with --data-pool (--data-pool \(pool.name) puts the data beside the image)."))
                return found
            }
        }
        for pool in pool === data ? [pool] : [pool, data] {
            if let refusal = await pool.probeWriting() {
                found.append(
                    Obstacle(
                        .forbidden, "the caps of this user don't allow writing to pool \(pool.name): \(refusal.reason)",
                        remedy: "Give it 'osd \"profile rbd pool=\(pool.name)\"' (Docs/Operations.md)."))
            }
        }
        if let available = await cluster.views(ofPools: [data.name]).first?.room, available < room {
            found.append(
                Obstacle(
                    .full, "pool \(data.name) has room for \(available.bytes) bytes; \(room.bytes) are to be written",
                    remedy: "Make room, raise the pool's quota, or choose another pool."))
        }
        return found
    }
}

extension Pool {
    fileprivate func hasNamespace() async throws(VolumeError) -> Bool {
        try await blocking { () throws(VolumeError) in
            var exists = false
            let code = unsafe rbd_namespace_exists(self.handle, self.namespace, &exists)
            try check(code, "rbd_namespace_exists", on: "pool \(self.path)")
            return exists
        }
    }
}
