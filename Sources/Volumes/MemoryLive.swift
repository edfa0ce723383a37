internal import Synchronization

/// What stands in the metadata of a volume in memory.
enum MemoryMark {
    static let prefix = "godwit."
    /// One for each target.
    static func claim(for target: String) -> String { prefix + "claim." + target }
    static let moved = prefix + "moved"
    /// The limit that a move set, and the one there was before: "1048576 after 2097152", "1048576 after nothing".
    static let throttle = prefix + "throttle"
    /// The limit that clients go by, in bytes a second, as its user writes it.
    static let limit = "write-limit"
    /// Between the limit that was set and the one before.
    private static let after = " after "
    private static let nothing = "nothing"

    static func throttleMark(_ set: String, previous: String?) -> String { set + after + (previous ?? nothing) }

    static func limits(ofMark mark: String) -> (set: String, previous: String?) {
        let parts = mark.split(separator: after, maxSplits: 1).map(String.init)
        let previous = parts.count > 1 && parts[1] != nothing ? parts[1] : nil
        return (parts.first ?? "", previous)
    }
}

// A volume that is moved while its clients write to it.
extension MemoryVolume: LiveSource {
    private func withLive<Value: Sendable>(
        _ operation: String, changes: Bool = true,
        _ change: (inout MemoryBody, inout MemoryContents) throws(VolumeError) -> sending Value
    ) throws(VolumeError) -> Value {
        try with(operation, changes: changes) { contents throws(VolumeError) in
            guard var body = contents.finished.take() else { throw self.missing(operation) }
            do throws(VolumeError) {
                let value = try change(&body, &contents)
                contents.finished = body
                return value
            } catch {
                contents.finished = body
                throw error
            }
        }
    }

    package func claim(for target: String, isLive: Bool) async throws(VolumeError) {
        try withLive("claim") { body, contents throws(VolumeError) in
            for mover in contents.movers where isLive && mover.isLive && mover.isAlive && mover.target != target {
                throw VolumeError(.busy, "claim", on: self.address, reason: "it is being moved to \(mover.target)")
            }
            contents.movers.removeAll { $0.target == target }
            contents.movers.append(MemoryMover(target: target, holder: self.holder, isLive: isLive))
            body.metadata[MemoryMark.claim(for: target)] = "claimed"
        }
    }

    package func release(from target: String) async throws(VolumeError) {
        try withLive("release") { body, contents throws(VolumeError) in
            contents.movers.removeAll { $0.target == target }
            body.metadata[MemoryMark.claim(for: target)] = nil
        }
    }

    package func writers() async throws(VolumeError) -> [Writer] {
        try withLive("writers", changes: false) { body, _ throws(VolumeError) in body.writers }
    }

    package func evict(_ client: String) async throws(VolumeError) {
        try withLive("evict") { body, _ throws(VolumeError) in body.writers.removeAll { $0.client == client } }
    }

    package func limit(to rate: ByteRate) async throws(VolumeError) -> ByteRate {
        try withLive("limit") { body, _ throws(VolumeError) in
            let previous = body.ownLimit
            if let own = previous.flatMap(UInt64.init), own <= rate.bytesPerSecond {
                body.putBackLimit()
                return ByteRate(bytesPerSecond: own)
            }
            let set = String(rate.bytesPerSecond)
            body.metadata[MemoryMark.throttle] = MemoryMark.throttleMark(set, previous: previous)
            body.metadata[MemoryMark.limit] = set
            return rate
        }
    }

    package func lift() async throws(VolumeError) {
        try withLive("lift") { body, _ throws(VolumeError) in body.putBackLimit() }
    }

