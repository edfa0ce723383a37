internal import Volumes

/// Where the images are that scopes name.
struct Places: Sendable {
    let cluster: Cluster
    let scopes: [RBDScope]

    /// A namespace of a pool, or one image in it.
    struct Place: Sendable {
        let pool: Pool
        var image: ListedImage?
        /// Nobody has named it: what stands against listing it is told, and the others are listed.
        var isOptional = false

        func forEachImage(_ found: ([ListedImage]) async throws(VolumeError) -> Void) async throws(VolumeError) {
            if let image { return try await found([image]) }
            try await pool.forEachImage(found)
        }
    }

    /// - Parameter problems: Gets the pools that couldn't be listed, and why.
    func list(_ problems: inout [String]) async throws(VolumeError) -> [Place] {
        var places: [Place] = []
        for scope in scopes {
            guard let name = scope.pool else {
                for pool in try await cluster.rbdPools() {
                    do throws(VolumeError) {
                        places += try await namespaces(ofPool: pool, isOptional: true)
                    } catch  where error.kind != .unreachable {
                        problems.append("pool \(pool): \(error.operation): \(error.reason)")
                    }
                }
                continue
            }
            switch scope.names.count {
            case 0: places += try await namespaces(ofPool: name, isOptional: false)
            case 1: places.append(try await place(named: scope.names[0], ofPool: name))
            default:
                if scope.names[1].isEmpty {
                    places.append(try await namespace(scope.names[0], ofPool: name))
                } else {
                    let pool = try Pool(cluster, name: name, namespace: scope.names[0])
                    places.append(try await image(scope.names[1], in: pool))
                }
            }
        }
        return places
    }

    private func namespaces(ofPool name: String, isOptional: Bool) async throws(VolumeError) -> [Place] {
        let pool = try Pool(cluster, name: name, namespace: "")
        var places = [Place(pool: pool, isOptional: isOptional)]
        for namespace in try await pool.namespaces() {
            places.append(Place(pool: try Pool(cluster, name: name, namespace: namespace), isOptional: isOptional))
        }
        return places
    }

    /// POOL/NAME is an image if there is one of that name, and a namespace otherwise.
    private func place(named name: String, ofPool poolName: String) async throws(VolumeError) -> Place {
        do throws(VolumeError) {
            return try await image(name, in: try Pool(cluster, name: poolName, namespace: ""))
        } catch let error where error.kind == .missing || error.kind == .forbidden {
            // Who may see one namespace alone can't look for images beside it.
            do throws(VolumeError) {
                return try await namespace(name, ofPool: poolName)
            } catch  where error.kind == .missing {
                throw error
            }
        }
    }

    private func namespace(_ name: String, ofPool poolName: String) async throws(VolumeError) -> Place {
        let pool = try Pool(cluster, name: poolName, namespace: "")
        do throws(VolumeError) {
            guard try await pool.namespaces().contains(name) else {
                throw VolumeError(
                    ceph: -2, "rbd_namespace_list", on: "namespace \(name) of pool \(poolName)",
                    advice: "'rbd namespace ls \(poolName)' lists them.")
            }
        } catch  where error.kind == .forbidden {
            // The list is beside all namespaces; whether this one may be read shows when it is.
        }
        return Place(pool: try Pool(cluster, name: poolName, namespace: name))
    }

    private func image(_ name: String, in pool: Pool) async throws(VolumeError) -> Place {
        if let id = try await pool.id(ofNamed: name) {
            return Place(pool: pool, image: ListedImage(name: name, id: id))
        }
        // An image of format 1 has a header of its name.
        if try await pool.hasObject("\(name).rbd") {
            return Place(pool: pool, image: ListedImage(name: name, id: nil))
        }
        throw VolumeError(
            ceph: -2, "rados_read", on: "\(pool.path)/\(name)", advice: "'rbd ls \(pool.path)' lists the images there.")
    }
}
