/// A live source whose head this very process gives to its users while it is moved.
package protocol ServableSource: LiveSource {
    /// Opens the head for its users. From here on until `endServing` nobody else can write to it, where the volume has a
    /// lock for that.
    ///
    /// - Returns: The disk, and who is to be told of its changes, where the volume can't tell them by itself.
    /// - Throws: `busy` if somebody else has that lock, and lives.
    func serve() async throws(VolumeError) -> (disk: any Disk, watch: (any ChangeWatch)?)
    /// Closes what `serve` opened, once nobody uses it any more. Without complaint if nothing is open.
    func endServing() async
}
