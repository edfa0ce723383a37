import Mirror
import Synchronization
import Volumes

#if canImport(Glibc)
    import Glibc
#endif

// What must be so, seen from the two places and from the guest, and not from the move.
extension LiveGuest {
    /// What of a place isn't as the guest wrote it; nothing if all is.
    func difference(at place: Place) -> String? {
        let (bytes, kept) = state.withLock { ($0.bytes, $0.kept) }
        let snapshots = place.snapshots.filter { !$0.isTransient }
        guard snapshots.map(\.name) == kept.map(\.name) else {
            return "snapshots \(snapshots.map(\.name)), not \(kept.map(\.name))"
        }
        for (found, wanted) in zip(snapshots, kept) {
            if found.isProtected != wanted.isProtected { return "protection of \(wanted.name)" }
            if let difference = differing(place.bytes(of: .snapshot(found)), wanted.bytes) {
                return "snapshot \(wanted.name) \(difference)"
            }
        }
        return differing(place.bytes(), bytes).map { "head \($0)" }
    }

    private func differing(_ found: [UInt8], _ wanted: [UInt8]) -> String? {
        guard found.count == wanted.count else { return "has \(found.count) bytes, not \(wanted.count)" }
        guard unsafe memcmp(found, wanted, found.count) != 0 else { return nil }
        let first = zip(found, wanted).enumerated().first { $0.element.0 != $0.element.1 }
        return "differs from byte \(first?.offset ?? 0) on"
    }

    /// The writer is about to be sent on.
    func checkSwitch() {
        guard spot == .source else { return }
        if let difference = difference(at: site.target) {
            accuse("sent on to a target that isn't its volume: \(difference)")
        }
        if !isFrozen { accuse("sent on while it was running") }
    }

    /// Of those who may have it open, at any time.
    func checkPlaces() {
        let (here, there) = (site.source.writers.contains(Self.writer), site.target.writers.contains(Self.writer))
        if here && there && !state.withLock({ $0.keepsSource }) { accuse("it has both volumes open") }
    }

    /// A run has let go whom it held.
    func checkThawed(since begun: Duration) {
        if state.withLock({ $0.isFrozen && $0.frozenSince ?? .zero >= begun }) { accuse("left frozen") }
    }

    /// What a run that ended by itself leaves, whether it came to its end or not.
    func checkLeft(limit: ByteRate?, waits: Bool, since begun: Duration = .zero) {
        // Whom a run that died held still, a later one that can't even begin doesn't let go.
        let isLeft = state.withLock { $0.isFrozen && $0.frozenSince ?? begun < begun }
        if isLeft { return }
        if isFrozen { accuse("left frozen") }
        let open = site.source.writers.contains(Self.writer) || site.target.writers.contains(Self.writer)
        if !open && !waits { accuse("left without a volume") }
        if site.source.limit != limit { accuse("left limited: \(String(describing: site.source.limit))") }
    }

    /// All that a move leaves, once it is over.
    func checkEnd(limit: ByteRate?, rest: Retirement) {
        if site.target.names != ["finished"] { accuse("at the target there is \(site.target.names)") }
        if spot != .target { accuse("in the end the guest is at \(spot)") }
        if let difference = difference(at: site.target) {
            accuse("in the end the target isn't its volume: \(difference)")
        }
        if site.target.writers != [Self.writer] {
            accuse("at the target there write \(site.target.writers.map(\.title))")
        }
        if site.target.limit != limit { accuse("the target's limit is \(String(describing: site.target.limit))") }
        if !site.target.marks.isEmpty { accuse("the target is marked \(site.target.marks)") }
        checkLeft(limit: limit, waits: false)
        if !site.source.writers.isEmpty { accuse("at the source there write \(site.source.writers.map(\.title))") }
        if !site.transients.isEmpty { accuse("left on the source: \(site.transients)") }
        if site.source.marks != ["godwit.moved"] { accuse("the source is marked \(site.source.marks)") }
        if site.source.isRetired != (rest != .keep) { accuse("the source was to be left by \(rest)") }
    }

    /// All that a move leaves that was given up.
    func checkGivenUp(limit: ByteRate?) {
        if !site.target.names.isEmpty { accuse("given up, at the target there is \(site.target.names)") }
        if !site.transients.isEmpty { accuse("given up, left on the source: \(site.transients)") }
        if !site.source.marks.isEmpty { accuse("given up, the source is marked \(site.source.marks)") }
        if site.source.limit != limit { accuse("given up, left limited: \(String(describing: site.source.limit))") }
        if let difference = difference(at: site.source) {
            accuse("given up, the source isn't its volume: \(difference)")
        }
    }
}
