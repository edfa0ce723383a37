internal import Foundation
internal import Mirror
internal import Volumes

/// A value as JSON, keys in order.
func encoded(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    // Reports hold strings, numbers and lists of them: they always encode.
    return String(decoding: try! encoder.encode(value), as: UTF8.self)
}

extension Report {
    var json: String { encoded(self) + "\n" }

    var text: String {
        if outcome == .tidied {
            return "\(source) had been moved to \(target) already; what the move had left is tidied up\n"
        }
        var lines = ["moved \(source) to \(target) in \(seconds.timeText)"]
        if resumed {
            lines.append("  went on from an earlier run; snapshots it had finished: \(snapshotsFoundFinished)")
        }
        let width = max(4, steps.map { ($0.snapshot ?? "head").count }.max() ?? 0)
        for step in steps {
            let name = (step.snapshot ?? "head").padding(toLength: width, withPad: " ", startingAt: 0)
            let found = "\(ByteCount(step.foundBytes).text) \(step.means == .dirtyBitmap ? "dirty" : "allocated")"
            var line = "  \(name)  \(found), \(ByteCount(step.sentBytes).text) sent"
            if step.copiedBytes > 0 { line += ", \(ByteCount(step.copiedBytes).text) from OSD to OSD" }
            if step.zeroedBytes > 0 { line += ", \(ByteCount(step.zeroedBytes).text) made holes" }
            lines.append(line + ", \(step.seconds.timeText)")
        }
        if let rounds, !rounds.isEmpty {
            let dirtied = ByteCount(rounds.reduce(0) { $0 + $1.dirtiedBytes })
            lines.append(
                "  followed the writer for \(rounds.count) round\(rounds.count == 1 ? "" : "s"): \(dirtied.text) dirtied, "
                    + "snapshots held it up for at most \(Duration.seconds(snapshotSeconds ?? 0).text) in all")
        }
        if let pause { lines.append("  " + pause.text) }
        if let means = Set(steps.map(\.means.rawValue)).sorted().nonEmpty {
            lines.append("  extents by \(means.joined(separator: ", ")); bytes by \(route?.rawValue ?? "")")
        }
        if verified == true {
            let isPart = steps.contains { $0.means == .dirtyBitmap }
            lines.append("  verified: \(isPart ? "what was dirty is equal" : "every snapshot and the head are equal")")
        }
        lines += changed.map { "  changed: \($0)" }
        lines += notCarried.map { "  not carried: \($0)" }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension Report.Pause {
    var text: String { "held still for \(Duration.seconds(seconds).text): \(parts)" }
}

extension Report.RoundReport {
    /// A round in one line.
    func text(_ number: Int) -> String {
        var line =
            "round \(number): \(ByteCount(dirtiedBytes).text) dirtied at \(ByteRate(bytesPerSecond: dirtyBytesPerSecond).text), "
            + "\(ByteCount(sentBytes).text) sent in \(Duration.seconds(seconds).text), "
            + "drained at \(ByteRate(bytesPerSecond: drainBytesPerSecond).text); "
            + "pause \(Duration.seconds(predictedPauseSeconds).text); \(verdict): \(reason)"
        if let limitBytesPerSecond { line += " (limit \(ByteRate(bytesPerSecond: limitBytesPerSecond).text))" }
        return line
    }
}

extension Preflight.Plan {
    var json: String { encoded(self) + "\n" }

    var text: String {
        var lines = ["would move \(source) to \(target)"]
        let width = max(4, steps.map { ($0.snapshot ?? "head").count }.max() ?? 0)
        for step in steps {
            let name = (step.snapshot ?? "head").padding(toLength: width, withPad: " ", startingAt: 0)
            lines.append(
                "  \(name)  \(ByteCount(step.dirtyBytes).text) of \(ByteCount(step.sizeBytes).text), by \(step.means.rawValue)"
            )
        }
        var total = "  in all  \(ByteCount(dirtyBytes).text)"
        if let seconds { total += ", about \(seconds.timeText)" }
        lines.append(total)
        lines += changed.map { "  changed: \($0)" }
        lines += notCarried.map { "  not carried: \($0)" }
        if blockers.isEmpty { lines.append("  nothing stands against it") }
        for blocker in blockers { lines += ["  blocked: \(blocker.fact)", "           \(blocker.remedy)"] }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension Array {
    var nonEmpty: Self? { isEmpty ? nil : self }
}
