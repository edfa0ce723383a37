internal import ArgumentParser
internal import Foundation
internal import Glibc
internal import Mirror
internal import Synchronization
internal import Volumes

/// How progress is shown, always on stderr.
enum ProgressStyle: String, ExpressibleByArgument, CaseIterable, Sendable {
    /// A bar on a terminal, plain lines otherwise.
    case auto
    case bar
    case plain
    case none
}

/// Shows how far a piece of work has come until it is over.
struct ProgressDisplay {
    private static let redrawInterval = Duration.milliseconds(100)
    private static let lineInterval = Duration.seconds(5)
    /// Nothing moving for longer than this is worth a word.
    private static let patience = Duration.seconds(10)

    let progress: WorkProgress
    let style: ProgressStyle

    init(_ progress: WorkProgress, style: ProgressStyle) {
        self.progress = progress
        self.style = style == .auto ? (isatty(STDERR_FILENO) == 1 ? .bar : .plain) : style
    }

    /// Runs `work`, and shows its progress meanwhile.
    func during<Value: Sendable>(
        _ work: @escaping @Sendable () async throws(MoveError) -> Value
    ) async throws(MoveError) -> Value {
        let result: Result<Value, MoveError> = await withTaskGroup(of: Result<Value, MoveError>?.self) { group in
            group.addTask {
                do throws(MoveError) {
                    return .success(try await work())
                } catch {
                    return .failure(error)
                }
            }
            group.addTask {
                await show()
                return nil
            }
            while let finished = await group.next() {
                guard let finished else { continue }
                group.cancelAll()
                return finished
            }
            preconditionFailure("the work has a result")
        }
        ProgressBar.clear()
        return try result.get()
    }

    private func show() async {
        guard style != .none else { return }
        var lastLine = ContinuousClock.now
        var shown: (title: String, since: ContinuousClock.Instant) = ("", .now)
        var moving: (done: ByteCount, tally: Int, at: ContinuousClock.Instant) = (.zero, 0, .now)
        var notice: String?
        while (try? await Task.sleep(for: Self.redrawInterval)) != nil {
            var view = progress.current
            let tally = view.tally?.done ?? 0
            if view.title != shown.title || view.done != moving.done || tally != moving.tally {
                moving = (view.done, tally, .now)
            }
            if view.title != shown.title { shown = (view.title, .now) }
            let silence = ContinuousClock.now - moving.at
            if view.notice == nil, silence > Self.patience {
                view.notice = "no answer from the volumes for \(silence.components.seconds) s"
            }
            let line = text(of: view, after: (ContinuousClock.now - shown.since).seconds)
            if style == .bar {
                ProgressBar.show(fitted(line))
            } else if ContinuousClock.now - lastLine >= Self.lineInterval
                || (view.notice != nil && view.notice != notice)
            {
                if notice == nil || view.notice == nil || ContinuousClock.now - lastLine >= Self.lineInterval {
                    tell(line)
                    lastLine = .now
                }
                notice = view.notice
            }
        }
    }

    private func text(of view: WorkProgress.View, after seconds: Double) -> String {
        var parts = [view.title]
        if let tally = view.tally { parts.append("\(tally.done) of \(tally.known) \(tally.noun)") }
        if let total = view.total, total > .zero {
            let share = min(1, Double(view.done.bytes) / Double(total.bytes))
            if style == .bar { parts.append(progressBar(share)) }
            parts.append(String(format: "%3d%%", Int(share * 100)))
            let through = view.moved.sent + view.moved.copied
            parts.append("\(through.text) moved")
            if seconds > 0.5 {
                parts.append("\(ByteCount(UInt64(Double(through.bytes) / seconds)).text)/s")
                if share > 0.01, view.notice == nil { parts.append("ETA \((seconds / share * (1 - share)).timeText)") }
            }
        }
        if let notice = view.notice { parts.append(notice) }
        return parts.joined(separator: "  ")
    }

    /// Cut to the terminal's width, so that a redrawn line stays one line.
    private func fitted(_ line: String) -> String {
        String(line.prefix((terminalWidth(of: STDERR_FILENO) ?? 80) - 1))
    }
}

/// The terminal's last line, drawn again and again.
enum ProgressBar {
    static let isShown = Mutex(false)
    static let clearing = "\r\u{1b}[K"

    static func show(_ line: String) {
        isShown.withLock { isShown in
            emit("\r\(line)\u{1b}[K", to: STDERR_FILENO)
            isShown = true
        }
    }

    /// Lets it stand, with the "^C" that was typed behind it; on a terminal what comes is a line below.
    static func leave() {
        isShown.withLock { isShown in
            if isatty(STDERR_FILENO) == 1 { emit("\n", to: STDERR_FILENO) }
            isShown = false
        }
    }

    static func clear() {
        isShown.withLock { isShown in
            if isShown { emit(clearing, to: STDERR_FILENO) }
            isShown = false
        }
    }
}

/// - Parameter share: Of the whole, 0 to 1.
func progressBar(_ share: Double) -> String {
    let width = 20
    let full = Int(share * Double(width))
    return "[" + String(repeating: "#", count: full) + String(repeating: "-", count: width - full) + "]"
}

/// Columns; nothing for what is no terminal.
func terminalWidth(of descriptor: Int32) -> Int? {
    var size = winsize()
    guard unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return Int(size.ws_col)
}
