internal import Control
internal import Mirror
internal import Volumes

/// A live move as its operator sees it: what it tells, and the orders it takes.
struct LiveControl: MoveControl {
    let status: LiveStatus
    let progress: WorkProgress
    let controls: MoveControls
    let stop: StopRequest
    let options: LiveOptions
    /// With addresses and start filled in.
    let blank: MoveStatus

    func status() async -> MoveStatus {
        var told = blank
        let (view, work) = (status.current, progress.current)
        told.phase = controls.isPaused ? .paused : MoveStatus.Phase(rawValue: view.phase.rawValue) ?? .following
        told.title = work.title
        told.doneBytes = work.done.bytes
        told.totalBytes = work.total?.bytes
        told.round = view.roundCount
        told.rounds = view.rounds.map { round in
            MoveStatus.Round(
                dirtiedBytes: round.dirtiedBytes, sentBytes: round.sentBytes, seconds: round.seconds,
                drainBytesPerSecond: round.drainBytesPerSecond, dirtyBytesPerSecond: round.dirtyBytesPerSecond,
                predictedPauseSeconds: round.predictedPauseSeconds, verdict: round.verdict, reason: round.reason,
                limitBytesPerSecond: round.limitBytesPerSecond)
        }
        told.predictedPauseSeconds = view.predictedPause?.seconds
        told.throttleBytesPerSecond = view.limit?.bytesPerSecond
        told.bandwidthBytesPerSecond = controls.bandwidth?.bytesPerSecond
        told.verdict = view.rounds.last?.verdict ?? ""
        told.reason = view.rounds.last?.reason
        told.notice = view.notice ?? work.notice
        return told
    }

    func take(_ order: MoveOrder) async -> OrderAnswer {
        guard status.current.phase != .ending else { return .refused("it is just ending") }
        switch order {
        case .status: return .refused("that is no order")
        case .pause:
            controls.isPaused = true
            return .accepted("paused; the writer goes on, unslowed, and 'godwit resume' goes on with the move")
        case .resume:
            guard controls.isPaused else { return .refused("it isn't paused") }
            controls.isPaused = false
            return .accepted("goes on")
        case .cutover: return takeCutover()
        case .throttle(let throttle):
            switch throttle {
            case .auto: controls.throttle = .auto
            case .off: controls.throttle = .off
            case .limit(let rate): controls.throttle = .limit(rate)
            }
            return .accepted("noted: in force within a round")
        case .bandwidth(let rate):
            controls.bandwidth = rate
            return .accepted(rate.map { "at most \($0.text)" } ?? "as fast as it goes")
        case .cancel:
            controls.isCancelled = true
            controls.isPaused = false
            stop.ask()
            return .accepted("gives the move up, and removes what it made; the source stays as it is")
        }
    }

    private func takeCutover() -> OrderAnswer {
        guard !controls.isPaused else {
            return .refused("the move is paused: 'godwit resume' first, then 'godwit cutover'")
        }
        guard status.current.phase != .copying else {
            return .refused("not all of it was copied once yet: 'godwit status' tells how far it is")
        }
        guard options.hold != nil || options.cutover == .manual else {
            return .refused(
                "with --freeze wait it hands over as soon as no client has the source open: stop the client")
        }
        controls.isCutoverAsked = true
        guard options.hold != nil else {
            return .accepted("hands over as soon as no client has the source open: stop the client")
        }
        return .accepted("hands over as soon as the pause fits; if it can't converge, at once")
    }
}
