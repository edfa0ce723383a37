/// From one state of the source to the next: what a walk along its snapshots is made of.
package struct Step: Sendable, Equatable {
    /// The state that the target is in already; nothing if it is empty.
    package let base: Snapshot?
    /// The state it is to be in.
    package let goal: Revision
    package let size: ByteCount
    /// Whether the target may hold, of what was written after the base, anything: it was on its way to a state that is
    /// no more, or in one that is newer than the base.
    package let isMixed: Bool

    package init(base: Snapshot?, goal: Revision, size: ByteCount, isMixed: Bool = false) {
        self.base = base
        self.goal = goal
        self.size = size
        self.isMixed = isMixed
    }
}

/// A way for the bytes from one source to one target.
package protocol Route: Sendable {
    /// Whether a head that nobody writes to can be moved like a state that is held, at little cost.
    var takesStillHeads: Bool { get }
    /// Opens a step; the target has the step's size already.
    /// - Parameter resumed: Where an earlier run of this step had settled everything before; some of what comes after may
    ///   stand on the target as well. Nothing for a step that wasn't begun before.
    func begin(_ step: Step, resumed: ByteOffset?) async throws(VolumeError) -> any StepMover
}

/// Moves a step piece by piece, several at a time.
package protocol StepMover: Sendable {
    /// Pieces neither cross a multiple of this nor are longer.
    var pieceSize: ByteCount { get }
    /// Extents are found, and pieces moved, in multiples of this: a dirty map need not be finer.
    var grain: ByteCount { get }
    /// Where the pieces lie: from zero up to here. The volume's size, or that of all its objects put in a row.
    var space: ByteCount { get }
    var means: ExtentMeans { get }
    /// Hands on what may differ from the step's base.
    func findExtents(_ found: @escaping @Sendable (Extent) -> Void) async throws(VolumeError)
    /// How many bytes differ, exactly; nothing where only moving them tells. After `findExtents`.
    var dirtied: ByteCount? { get }
    func move(_ piece: Extent) async throws(VolumeError) -> Moved
    /// Makes durable whatever a later run needs to know of the pieces before `offset`.
    func settle(upTo offset: ByteOffset) async throws(VolumeError)
    /// All pieces were moved: makes the target's state whole.
    func finish() async throws(VolumeError)
    /// Lets go of what the step held open, whether it was finished or not.
    func close() async
}

extension Route {
    package var takesStillHeads: Bool { false }
}

extension StepMover {
    package var dirtied: ByteCount? { nil }
}

/// What became of a piece, in bytes.
package struct Moved: Sendable, Equatable {
    /// Allocated and dirty at the source.
    package var found: ByteCount = .zero
    /// Through this process.
    package var sent: ByteCount = .zero
    /// From OSD to OSD.
    package var copied: ByteCount = .zero
    /// Made holes.
    package var zeroed: ByteCount = .zero

    package init() {}

    package static func += (left: inout Moved, right: Moved) {
        left.found += right.found
        left.sent += right.sent
        left.copied += right.copied
        left.zeroed += right.zeroed
    }
}
