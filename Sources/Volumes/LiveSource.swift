/// A source that can be moved while its clients go on writing.
package protocol LiveSource: SourceVolume, WriterLimit {
    /// Says at the volume that this process moves it to `target`: whoever finds what a lost one left can tell.
    /// - Parameter isLive: Whether its clients go on meanwhile: only one move may do that at a time.
    /// - Throws: `busy` if another move has said so, and may be alive.
    func claim(for target: String, isLive: Bool) async throws(VolumeError)
    /// Takes that back. Without complaint if nothing was said.
    func release(from target: String) async throws(VolumeError)
    /// Keeps it open for what is to come, so that holding a state takes less time.
    func stayOpen() async throws(VolumeError)
    /// Nobody else can write to it from here on until `letGo`, where the volume has a lock for that: whoever tries gets
    /// an error. To be asked for once its clients have left.
    func lockOut() async throws(VolumeError)
    /// Closes it, and gives the lock back.
    func letGo() async
    /// What stands against moving it while its clients go on, besides what `obstacles` says. Reads; changes nothing.
    func liveObstacles() async throws(VolumeError) -> [Obstacle]
    /// Who has it open for writing, this process apart.
    func writers() async throws(VolumeError) -> [Writer]
    /// Says that the volume is at `target` now, and what is to become of what is left here. Once no client has it open.
    func retire(to target: String, _ rest: Retirement) async throws(VolumeError)
}

/// Whoever can slow the clients that write to a volume.
package protocol WriterLimit: Sendable {
    /// Holds each client's writes to that rate. Where it was held to another before, that is written down with the
    /// volume in the same step, so that `lift` puts back exactly that, whoever calls it.
    /// - Returns: The limit in force: the client's own, if that is lower.
    func limit(to rate: ByteRate) async throws(VolumeError) -> ByteRate
    /// Takes the limit of a move back. Without complaint if there is none, or none any more.
    func lift() async throws(VolumeError)
}

extension LiveSource {
    package func liveObstacles() async throws(VolumeError) -> [Obstacle] { [] }
    package func stayOpen() async throws(VolumeError) {}
    package func lockOut() async throws(VolumeError) {}
    package func letGo() async {}
}

/// A client that can write to a volume.
package struct Writer: Sendable, Equatable {
    /// "client.4127 at 127.0.0.1:0/3141".
    package let title: String
    /// As `SourceVolume.evict` takes it.
    package let client: String

    package init(title: String, client: String) {
        self.title = title
        self.client = client
    }
}

/// What becomes of a source that was moved.
package enum Retirement: String, Sendable, Codable, CaseIterable {
    case keep, rename, trash
}
