internal import CCeph
internal import Foundation
package import Volumes

/// Something of a move that stands in a cluster.
package struct Leftover: Sendable, Equatable, Codable {
    package enum Kind: String, Sendable, Codable {
        /// A target that isn't finished.
        case unfinished = "unfinished target"
        /// A target that is finished, and whose move wasn't tidied up after.
        case untidied = "finished target"
        /// A state of a source that a move held.
        case transient = "transient snapshot"
        /// A limit that a move has put on a source's clients.
        case throttle = "write limit"
        /// A move's word that it is at a source.
        case claim = "mark of a move"
    }
    /// Whether the move that it is of goes on.
    package enum Life: String, Sendable, Codable {
        case alive, gone
        /// It was on a host from which nothing can be heard here.
        case unknown
    }

    package let kind: Kind
    /// The image it stands in: a target under the name that it is to have.
    package let address: String
    /// The snapshot, or the limit.
    package let detail: String?
    /// "process 3141 on west1", if it is known whose it is.
    package let mover: String?
    /// Where the move goes, if that is known.
    package let target: String?
    package let life: Life
}

/// Finds what moves left in a cluster.
package struct LeftoverSurvey: Sendable {
    private static let inFlight = 16

    private let cluster: Cluster
    private let scopes: [RBDScope]

    /// - Parameter scopes: At least one; all of one cluster.
    package static func connect(to scopes: [RBDScope]) async throws(VolumeError) -> LeftoverSurvey {
        LeftoverSurvey(cluster: try await Cluster.connect(for: scopes[0].access), scopes: scopes)
    }

    private init(cluster: Cluster, scopes: [RBDScope]) {
        self.cluster = cluster
        self.scopes = scopes
    }

    /// What an image tells of moves.
    private struct Trace: Sendable {
        let address: RBDAddress
        var transients: [String] = []
        var claims: [Claim] = []
        var throttle: ThrottleMark?
        var record: String?
        var holder: Holder?
        var watchers: [Image.Watcher] = []
        var isUnfinished = false
    }

    /// - Parameter looked: Told how many images were looked at so far.
    package func run(
        _ looked: @Sendable (Int) -> Void
    ) async throws(VolumeError) -> (found: [Leftover], problems: [String]) {
        var problems: [String] = []
        var traces: [Trace] = []
        var count = 0
        for place in try await Places(cluster: cluster, scopes: scopes).list(&problems) {
            do throws(VolumeError) {
                try await place.forEachImage { page throws(VolumeError) in
                    let pool = place.pool
                    traces += try await concurrently(page, limit: Self.inFlight) { image throws(VolumeError) in
                        try await self.trace(of: image, in: pool)
                    }.compactMap(\.self)
                    count += page.count
                    looked(count)
                }
            } catch  where error.kind != .unreachable && place.isOptional {
                problems.append("pool \(place.pool.path): \(error.operation): \(error.reason)")
            }
        }
        return (traces.flatMap { leftovers(in: $0, among: traces) }.sorted { $0.address < $1.address }, problems)
    }

    /// - Returns: Nothing if it has nothing of a move.
    private func trace(of image: ListedImage, in pool: Pool) async throws(VolumeError) -> Trace? {
        guard let id = image.id, !image.isInTrash, let header = try await header(id, in: pool) else { return nil }
        let isUnfinished = image.name.hasSuffix(Marking.suffix)
        let name = isUnfinished ? String(image.name.dropLast(Marking.suffix.count)) : image.name
        var trace = Trace(address: scopes[0].access.naming(pool: pool.name, namespace: pool.namespace, image: name))
        trace.isUnfinished = isUnfinished
        trace.transients = header.snapshots.compactMap { snapshot in
            let listed = Snapshot(id: snapshot.id, name: snapshot.name, size: snapshot.size)
            return snapshot.kind == .user && listed.isTransient ? snapshot.name : nil
        }
        for (key, value) in try await pool.ownMetadata("rbd_header." + id) ?? [] {
            let text = String(decoding: value, as: UTF8.self)
            switch key {
            case Marking.record: trace.record = text
            case Marking.holder: trace.holder = Holder(text: text)
            case Marking.throttle: trace.throttle = ThrottleMark(encoded: value)
            case _ where key.hasPrefix(Marking.claim): trace.claims += [Claim(encoded: value)].compactMap(\.self)
            default: break
            }
        }
        if isUnfinished || trace.record != nil { trace.watchers = try await pool.watchers(ofImage: image.name) }
        let isEmpty =
            trace.transients.isEmpty && trace.claims.isEmpty && trace.throttle == nil && trace.record == nil
            && !isUnfinished
        return isEmpty ? nil : trace
    }

    /// One that goes while it is looked at, or that only a newer librbd knows, has nothing to tell.
    private func header(_ id: String, in pool: Pool) async throws(VolumeError) -> ImageHeader? {
        do throws(VolumeError) {
            return try await ImageHeader.load(id: id, in: pool)
        } catch  where [.unsupported, .missing, .damaged].contains(error.kind) {
            return nil
        }
    }

    private func leftovers(in trace: Trace, among all: [Trace]) -> [Leftover] {
        var found: [Leftover] = []
        func add(_ kind: Leftover.Kind, _ detail: String?, _ holder: Holder?, target: String?, _ life: Leftover.Life) {
            found.append(
                Leftover(
                    kind: kind, address: trace.address.text, detail: detail,
                    mover: holder.map { "process \($0.process) on \($0.host)" }, target: target, life: life))
        }
        if trace.isUnfinished || trace.record != nil {
            let life: Leftover.Life = trace.holder.map { self.life(of: $0, among: [trace]) } ?? .gone
            add(trace.isUnfinished ? .unfinished : .untidied, nil, trace.holder, target: trace.address.text, life)
        }
        // Whatever stands in a source is a living move's, if one says that it is at it.
        let claims = trace.claims.map { (claim: $0, life: self.life(of: $0.holder, among: all)) }
        let strongest = [Leftover.Life.alive, .unknown, .gone].lazy.compactMap { life in
            claims.first { $0.life == life }
        }
        let owner = strongest.first
        let life: Leftover.Life = owner?.life ?? .gone
        for name in trace.transients {
            // A move that doesn't say so may be of an older Godwit; its record names what it holds.
            let mover = all.first { $0.record?.contains(name) == true }
            let known = mover?.holder.map { self.life(of: $0, among: all) }
            add(
                .transient, name, owner?.claim.holder ?? mover?.holder,
                target: owner?.claim.target ?? mover?.address.text, known == .alive ? .alive : life)
        }
        if let throttle = trace.throttle {
            add(
                .throttle, "\(String(decoding: throttle.set, as: UTF8.self)) bytes/s", owner?.claim.holder,
                target: owner?.claim.target, life)
        }
        for (claim, life) in claims { add(.claim, nil, claim.holder, target: claim.target, life) }
        return found
    }

    /// Whether a process lives: as this host can tell, or as its watch on a target does.
    private func life(of holder: Holder, among traces: [Trace]) -> Leftover.Life {
        switch holder.life {
        case .alive: return .alive
        case .dead: return .gone
        case .unknown:
            let targets = traces.filter { $0.holder?.client == holder.client }
            if targets.contains(where: { $0.watchers.contains { holder.has($0.address) } }) { return .alive }
            return targets.isEmpty ? .unknown : .gone
        }
    }
}
