/// Knows what of a disk was changed.
package protocol DirtyView: Sendable {
    /// What was changed since the newest state was held, in whole chunks.
    func dirty(in range: Extent) -> ExtentSet
}

/// Told of each change of a disk, by whoever lets it through.
package protocol ChangeWatch: DirtyView {
    /// Before the change is begun: from here on until it is told again, what stands there may be another's.
    func willChange(_ extent: Extent) async throws(VolumeError)
    /// Once the change is over, whether or not it succeeded.
    func didChange(_ extent: Extent)
}
