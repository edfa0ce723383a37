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
        let places = Places(cluster: cluster, scopes: scopes)
        for place in try await places.list(&outcome.problems) {
            pools.insert(place.pool.name)
            let survey = ImageSurvey(pool: place.pool, isExact: isExact, slots: slots)
            do throws(VolumeError) {
                try await place.forEachImage { page throws(VolumeError) in
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
}
