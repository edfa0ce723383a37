internal import Control
internal import Foundation
internal import Volumes

/// How a live move stands, as lines of text.
struct StatusText {
    let status: MoveStatus
    var withRounds = false
    var now = Date()

    private static let indent = "  "
    /// Of the words before the figures.
    private static let labelWidth = 9

    /// - Parameter width: Of the terminal; nothing where there is none, and then nothing is cut or broken.
    func text(width: Int?) -> String {
        let room = width.map { max(40, $0) - 1 }
        var lines = heading(room)
        lines.append(Self.indent + progress)
        lines += entry("writer", writer, room)
        lines += entry("pause", pause, room)
        if !status.verdict.isEmpty {
            lines += entry("verdict", status.verdict + (status.reason.map { ": " + $0 } ?? ""), room)
        }
        lines += entry("move", move, room)
        if let notice = status.notice { lines += entry("notice", notice, room) }
        if withRounds { lines += rounds(room) }
        return lines.map { (room.map($0.cut) ?? $0) + "\n" }.joined()
    }

    private func heading(_ room: Int?) -> [String] {
        let (source, target) = (status.source.printable, status.target.printable)
        let line = "\(source) → \(target)"
        guard let room, line.columns > room else { return [line] }
        return [source, "  → " + target]
    }

    /// Label and text; broken between words.
    private func entry(_ label: String, _ text: String, _ room: Int?) -> [String] {
        let margin = Self.indent.count + Self.labelWidth
        return text.folded(to: room.map { $0 - margin } ?? .max).enumerated().map { index, line in
            Self.indent + (index == 0 ? label : "").fitted(to: Self.labelWidth) + line
        }
    }

    // MARK: What stands in them

    private var progress: String {
        var parts = [status.phase.rawValue]
        if !status.title.isEmpty, status.title != status.phase.rawValue {
            parts.append(status.title.printable)
        }
        let done = ByteCount(status.doneBytes)
        if let total = status.totalBytes, total > 0 {
            let share = min(1, Double(status.doneBytes) / Double(total))
            // 100% is only what is all of it.
            parts += [progressBar(share), "\(Int(share * 100))%", "\(done.text) of \(ByteCount(total).text)"]
        } else if status.doneBytes > 0 {
            parts.append(done.text)
        }
        return parts.joined(separator: "  ")
    }

    private var writer: String {
        let limit = status.throttleBytesPerSecond.map { "held to \(Self.rate($0))" } ?? "not held"
        guard let round = status.rounds.last else { return "no round yet, " + limit }
        return "\(Self.rate(round.dirtyBytesPerSecond)) dirtied, \(Self.rate(round.drainBytesPerSecond)) drained, "
            + limit
    }

    private var pause: String {
        let allowed = "\(Self.time(status.maxPauseSeconds)) allowed"
        guard let predicted = status.predictedPauseSeconds else { return "not predicted yet, " + allowed }
        return "\(Self.time(predicted)) predicted, " + allowed
    }

    private var move: String {
        var parts = ["process \(status.process)"]
        if status.round > 0 { parts.append("round \(status.round)") }
        if let age = status.age(at: now) { parts.append("running for \(Self.time(age))") }
        if let bandwidth = status.bandwidthBytesPerSecond { parts.append("at most \(Self.rate(bandwidth))") }
        return parts.joined(separator: ", ")
    }

    private func rounds(_ room: Int?) -> [String] {
        guard !status.rounds.isEmpty else { return entry("rounds", "none yet", room) }
        let titles = ["DIRTIED", "SENT", "TIME", "DRAIN/S", "PAUSE", "HELD TO/S"]
        let rows = status.rounds.map { round in
            [
                ByteCount(round.dirtiedBytes).text, ByteCount(round.sentBytes).text, Self.time(round.seconds),
                ByteCount(round.drainBytesPerSecond).text, round.predictedPauseSeconds.map(Self.time) ?? "-",
                round.limitBytesPerSecond.map { ByteCount($0).text } ?? "-",
            ].map { $0.replacingOccurrences(of: " bytes", with: " B") }
        }
        let widths = titles.indices.map { column in (rows + [titles]).map { $0[column].count }.max() ?? 0 }
        func line(_ cells: [String]) -> String {
            zip(cells, widths).map { Self.indent + String(repeating: " ", count: $1 - $0.count) + $0 }.joined()
        }
        let margin = String(repeating: " ", count: 6)
        var lines = [line(titles)]
        for (row, round) in zip(rows, status.rounds) {
            lines.append(line(row))
            let verdict = round.verdict + (round.reason.isEmpty ? "" : ": " + round.reason)
            lines += verdict.folded(to: room.map { $0 - margin.count } ?? .max).map { margin + $0 }
        }
        return lines
    }

    private static func rate(_ bytesPerSecond: UInt64) -> String { ByteCount(bytesPerSecond).text + "/s" }

    /// What another process said may be no time at all.
    private static func time(_ seconds: Double) -> String {
        (0..<1e9).contains(seconds) ? seconds.timeText : "for ever"
    }
}
