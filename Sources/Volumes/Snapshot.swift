/// A state of a volume that was kept under a name.
package struct Snapshot: Hashable, Sendable, Codable {
    /// As the volume numbers its snapshots: later ones are greater.
    package let id: UInt64
    /// Any UTF-8 that the volume allows.
    package let name: String
    /// The volume's size at that time, in bytes.
    package let sizeBytes: UInt64
    /// Whether it can't be removed, as clones may hang on it.
    package let isProtected: Bool

    package init(id: UInt64, name: String, size: ByteCount, isProtected: Bool = false) {
        self.id = id
        self.name = name
        self.sizeBytes = size.bytes
        self.isProtected = isProtected
    }

    package var size: ByteCount { ByteCount(sizeBytes) }

    /// Whether it has that very name: two spellings that Swift's strings hold equal are two names to a volume.
    package func isNamed(_ other: String) -> Bool { name.utf8.elementsEqual(other.utf8) }

    package static func == (left: Snapshot, right: Snapshot) -> Bool {
        left.id == right.id && left.isNamed(right.name) && left.sizeBytes == right.sizeBytes
            && left.isProtected == right.isProtected
    }
    package func hash(into hasher: inout Hasher) { hasher.combine(id) }

    /// Snapshots that a move made for itself and will remove: never carried, never shown as the user's.
    package static let transientPrefix = "godwit."
    package var isTransient: Bool {
        let digits = name.utf8.dropFirst(Self.transientPrefix.utf8.count)
        return name.utf8.starts(with: Self.transientPrefix.utf8) && digits.count == 16
            && digits.allSatisfy { "0123456789abcdef".utf8.contains($0) }
    }

    /// The name of a transient snapshot: the prefix and 16 hexadecimal digits, which no user's is likely to have.
    package static func transientName(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return transientPrefix + String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// A state of a volume that can be read.
package enum Revision: Hashable, Sendable {
    /// As it is now; it may change while it is read.
    case head
    /// As it was, and stays.
    case snapshot(Snapshot)

    package var snapshot: Snapshot? {
        if case .snapshot(let snapshot) = self { snapshot } else { nil }
    }
}
