package import Volumes

/// Whoever can hold the writer of a volume still, and send it on at another volume.
///
/// Each call has a limit of its own and throws rather than wait for ever. A `VolumeError` names the call ("freeze"),
/// whom it was asked of ("exec:/usr/local/bin/hold", "qmp:/run/vm.qmp"), and why it failed.
package protocol WriterHold: Sendable {
    /// What it is in a message: "the VM behind /run/vm.qmp".
    var title: String { get }
    /// Looks whether it could do all that it may be asked for. Changes nothing; called before the move begins.
    func prepare() async throws(VolumeError)
    /// An earlier run of this move may have frozen the writer, and died: `thaw` has to let it go on as well.
    func adopt() async throws(VolumeError)
    /// How many clients keep the source open while they are held still: the fence finds as many watchers, and no more.
    var clientsAtSource: Int { get }
    /// Whether the writer is this process's own: nobody else has the source open, and after `switchOver` it waits until
    /// `leaveSource`, so that nobody can have written to the target before. Others go on at once.
    var isOurOwn: Bool { get }
    /// Who slows the writer; nothing for the source.
    var limiter: (any WriterLimit)? { get }
    /// All of an earlier run is fenced, and the move begins: whoever waits for it may come to the source.
    func begin() async throws(VolumeError)
    /// How long the writer will be held still at most, from `freeze` to `seal`; nothing for as long as it takes. Where it
    /// can, the hold lets it go on by itself when that is over.
    func promise(_ longest: Duration?)
    /// Whether the frozen writer is still held, and wasn't let go on by what was promised.
    var isHolding: Bool { get }
    /// From here on the writer is held until it is thawed, or goes on at the target.
    /// - Returns: Whether it is still held.
    func seal() -> Bool
    /// How long `switchOver` is likely to take, as far as can be told without doing it.
    func rehearse() async throws(VolumeError) -> Duration
    /// Brings the writer to a standstill. When it returns, all that the writer holds as written has reached the source,
    /// and it writes nothing more.
    func freeze() async throws(VolumeError)
    /// Points the frozen writer at the target, which is finished and has its name, and lets it go on there. Called again
    /// after a run that died in it: what was done already isn't done twice.
    func switchOver() async throws(VolumeError)
    /// Has the writer, which goes on at the target, let go of the source.
    func leaveSource() async throws(VolumeError)
    /// Lets the writer go on at the source as if nothing had been. Without complaint if it was never frozen, or if it
    /// was frozen only half.
    func thaw() async throws(VolumeError)
}

extension WriterHold {
    package var isOurOwn: Bool { false }
    package var limiter: (any WriterLimit)? { nil }
    package func begin() async throws(VolumeError) {}
    package func promise(_ longest: Duration?) {}
    package var isHolding: Bool { true }
    package func seal() -> Bool { true }
    package func rehearse() async throws(VolumeError) -> Duration { .milliseconds(50) }
    package func leaveSource() async throws(VolumeError) {}
}
