/// All that a move carries of a volume besides its bytes, and what it can't carry.
package struct VolumeDescription: Sendable, Equatable {
    /// Names this very volume among all: another of the same name, made later, has another identity.
    package var identity: String
    package var size: ByteCount
    /// The user's snapshots, oldest first.
    package var snapshots: [Snapshot]
    /// How the volume lies on its objects; nothing for a volume without objects.
    package var layout: Layout?
    /// The user's key-value pairs, per-image configuration among them.
    package var metadata: Metadata
    /// What a move of everything writes at most, as far as can be told without asking each object.
    package var mostBytes: ByteCount
    /// Where a live move has brought it: it isn't the volume any more.
    package var movedTo: String?
    /// What a move leaves behind, a sentence each.
    package var notCarried: [String]
    /// What a move changes, a sentence each.
    package var changed: [String]

    package init(
        identity: String, size: ByteCount, snapshots: [Snapshot] = [], layout: Layout? = nil,
        metadata: Metadata = [:], mostBytes: ByteCount? = nil, notCarried: [String] = [], changed: [String] = []
    ) {
        self.identity = identity
        self.size = size
        self.snapshots = snapshots
        self.layout = layout
        self.metadata = metadata
        self.mostBytes = mostBytes ?? snapshots.reduce(size) { $0 + $1.size }
        self.notCarried = notCarried
        self.changed = changed
    }
}

/// What of a volume its users change most.
package struct Standing: Sendable, Equatable {
    package var size: ByteCount
    /// The user's snapshots, oldest first.
    package var snapshots: [Snapshot]
    /// Those that moves made for themselves.
    package var transients: [Snapshot]

    package init(size: ByteCount, snapshots: [Snapshot], transients: [Snapshot]) {
        self.size = size
        self.snapshots = snapshots
        self.transients = transients
    }
}

/// How an image lies on its objects: what `rbd create` takes.
package struct Layout: Sendable, Equatable {
    /// A power of two from 4 KiB to 32 MiB.
    package var objectSize: ByteCount
    /// Divides the object size; equal to it where there is no custom striping.
    package var stripeUnit: ByteCount
    /// One where there is no custom striping.
    package var stripeCount: UInt64
    /// The pool that the data objects are in, if it isn't the image's own.
    package var dataPool: String?
    /// As `rbd info` names them: "layering", "exclusive-lock", …
    package var features: Set<String>

    package init(
        objectSize: ByteCount, stripeUnit: ByteCount, stripeCount: UInt64, dataPool: String?, features: Set<String>
    ) {
        self.objectSize = objectSize
        self.stripeUnit = stripeUnit
        self.stripeCount = stripeCount
        self.dataPool = dataPool
        self.features = features
    }

    /// Whether a byte of the volume stands in an object at the place that the offset says.
    package var isPlain: Bool { stripeCount == 1 && stripeUnit == objectSize }

    /// Whether objects of both hold the same bytes of the volume at the same place.
    package func placesBytesLike(_ other: Layout) -> Bool {
        objectSize == other.objectSize && stripeUnit == other.stripeUnit && stripeCount == other.stripeCount
    }
}

/// What stands against a move, and how to get it out of the way.
package struct Obstacle: Sendable, Equatable {
    /// Decides the exit status.
    package let kind: VolumeError.Kind
    /// "client.4127 at 127.0.0.1:0/3141 has rbd:fast/v open for writing"
    package let fact: String
    /// "stop the client, or …"
    package let remedy: String

    package init(_ kind: VolumeError.Kind, _ fact: String, remedy: String) {
        self.kind = kind
        self.fact = fact
        self.remedy = remedy
    }
}
