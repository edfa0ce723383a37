package import Volumes

/// The usage of many images, summed up.
package struct CapacityReport: Sendable {
    package enum Order: String, Sendable, CaseIterable {
        case name, size, used, allocated, snapshots, parent
    }

    /// Sums over images; a figure that is missing somewhere is a sum of the others.
    package struct Totals: Sendable, Equatable {
        package var images = 0
        package var provisioned = ByteCount.zero
        package var used = ByteCount.zero
        package var allocated = ByteCount.zero
        package var heldBySnapshots = ByteCount.zero
        /// Images of which a figure is missing.
        package var unanswered = 0

        package init() {}

        mutating func add(_ image: ImageUsage) {
            images += 1
            provisioned += image.provisioned ?? .zero
            used += image.used ?? .zero
            allocated += image.allocated ?? .zero
            heldBySnapshots += image.heldBySnapshots ?? .zero
            if image.problem != nil { unanswered += 1 }
        }
    }

    package struct Place: Sendable, Hashable {
        package let pool: String
        package let namespace: String
    }

    /// By pool, then by namespace.
    package private(set) var places: [(place: Place, totals: Totals)] = []
    package private(set) var images: [ImageUsage]
    package var pools: [PoolView]
    package let isExact: Bool

    /// - Parameter top: As many images are kept, the first in order; all are summed up.
    package init(_ images: [ImageUsage], pools: [PoolView], isExact: Bool, by order: Order, top: Int? = nil) {
        var sums: [Place: Totals] = [:]
        for image in images { sums[Place(pool: image.pool, namespace: image.namespace), default: Totals()].add(image) }
        places = sums.sorted { ($0.key.pool, $0.key.namespace) < ($1.key.pool, $1.key.namespace) }
            .map { (place: $0.key, totals: $0.value) }
        self.pools = pools.sorted { $0.name < $1.name }
        self.isExact = isExact
        let sorted = images.sorted { order.puts($0, before: $1) }
        self.images = top.map { Array(sorted.prefix($0)) } ?? sorted
    }

    package var totals: Totals {
        places.reduce(into: Totals()) { $0.add($1.totals) }
    }

    package func totals(ofPool pool: String) -> Totals {
        places.filter { $0.place.pool == pool }.reduce(into: Totals()) { $0.add($1.totals) }
    }
}

extension CapacityReport.Totals {
    fileprivate mutating func add(_ other: Self) {
        images += other.images
        provisioned += other.provisioned
        used += other.used
        allocated += other.allocated
        heldBySnapshots += other.heldBySnapshots
        unanswered += other.unanswered
    }
}

extension CapacityReport.Order {
    /// Names ascending, bytes descending; what is missing last, and the same figures by name.
    fileprivate func puts(_ one: ImageUsage, before other: ImageUsage) -> Bool {
        func name(_ image: ImageUsage) -> (String, String, String, String) {
            (image.pool, image.namespace, image.name, image.id ?? "")
        }
        func descending(_ figure: KeyPath<ImageUsage, ByteCount?>) -> Bool {
            let (left, right) = (one[keyPath: figure], other[keyPath: figure])
            if left == right { return name(one) < name(other) }
            guard let left else { return false }
            return right.map { left > $0 } ?? true
        }
        return switch self {
        case .name: name(one) < name(other)
        case .size: descending(\.provisioned)
        case .used: descending(\.used)
        case .allocated: descending(\.allocated)
        case .snapshots: descending(\.heldBySnapshots)
        case .parent: descending(\.parent)
        }
    }
}
