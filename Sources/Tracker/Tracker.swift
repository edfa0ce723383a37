internal import Checksums
package import Volumes

/// Where a volume without snapshots begins to be tracked.
package enum Tracker {
    /// Opens what an earlier process has marked of the volume, or begins anew.
    ///
    /// To be called once the volume can't be changed by anybody else, and before the first client is let in.
    ///
    /// - Parameters:
    ///   - directory: Where marks are: this user's alone, and best gone with the host's next start.
    ///   - granularity: What one mark stands for.
    /// - Throws: `busy` if another process is at it.
    package static func open(
        _ volume: any TrackableVolume, marksIn directory: String, granularity: Granularity = .standard
    ) async throws(VolumeError) -> TrackedSource {
        let identity = try await volume.lastingIdentity()
        let size = try await volume.standing().size
        let changed = try await volume.lastChange()
        return try await blocking { () throws(VolumeError) in
            let marks = try Marks(
                at: directory + "/" + fileName(ofMarks: identity),
                of: Circumstances(
                    identity: identity, size: size, granularity: granularity, boot: presentBoot(), changed: changed))
            return TrackedSource(volume, identity: identity, marks: marks, changed: changed)
        }
    }

    /// The hash of what names the volume, which itself may hold anything.
    static func fileName(ofMarks identity: String) -> String {
        let hash = unsafe Array(identity.utf8).withUnsafeBytes { unsafe xxhash64($0) }
        let digits = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits + ".marks"
    }
}
