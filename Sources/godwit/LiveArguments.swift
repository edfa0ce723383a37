internal import ArgumentParser
internal import Convergence
internal import Cutover
internal import Mirror
internal import Volumes

/// How a live move comes to its end.
struct LiveArguments: ParsableArguments {
    @Flag(
        help: ArgumentHelp(
            "Move it while its clients go on writing.",
            discussion: "No patch, agent or restart on their side: a VM, fio, any librbd program."))
    var live = false
    @Option(help: "How long the writer may be held still at the end: 300ms, 2s.")
    var maxPause = TimeArgument(argument: "300ms")!
    @Option(help: "Whether the writer may be slowed where it would never converge otherwise: auto, off.")
    var throttle = ThrottleChoice.auto
    @Option(help: "Never slowed below so many bytes a second.") var throttleFloor = SizeArgument(argument: "1M")!
    @Option(help: "After so many rounds without an end, it is the operator's turn.") var maxRounds = 30
    @Option(
        help: "When to hand over: auto, as soon as the predicted pause fits; manual, when 'godwit cutover' says so.")
    var cutover = LiveOptions.Cutover.auto
    @Option(
        help: ArgumentHelp(
            "How the writer is held still: wait, until no client has the source open; exec:COMMAND, which is run with "
                + "freeze, switch TARGET, thaw; qmp:SOCKET, a running VM.", valueName: "how"))
    var freeze = FreezeArgument.wait
    @Option(
        help: ArgumentHelp(
            "How long each freeze, switch or thaw may take, by default 30s; with 'wait', how long the clients may "
                + "stay, by default 24h.", valueName: "time"))
    var freezeTimeout: TimeArgument?
    @Option(help: "What to do with a client that doesn't let go of the source: release, refuse; blocklist, evict it.")
    var fence = LiveOptions.Fence.release
    @Option(
        name: .customLong("source"), help: "What becomes of the source: keep, rename (to IMAGE.godwit-moved), trash.")
    var retirement = Retirement.keep

    func validate() throws {
        guard maxRounds >= 1 else { throw ValidationError("--max-rounds: at least 1") }
        guard throttleFloor.count >= .kibibytes(4) else { throw ValidationError("--throttle-floor: at least 4K") }
        guard maxPause.duration >= .milliseconds(1) else { throw ValidationError("--max-pause: at least 1ms") }
        guard live else {
            // Each would do nothing, and whoever gave it means something else.
            let isOtherwise =
                freeze != .wait || fence != .release || retirement != .keep || cutover != .auto || throttle != .auto
                || maxPause.duration != .milliseconds(300) || freezeTimeout != nil || maxRounds != 30
                || throttleFloor.count != .mebibytes(1)
            if isOtherwise {
                throw ValidationError(
                    "--max-pause, --throttle, --throttle-floor, --max-rounds, --cutover, --freeze, --freeze-timeout, "
                        + "--fence and --source go with --live only")
            }
            return
        }
        if freeze == .wait, fence == .blocklist {
            throw ValidationError("--fence blocklist goes with --freeze exec:COMMAND: 'wait' waits until all have left")
        }
    }

    /// - Parameter hold: Who holds the writer still; nothing for whoever --freeze says.
    func options(
        from source: VolumeAddress, to target: VolumeAddress, hold: (any WriterHold)?
    ) throws(VolumeError) -> LiveOptions? {
        guard live else { return nil }
        var options = LiveOptions()
        options.convergence.maxPause = maxPause.duration
        options.convergence.throttle = throttle == .auto ? .now : .never
        options.convergence.floor = ByteRate(bytesPerSecond: throttleFloor.count.bytes)
        options.convergence.maxRounds = maxRounds
        options.cutover = cutover
        options.fence = fence
        options.source = retirement
        if let freezeTimeout { options.patience = freezeTimeout.duration }
        if let hold {
            options.hold = hold
        } else {
            options.hold = try Opening.hold(
                freeze, from: source, to: target, limit: freezeTimeout?.duration ?? .seconds(30))
        }
        return options
    }
}

enum ThrottleChoice: String, ExpressibleByArgument, CaseIterable, Sendable { case auto, off }
extension LiveOptions.Cutover: ExpressibleByArgument {}
extension LiveOptions.Fence: ExpressibleByArgument {}
extension Retirement: ExpressibleByArgument {}

/// Who holds the writer still.
enum FreezeArgument: ExpressibleByArgument, Sendable, Equatable {
    case wait
    case command(String)
    case qmp(String)

    init?(argument: String) {
        if argument == "wait" {
            self = .wait
        } else if argument.hasPrefix("exec:"), argument.count > 5 {
            self = .command(String(argument.dropFirst(5)))
        } else if argument.hasPrefix("qmp:"), argument.count > 4 {
            self = .qmp(String(argument.dropFirst(4)))
        } else {
            return nil
        }
    }

    var defaultValueDescription: String { "wait" }
}

/// A time on the command line: "300ms", "2s", "5m", "24h"; a plain number counts seconds.
struct TimeArgument: ExpressibleByArgument, Sendable, Equatable {
    let duration: Duration
    private let text: String

    init?(argument: String) {
        guard let match = argument.wholeMatch(of: /([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|min)?/), let number = Double(match.1),
            number < 1e9
        else { return nil }
        let unit: Double =
            switch match.2 {
            case "ms": 0.001
            case "m", "min": 60
            case "h": 3600
            default: 1
            }
        duration = .seconds(number * unit)
        text = argument
    }

    var defaultValueDescription: String { text }
}
