import Conformance
import Convergence
import Cutover
import Mirror
import Synchronization
import Volumes

// One run of the command, and what is to be so after it.
extension LiveSimulation {
    /// What a hand-over may take over what was promised: the costs of its many small operations, which a cluster hides
    /// behind each other and this simulation adds up.
    private static let slack = Duration.milliseconds(100)

    func oneRun(isBefallen: Bool) async -> RunEnd {
        let blow = blow(isBefallen)
        let (seed, orders, begun) = (
            draw { $0.next() }, isBefallen ? draw { Int.random(in: 0...3, using: &$0) } : 0, time.now
        )
        let fate = LiveFate(time, guest, setting.speed, blow, seed: seed, keepsLog: keepsLog) { [way] in
            way.cut()
        }
        way.begin(fate, breaks: isBefallen)
        let watcher = draw { LiveOperator(guest, begun, count: orders, leaves: setting.waits, &$0) }
        if setting.live.convergence.throttle == .never { watcher.controls.throttle = .off }
        let hold = LiveHold(
            time, guest, fate, clients: setting.clients, latency: setting.holdLatency, slip: slip(isBefallen))
        let needsOrder = setting.live.cutover == .manual && !setting.waits
        _ = guest.takePauses()
        watch.withLock { $0 = watcher }
        let failure = await attempt(fate, watcher, hold)
        watch.withLock { $0 = nil }
        state.withLock { state in
            state.trace.append(fate.trace)
            state.log += fate.log + ["-- \(failure?.lines.joined(separator: " | ") ?? "ended")"]
        }
        if watcher.isHung { return .wentWrong("it hangs") }
        let wasDisturbed = way.wasDisturbed
        way.cut()
        let isQuiet = fate.struck == nil && !hold.hasSlipped && !wasDisturbed
        // Of a source that can't tell its extents nobody knows the rest.
        if isQuiet, setting.means != .everything, !setting.waits, !watcher.hasForced, !needsOrder {
            checkPauses(since: begun)
        }
        guard let failure else {
            return .ended
        }
        // Of the very last operation only the answer was lost.
        if site.target.names == ["finished"], guest.spot != .source { return .ended }
        if isQuiet, !watcher.hasStopped, !watcher.hasReturned {
            return .wentWrong("nothing befell it, and it failed: \(failure.kind) \(failure.lines)")
        }
        if fate.isDead {
            way.crash(seed: draw { $0.next() })
            return .interrupted
        }
        // The link alone keeps nobody from letting the writer go on.
        if fate.struck == nil, !hold.hasSlipped, wasDisturbed {
            guest.checkThawed(since: begun)
            if failure.lines.contains(where: { $0.contains("couldn't be let go on") }) {
                guest.accuse("said to be held still, and isn't")
            }
        }
        check(failure, fate, since: begun)
        return watcher.controls.isCancelled ? .cancelled : .interrupted
    }

    func attempt(_ fate: LiveFate, _ watcher: LiveOperator, _ hold: LiveHold) async -> MoveError? {
        var options = setting.options
        options.inFlight = way.inFlight
        var live = setting.live
        if !setting.waits { live.hold = fault.map { FaultyLiveHold(hold, $0, guest, time) } ?? hold as any WriterHold }
        options.live = live
        let source = Site.sourceVolume(at: site.source, fault: fate.fault(of: "source"))
        do throws(MoveError) {
            let target = try await staged(.target) { () throws(VolumeError) in try await way.open() }
            _ = try await Move(
                from: fault.map { FaultyLiveSource(source, $0, guest) } ?? source as any SourceVolume,
                to: fault.map { FaultyLiveTarget(target, $0, guest) } ?? target as any TargetVolume, options: options,
                stop: watcher.stop, controls: watcher.controls, time: time.keeper
            ).run()
            return nil
        } catch {
            return error
        }
    }

    /// After a run that failed, and ended by itself.
    private func check(_ failure: MoveError, _ fate: LiveFate, since begun: Duration) {
        // It says so where it couldn't let the writer go on, and where it couldn't lift the limit.
        if failure.lines.contains(where: { $0.contains("let go on") }) { return }
        let isLiftStruck = fate.struck == "source lift" || failure.isUnanswered || !fate.hasLifted
        guest.checkLeft(
            limit: isLiftStruck ? site.source.limit : setting.limit, waits: setting.waits, since: begun)
    }

    private func checkPauses(since begun: Duration) {
        // What an earlier run began, which died in it, takes until this one is there.
        let pauses = guest.takePauses().filter { $0.start >= begun }
        for pause in pauses where pause.length > setting.live.convergence.maxPause + Self.slack + way.pauseAllowance {
            guest.accuse(
                "it stood still for \(pause.length.seconds) s, of \(setting.live.convergence.maxPause.seconds) s promised"
            )
        }
    }
}
