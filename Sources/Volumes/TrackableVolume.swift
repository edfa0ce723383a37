/// A volume without snapshots that can be moved while its clients go on, if whoever serves it to them marks what they
/// change.
package protocol TrackableVolume: SourceVolume, DiskVolume {
    /// Names this very volume among all, whatever is written to it: unlike the identity that `describe` tells of it.
    func lastingIdentity() async throws(VolumeError) -> String
    /// When it was last changed, since 1970 by the clock of this host; nothing where that can't be told for sure.
    func lastChange() async throws(VolumeError) -> Duration?
    /// What can become of it once it was moved.
    var retirements: Set<Retirement> { get }
    /// Has that become of it.
    func retire(to target: String, _ rest: Retirement) async throws(VolumeError)
}

/// A volume of which a state is its head as it is, and the knowledge of what was changed since.
package protocol MarkedVolume: Volume {
    /// What of `range` may have been changed since that state was held; nothing if it isn't held any more.
    func changes(since state: Snapshot, in range: Extent) -> ExtentSet?
}
