import Conformance
import Mirror
import Volumes

typealias Place = MemoryVolume.Place

/// A place to move from and one to move to.
struct Site: Sendable {
    let source: Place
    let target: Place

    init(source: Place = Place(), target: Place = Place()) {
        self.source = source
        self.target = target
    }

    /// The least that is copied at once, and one piece after another: so that a run does the same each time.
    static var options: MoveOptions {
        var options = MoveOptions()
        options.granularity = Granularity(Granularity.smallest)!
        options.inFlight = ByteCount(1)
        return options
    }

    static func sourceVolume(at place: Place, fault: @escaping MemoryVolume.Fault = noFault) -> MemoryVolume {
        MemoryVolume(at: place, address: "memory:source", fault: fault)
    }
    static func targetVolume(at place: Place, fault: @escaping MemoryVolume.Fault = noFault) -> MemoryVolume {
        MemoryVolume(at: place, address: "memory:target", fault: fault)
    }

    static let noFault: MemoryVolume.Fault = { (_, _) throws(VolumeError) in }

    /// A run of its own: whatever an earlier one knew is forgotten.
    @discardableResult
    func move(
        _ options: MoveOptions = Site.options, sourceFault: @escaping MemoryVolume.Fault = Site.noFault,
        targetFault: @escaping MemoryVolume.Fault = Site.noFault, stop: StopRequest = StopRequest(),
        throughSource: (MemoryVolume) -> any SourceVolume = { $0 },
        throughTarget: (MemoryVolume) -> any TargetVolume = { $0 }
    ) async throws(MoveError) -> Report {
        try await Move(
            from: throughSource(Self.sourceVolume(at: source, fault: sourceFault)),
            to: throughTarget(Self.targetVolume(at: target, fault: targetFault)), options: options, stop: stop
        ).run()
    }

    @discardableResult
    func move(_ options: MoveOptions = Site.options, _ mishap: Mishap) async throws(MoveError) -> Report {
        try await move(options, sourceFault: mishap.fault, targetFault: mishap.fault)
    }

    func abort(_ volume: (any TargetVolume)? = nil) async throws(MoveError) -> Abort.Outcome {
        try await Abort(of: volume ?? Self.targetVolume(at: target)) { _ in Self.sourceVolume(at: source) }.run()
    }

    /// The transient snapshots that stand on the source.
    var transients: [String] { source.snapshots.filter(\.isTransient).map(\.name) }

    /// What stands on the source, and isn't in the record that says what to remove from it.
    func unrecordedTransients() async throws -> [String] {
        let record: String
        switch try await Self.targetVolume(at: target).state() {
        case .absent, .foreign: record = ""
        case .unfinished(let text), .committed(let text): record = text
        }
        return transients.filter { !record.contains($0) }
    }
}

/// All that a move is to carry of a volume, as a user sees it.
struct Holdings: Sendable {
    struct Kept: Sendable {
        let name: [UInt8]
        let isProtected: Bool
        let bytes: [UInt8]
    }
    let snapshots: [Kept]
    let head: [UInt8]

    init(of place: Place) {
        snapshots = place.snapshots.filter { !$0.isTransient }.map {
            Kept(name: Array($0.name.utf8), isProtected: $0.isProtected, bytes: place.bytes(of: .snapshot($0)))
        }
        head = place.bytes()
    }

    /// What is otherwise at a finished target; empty if nothing is.
    func differences(at site: Site, snapshots wanted: MoveOptions.Snapshots = .all) -> [String] {
        var found: [String] = []
        if site.target.names != ["finished"] { found.append("what is at the target: \(site.target.names)") }
        if !site.transients.isEmpty { found.append("left on the source: \(site.transients)") }
        let theirs = Holdings(of: site.target)
        let ours = wanted == .all ? snapshots : []
        if ours.map(\.name) != theirs.snapshots.map(\.name) {
            return found + [
                "snapshots: \(theirs.snapshots.map { String(decoding: $0.name, as: UTF8.self) }), not "
                    + "\(ours.map { String(decoding: $0.name, as: UTF8.self) })"
            ]
        }
        for (our, their) in zip(ours, theirs.snapshots) {
            let name = String(decoding: our.name, as: UTF8.self)
            if our.isProtected != their.isProtected { found.append("protection of \(name)") }
            if let difference = difference(our.bytes, their.bytes) { found.append("\(name): \(difference)") }
        }
        if let difference = difference(head, theirs.head) { found.append("head: \(difference)") }
        let least = leastAllocated(head)
        if site.target.allocated != least {
            found.append("the target takes \(site.target.allocated.bytes) bytes, not \(least.bytes)")
        }
        return found
    }

    private func difference(_ ours: [UInt8], _ theirs: [UInt8]) -> String? {
        guard ours.count == theirs.count else { return "\(theirs.count) bytes, not \(ours.count)" }
        let run = unsafe ours.withUnsafeBytes { mine in
            unsafe theirs.withUnsafeBytes { unsafe firstDifferingRun(mine, $0) }
        }
        return run.map { "differs at \($0)" }
    }

    /// The blocks that hold anything but zeros.
    private func leastAllocated(_ bytes: [UInt8]) -> ByteCount {
        var blocks = 0
        unsafe bytes.withUnsafeBytes { buffer in
            unsafe forEachDataRun(in: buffer, at: .zero) { blocks += $0.length.pieces(of: zeroBlock) }
        }
        return ByteCount(UInt64(blocks) * zeroBlock.bytes)
    }
}

extension Place {
    func write(_ value: UInt8, _ count: Int, at offset: Int) {
        write([UInt8](repeating: value, count: count), at: ByteOffset(UInt64(offset)))
    }
    func zero(_ count: Int, at offset: Int) {
        zero(Extent(offset: ByteOffset(UInt64(offset)), length: ByteCount(UInt64(count))))
    }
    func make(_ count: Int) { make(size: ByteCount(UInt64(count))) }
    func resize(_ count: Int) { resize(to: ByteCount(UInt64(count))) }
}