    package func retire(to target: String, _ rest: Retirement) async throws(VolumeError) {
        try with("retire") { contents throws(VolumeError) in
            guard var body = contents.finished.take() else { throw self.missing("retire") }
            guard body.writers.isEmpty else {
                contents.finished = body
                throw VolumeError(.busy, "retire", on: self.address, reason: "a client has it open")
            }
            body.metadata[MemoryMark.moved] = target
            switch rest {
            case .keep: contents.finished = body
            case .rename, .trash: contents.retired = body
            }
        }
    }

    package func uncommit() async throws(VolumeError) {
        try with("uncommit") { contents throws(VolumeError) in
            guard case .committed = contents.targetState, let body = contents.finished else {
                throw VolumeError(.failed, "uncommit", on: self.address, reason: "it isn't committed")
            }
            guard body.writers.isEmpty else {
                throw VolumeError(.busy, "uncommit", on: self.address, reason: "a client has it open already")
            }
            contents.unfinished = body
            contents.finished = nil
            contents.owner = self.holder
            contents.ownerHasDied = false
        }
    }
}

extension MemoryBody {
    /// The limit that its user gave it, whatever a move has set meanwhile.
    var ownLimit: String? {
        let present = metadata[MemoryMark.limit]
        guard let mark = metadata[MemoryMark.throttle].map(MemoryMark.limits(ofMark:)) else { return present }
        // Whoever changed it since knew better than the mark.
        return present == mark.set ? mark.previous : present
    }

    mutating func putBackLimit() {
        metadata[MemoryMark.limit] = ownLimit
        metadata[MemoryMark.throttle] = nil
    }

    /// Without a move's marks and limit.
    var usersMetadata: Metadata {
        var metadata = metadata
        metadata[MemoryMark.limit] = ownLimit
        return metadata.without(prefix: MemoryMark.prefix)
    }
}

// What a live volume's users do and see.
extension MemoryVolume.Place {
    /// A client opens the volume for writing.
    package func attach(_ writer: Writer) {
        change { body in
            guard !body.writers.contains(writer) else { return }
            body.writers.append(writer)
        }
    }

    package func detach(_ writer: Writer) {
        contents.withLock { $0.finished?.writers.removeAll { $0 == writer } }
    }

    /// Who has the volume open for writing.
    package var writers: [Writer] { contents.withLock { ($0.finished ?? $0.retired)?.writers ?? [] } }

    /// The limit that clients go by, whoever set it.
    package var limit: ByteRate? {
        get {
            contents.withLock { contents in
                (contents.finished ?? contents.retired)?.metadata[MemoryMark.limit].flatMap(UInt64.init).map {
                    ByteRate(bytesPerSecond: $0)
                }
            }
        }
        set { change { $0.metadata[MemoryMark.limit] = newValue.map { String($0.bytesPerSecond) } } }
    }

    /// The names of what Godwit has noted with the volume.
    package var marks: [String] {
        contents.withLock { contents in
            let keys = (contents.finished ?? contents.retired)?.metadata.pairs.keys.map(\.self) ?? []
            return keys.map { String(decoding: $0, as: UTF8.self) }.filter { $0.hasPrefix(MemoryMark.prefix) }.sorted()
        }
    }

    /// Whether the volume was given another name, or went to the trash.
    package var isRetired: Bool { contents.withLock { $0.retired != nil } }

    /// What an unfinished target's move has written down. To be set by whoever damages it.
    package var record: String? {
        get { contents.withLock { $0.record } }
        set { contents.withLock { $0.record = newValue } }
    }

    /// Gives a snapshot another name, or another protection.
    package func alterSnapshot(_ name: String, to other: String, isProtected: Bool) {
        change { body in
            guard let id = body.kept.first(where: { $0.snapshot.isNamed(name) })?.snapshot.id else { return }
            body.alter(id, name: other, isProtected: isProtected)
        }
    }
}

extension MemoryVolume: ServableSource {
    package func serve() async throws(VolumeError) -> (disk: any Disk, watch: (any ChangeWatch)?) {
        (try await attach(.head, isWritable: true), nil)
    }

    package func endServing() async {}
}
