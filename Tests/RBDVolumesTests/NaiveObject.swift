import RBDVolumes
import Volumes

/// An object as an OSD keeps it: its head, the versions cloned for snapshots, and what each of them shares with the
/// next newer one, kept byte by byte (osd/PrimaryLogPG `make_writeable`, `_delete_oid`, `trim_object`).
///
/// Beside that bookkeeping it remembers what the bookkeeping is about: every state's bytes, and what each operation
/// touched.
struct NaiveObject {
    /// A wrong way to keep the books.
    enum Fault: CaseIterable { case none, forgetsATouchedByte, forgetsThatItWasDeleted, losesOverlapsOnTrim }

    struct Clone {
        let id: UInt64
        var snapshots: [UInt64]
        let bytes: [UInt8]
        /// Positions.
        var shared: Set<Int>
        /// How many operations had happened when its bytes came to be.
        let time: Int
    }

    let fault: Fault
    /// What each operation touched.
    private(set) var log: [Set<Int>] = []
    /// Nothing while the object doesn't exist.
    private(set) var head: [UInt8]?
    private(set) var clones: [Clone] = []
    private var sequence: UInt64 = 0
    private var wasEverWritten = false
    /// The image's newest snapshot, removed or not, and those that are left, oldest first.
    private var newestSnapshot: UInt64 = 0
    private(set) var snapshots: [UInt64] = []
    /// What each snapshot of the image has to show.
    private(set) var truth: [UInt64: [UInt8]?] = [:]

    init(fault: Fault = .none) { self.fault = fault }

    mutating func takeSnapshot(_ id: UInt64) {
        newestSnapshot = id
        snapshots.append(id)
        truth[id] = .some(head)
    }

    /// The image forgets it at once; the OSD trims the object when it comes to it.
    mutating func removeSnapshot(_ id: UInt64) {
        snapshots.removeAll { $0 == id }
        truth[id] = nil
    }

    /// One removed snapshot of one clone, as the OSD's trimmer takes them up.
    mutating func trim(with random: inout some RandomNumberGenerator) {
        let stale = clones.indices.filter { !clones[$0].snapshots.allSatisfy(snapshots.contains) }
        guard let index = stale.randomElement(using: &random) else { return }
        let gone = clones[index].snapshots.firstIndex { !snapshots.contains($0) }!
        clones[index].snapshots.remove(at: gone)
        guard clones[index].snapshots.isEmpty else { return }
        if index > 0, fault != .losesOverlapsOnTrim { clones[index - 1].shared.formIntersection(clones[index].shared) }
        clones.remove(at: index)
        // A deleted object stays as a mark only while there are clones.
        if clones.isEmpty, head == nil {
            sequence = 0
            wasEverWritten = false
        }
    }

    /// Clones the head first, if there are snapshots that nothing was cloned for yet.
    private mutating func change(touching positions: Set<Int>, to bytes: [UInt8]?) {
        let uncovered = snapshots.filter { $0 > sequence }
        if let head, !uncovered.isEmpty {
            clones.append(
                Clone(
                    id: newestSnapshot, snapshots: uncovered, bytes: head, shared: Set(head.indices), time: log.count))
        }
        sequence = max(sequence, newestSnapshot)
        wasEverWritten = true
        head = bytes
        log.append(positions)
        guard !clones.isEmpty, !(fault == .forgetsThatItWasDeleted && bytes == nil) else { return }
        let noted = fault == .forgetsATouchedByte ? positions.subtracting([positions.max() ?? 0]) : positions
        clones[clones.count - 1].shared.subtract(noted)
    }

    mutating func write(_ bytes: [UInt8], at offset: Int) {
        var new = head ?? []
        if new.count < offset + bytes.count {
            new += [UInt8](repeating: 0, count: offset + bytes.count - new.count)
        }
        for (index, byte) in bytes.enumerated() { new[offset + index] = byte }
        change(touching: Set(offset..<offset + bytes.count), to: new)
    }

    mutating func truncate(to size: Int) {
        guard let head else { return }
        let touched = size < head.count ? Set(size..<head.count) : []
        change(touching: touched, to: Array((head + [UInt8](repeating: 0, count: size)).prefix(size)))
    }

    mutating func delete() {
        guard let head else { return }
        change(touching: Set(head.indices), to: nil)
        if clones.isEmpty {
            sequence = 0
            wasEverWritten = false
        }
    }

    /// What `list_snaps` tells; nothing if the OSD knows nothing of the object.
    var history: ObjectHistory? {
        guard wasEverWritten else { return nil }
        var versions = clones.map { clone in
            ObjectHistory.Version(
                id: clone.id, size: ByteCount(UInt64(clone.bytes.count)), snapshots: clone.snapshots,
                shared: extents(clone.shared))
        }
        if let head {
            versions.append(
                ObjectHistory.Version(
                    id: ObjectHistory.Version.head, size: ByteCount(UInt64(head.count)), snapshots: [],
                    shared: ExtentSet()))
        }
        return ObjectHistory(versions: versions, newestSnapshot: sequence)
    }

    /// The bytes of a state; nothing if the object didn't exist in it.
    func bytes(at snapshot: UInt64?) -> [UInt8]? { snapshot.map { truth[$0]! } ?? head }

    /// What exact books say of two states that both have the object: every position touched on the way from one
    /// version to the next, or past the end of the older one.
    func touched(since base: UInt64, to goal: UInt64?) -> Set<Int> {
        var versions = clones.map { (snapshots: $0.snapshots, size: $0.bytes.count, time: $0.time) }
        if let head { versions.append((snapshots: [], size: head.count, time: log.count)) }
        func index(_ snapshot: UInt64?) -> Int {
            snapshot.flatMap { id in versions.firstIndex { $0.snapshots.contains(id) } } ?? versions.count - 1
        }
        let (first, last) = (index(base), index(goal))
        var positions: Set<Int> = []
        for (version, next) in zip(versions[first..<last], versions[(first + 1)..<(last + 1)]) {
            let end = max(version.size, next.size)
            positions.formUnion(log[version.time..<next.time].joined().filter { $0 < end })
            positions.formUnion(version.size..<end)
        }
        return positions
    }
}

func extents(_ positions: Set<Int>) -> ExtentSet {
    ExtentSet(positions.map { Extent(offset: ByteOffset(UInt64($0)), length: ByteCount(1)) })
}

func positions(_ extents: ExtentSet) -> Set<Int> {
    extents.extents.reduce(into: []) { $0.formUnion(Int($1.offset.bytes)..<Int($1.end.bytes)) }
}
