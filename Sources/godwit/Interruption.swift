internal import Dispatch
internal import Glibc
internal import Mirror

/// Ctrl-C and its kin: the first asks the work to stop where it can go on later, the second ends it at once.
///
/// Either is safe: what was moved stands, and the same command goes on from there.
final class Interruption: Sendable {
    let stop = StopRequest()
    // Unsafe: kept only so that the sources live; nothing is called on them after `init`.
    private nonisolated(unsafe) let sources: [any DispatchSourceSignal]

    init(then advice: String) {
        let stop = stop
        unsafe sources = [SIGINT, SIGTERM, SIGHUP].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                if stop.isAsked { _exit(75) }
                stop.ask()
                ProgressBar.leave()
                tell("godwit: stopping after what is under way (once more: at once)")
                // A cluster that doesn't answer must not keep us.
                DispatchQueue.global().asyncAfter(deadline: .now() + 30) {
                    tell("godwit: what was under way didn't end within 30 s; \(advice)")
                    _exit(75)
                }
            }
            source.resume()
            return source
        }
        // A reader of our output that goes away is no reason to die without a word.
        signal(SIGPIPE, SIG_IGN)
    }

    /// For what has no end of its own.
    func untilAsked() async {
        while !stop.isAsked { try? await Task.sleep(for: .milliseconds(50)) }
    }
}
