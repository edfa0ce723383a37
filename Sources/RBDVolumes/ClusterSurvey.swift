package import Capacity
package import Volumes

/// Measures the images of a cluster, of pools, of namespaces, or single ones.
package struct ClusterSurvey: Sendable {
    /// Images that are measured at once, of all that the slots let in.
    private static let imagesAtOnce = 64

    private let cluster: Cluster
    private let scopes: [RBDScope]
    private let isExact: Bool
    private let slots: Slots

    package struct Outcome: Sendable {
        package var images: [ImageUsage] = []
        package var pools: [PoolView] = []
        /// Pools that couldn't be listed, and why.
        package var problems: [String] = []
    }

    /// - Parameters:
    ///   - scopes: At least one; all of one cluster.
    ///   - parallel: Operations under way at once.
    package static func connect(
        to scopes: [RBDScope], isExact: Bool, parallel: Int
    ) async throws(VolumeError) -> ClusterSurvey {
        let cluster = try await Cluster.connect(for: scopes[0].access)
        return ClusterSurvey(cluster: cluster, scopes: scopes, isExact: isExact, slots: Slots(parallel))
    }

    private init(cluster: Cluster, scopes: [RBDScope], isExact: Bool, slots: Slots) {
        self.cluster = cluster
        self.scopes = scopes
        self.isExact = isExact
        self.slots = slots
    }

    /// - Parameter looked: Told how many images were measured so far, and how many are known of.
    package func run(_ looked: @Sendable (_ done: Int, _ known: Int) -> Void) async throws(VolumeError) -> Outcome {
        var outcome = Outcome()
        var pools: Set<String> = []
        var (done, known) = (0, 0)
        var seen: Set<[UInt8]> = []
        for place in try await places(&outcome) {
            pools.insert(place.pool.name)
            let survey = ImageSurvey(pool: place.pool, isExact: isExact, slots: slots)
            do throws(VolumeError) {
                try await images(of: place) { page throws(VolumeError) in
                    // An image may be named by several scopes.
                    let page = page.filter { seen.insert($0.key(in: place.pool)).inserted }
                    known += page.count
                    looked(done, known)
                    for start in stride(from: 0, to: page.count, by: Self.imagesAtOnce) {
                        let some = page[start..<min(start + Self.imagesAtOnce, page.count)]
                        let found = try await concurrently(some, limit: Self.imagesAtOnce) {
                            image throws(VolumeError) in
                            try await survey.usage(of: image)
                        }
                        outcome.images += found.compactMap(\.self)
                        done += some.count
                        looked(done, known)
                    }
                }
            } catch  where error.kind != .unreachable && place.isOptional {
                outcome.problems.append("pool \(place.pool.path): \(error.operation): \(error.reason)")
            }
        }
        pools.formUnion(outcome.images.compactMap(\.dataPool))
        outcome.pools = await cluster.views(ofPools: pools)
        return outcome
    }

    /// A namespace of a pool, or one image in it.
    private struct Place: Sendable {
        let pool: Pool
        var image: ListedImage?
        /// Nobody has named it: what stands against listing it is told, and the others are listed.
        var isOptional = false
    }

    private func images(
        of place: Place, _ found: ([ListedImage]) async throws(VolumeError) -> Void
    ) async throws(VolumeError) {
        if let image = place.image { return try await found([image]) }
        try await place.pool.forEachImage(found)
    }

    private func places(_ outcome: inout Outcome) async throws(VolumeError) -> [Place] {
        var places: [Place] = []
        for scope in scopes {
            guard let name = scope.pool else {
                for pool in try await cluster.rbdPools() {
                    do throws(VolumeError) {
                        places += try await namespaces(ofPool: pool, isOptional: true)
                    } catch  where error.kind != .unreachable {
                        outcome.problems.append("pool \(pool): \(error.operation): \(error.reason)")
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
