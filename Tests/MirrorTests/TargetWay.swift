import Conformance
import Synchronization
import Volumes

/// How the moves of a simulation reach their target.
protocol TargetWay: Sendable {
    /// A process begins.
    ///
    /// - Parameters:
    ///   - fate: Told of all that is done to the target; nothing if nobody is.
    ///   - breaks: Whether the way itself may fail.
    func begin(_ fate: LiveFate?, breaks: Bool)
    /// What the process has for its target.
    func open() async throws(VolumeError) -> any TargetVolume
    /// The process is no more; once more does nothing.
    func cut()
    /// It had died: some of what wasn't flushed may be lost with it.
    func crash(seed: UInt64)
    /// Whether the way failed the process that is running, or somebody before it stood in it still.
    var wasDisturbed: Bool { get }
    /// Bytes that its moves have under way at once.
    var inFlight: ByteCount { get }
    /// What a pause may take longer than was promised.
    var pauseAllowance: Duration { get }
    /// How long nobody gives the command again.
    func rest(_ drawn: Duration) -> Duration
    /// Waits until nobody who has ended stands in the way.
    func settle() async
    /// The history is over.
    func close() async
}

/// A target that the process has by itself.
final class NearTarget: TargetWay {
    private let site: Site
    private let fate = Mutex<LiveFate?>(nil)

    init(_ site: Site) { self.site = site }

    func begin(_ fate: LiveFate?, breaks: Bool) { self.fate.withLock { $0 = fate } }

    func open() async throws(VolumeError) -> any TargetVolume {
        let fate = fate.withLock { $0 }
        return Site.targetVolume(at: site.target, fault: fate?.fault(of: "target") ?? Site.noFault)
    }

    func cut() {}

    func crash(seed: UInt64) {
        var lost = SplitMix64(seed: seed)
        site.target.crash { _ in Bool.random(using: &lost) }
    }

    var wasDisturbed: Bool { false }
    /// One piece after another.
    var inFlight: ByteCount { ByteCount(1) }
    var pauseAllowance: Duration { .zero }
    func rest(_ drawn: Duration) -> Duration { drawn }
    func settle() async {}
    func close() async {}
}
