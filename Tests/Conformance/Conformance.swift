package import Volumes

/// What every kind of volume must do alike. A kind is described once; each check then makes what it needs at places of
/// its own, on volumes of a few MiB, and can run alone.

/// A kind of volume that a move can make.
package struct TargetKind: Sendable {
    /// Extents may be as coarse as this: whoever writes a byte may find the whole unit around it counted as data.
    package let granule: ByteCount
    /// Whether whole granules that were zeroed are holes again.
    package let makesHoles: Bool
    package let holdsSnapshots: Bool
    /// Whether another value, as another process, finds what one has begun.
    package let holdsRecord: Bool
    /// A place where nothing is yet.
    package let newSite: @Sendable (_ name: String) async throws -> TargetSite

    package init(
        granule: ByteCount, makesHoles: Bool = true, holdsSnapshots: Bool, holdsRecord: Bool = true,
        newSite: @escaping @Sendable (_ name: String) async throws -> TargetSite
    ) {
        self.granule = granule
        self.makesHoles = makesHoles
        self.holdsSnapshots = holdsSnapshots
        self.holdsRecord = holdsRecord
        self.newSite = newSite
    }
}

/// One place for a target.
package struct TargetSite: Sendable {
    /// Another value for the same place at each call, with a connection of its own: as another process would have it.
    package let target: @Sendable () async throws -> any TargetVolume
    /// Puts a finished volume there that Godwit did not begin.
    package let plant: @Sendable (_ bytes: [UInt8]) async throws -> Void
    /// What is left there, by name, of whatever kind.
    package let leftovers: @Sendable () async throws -> [String]
    /// Clears the place, whatever is there.
    package let remove: @Sendable () async throws -> Void

    package init(
        target: @escaping @Sendable () async throws -> any TargetVolume,
        plant: @escaping @Sendable (_ bytes: [UInt8]) async throws -> Void,
        leftovers: @escaping @Sendable () async throws -> [String],
        remove: @escaping @Sendable () async throws -> Void
    ) {
        self.target = target
        self.plant = plant
        self.leftovers = leftovers
        self.remove = remove
    }
}

/// A kind of volume that can be moved away from.
package struct SourceKind: Sendable {
    /// As for a target.
    package let granule: ByteCount
    /// Whether `freeze` holds a state, and users take snapshots.
    package let holdsSnapshots: Bool
    /// Whether it notices what its user does: writes and other sizes.
    package let noticesChanges: Bool
    /// A new volume of zeros.
    package let newSite: @Sendable (_ name: String, _ size: ByteCount) async throws -> SourceSite

    package init(
        granule: ByteCount, holdsSnapshots: Bool, noticesChanges: Bool = true,
        newSite: @escaping @Sendable (_ name: String, _ size: ByteCount) async throws -> SourceSite
    ) {
        self.granule = granule
        self.holdsSnapshots = holdsSnapshots
        self.noticesChanges = noticesChanges
        self.newSite = newSite
    }
}

/// One volume, and its user's ways of changing it.
package struct SourceSite: Sendable {
    /// Another value for the same volume at each call.
    package let source: @Sendable () async throws -> any SourceVolume
    package let write: @Sendable (_ bytes: [UInt8], _ offset: ByteOffset) async throws -> Void
    package let zero: @Sendable (_ extent: Extent) async throws -> Void
    package let resize: @Sendable (_ size: ByteCount) async throws -> Void
    /// Never called for a kind that holds none.
    package let takeSnapshot: @Sendable (_ name: String) async throws -> Void
    package let remove: @Sendable () async throws -> Void

    package init(
        source: @escaping @Sendable () async throws -> any SourceVolume,
        write: @escaping @Sendable (_ bytes: [UInt8], _ offset: ByteOffset) async throws -> Void,
        zero: @escaping @Sendable (_ extent: Extent) async throws -> Void,
        resize: @escaping @Sendable (_ size: ByteCount) async throws -> Void,
        takeSnapshot: @escaping @Sendable (_ name: String) async throws -> Void,
        remove: @escaping @Sendable () async throws -> Void
    ) {
        self.source = source
        self.write = write
        self.zero = zero
        self.resize = resize
        self.takeSnapshot = takeSnapshot
        self.remove = remove
    }
}

/// All checks of a target, one after another. `TargetCheck.all` are the same one by one, for a test with arguments.
package func checkConformance(ofTarget kind: TargetKind) async throws {
    for check in TargetCheck.all { try await check.run(kind) }
}

/// All checks of a source, one after another.
package func checkConformance(ofSource kind: SourceKind) async throws {
    for check in SourceCheck.all { try await check.run(kind) }
}
