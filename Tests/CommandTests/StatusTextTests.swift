import Control
import Foundation
import Testing

@testable import godwit

/// What `godwit status` shows of a move.
struct StatusTextTests {
    private static let began = Date(timeIntervalSince1970: 1_800_000_000)

    private func text(_ status: MoveStatus, width: Int? = 80, withRounds: Bool = false) -> String {
        StatusText(status: status, withRounds: withRounds, now: Self.began.addingTimeInterval(725)).text(width: width)
    }

    /// In the fourth round, its clients slowed down.
    private var following: MoveStatus {
        var status = MoveStatus(
            source: "rbd:fast/v", target: "rbd:slow/v", process: 4242, started: Self.began, phase: .following,
            title: "round 4", maxPauseSeconds: 0.5)
        (status.doneBytes, status.totalBytes) = (52 << 20, 100 << 20)
        status.round = 4
        status.rounds = [
            .init(
                dirtiedBytes: 400 << 20, sentBytes: 1 << 30, seconds: 9.5, drainBytesPerSecond: 110 << 20,
                dirtyBytesPerSecond: 42 << 20, predictedPauseSeconds: 3.7, verdict: "go on",
                reason: "the first round says nothing yet"),
            .init(
                dirtiedBytes: 380 << 20, sentBytes: 400 << 20, seconds: 3.6, drainBytesPerSecond: 110 << 20,
                dirtyBytesPerSecond: 105 << 20, predictedPauseSeconds: 3.5, verdict: "throttle",
                reason: "380.0 MiB were written while 400.0 MiB were sent: the rounds don't get shorter by themselves",
                limitBytesPerSecond: 27 << 20),
        ]
        status.predictedPauseSeconds = 3.5
        status.throttleBytesPerSecond = 27 << 20
        status.bandwidthBytesPerSecond = 200 << 20
        status.verdict = "throttle"
        status.reason = status.rounds[1].reason
        return status
    }

    @Test func `a move that follows is shown with its rates and its verdict`() {
        #expect(
            text(following) == """
                rbd:fast/v → rbd:slow/v
                  following  round 4  [##########----------]  52%  52.0 MiB of 100.0 MiB
                  writer   105.0 MiB/s dirtied, 110.0 MiB/s drained, held to 27.0 MiB/s
                  pause    3.5 s predicted, 0.5 s allowed
                  verdict  throttle: 380.0 MiB were written while 400.0 MiB were sent: the
                           rounds don't get shorter by themselves
                  move     process 4242, round 4, running for 12 min 5 s, at most 200.0 MiB/s

                """)
    }

    @Test func `the rounds are shown with their verdicts`() {
        #expect(
            text(following, withRounds: true).hasSuffix(
                """
                    DIRTIED       SENT   TIME    DRAIN/S  PAUSE  HELD TO/S
                  400.0 MiB    1.0 GiB  9.5 s  110.0 MiB  3.7 s          -
                      go on: the first round says nothing yet
                  380.0 MiB  400.0 MiB  3.6 s  110.0 MiB  3.5 s   27.0 MiB
                      throttle: 380.0 MiB were written while 400.0 MiB were sent: the rounds
                      don't get shorter by themselves

                """))
    }

    @Test func `a move that has just begun shows what isn't known as such`() {
        let status = MoveStatus(
            source: "a", target: "b", process: 7, started: Self.began, title: "connecting", maxPauseSeconds: 0.5)
        #expect(
            text(status) == """
                a → b
                  copying  connecting
                  writer   no round yet, not held
                  pause    not predicted yet, 0.5 s allowed
                  move     process 7, running for 12 min 5 s

                """)
    }

    @Test(arguments: [40, 60, 80, 200]) func `no line is wider than the terminal`(width: Int) {
        var status = following
        status.source = "rbd:" + String(repeating: "pool", count: 20) + "/v:conf=/etc/ceph/west.conf:id=mover"
        status.notice =
            "no answer from " + String(repeating: "a", count: 100) + " for 30 s 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字"
        status.throttleBytesPerSecond = .max
        for round in status.rounds.indices { status.rounds[round].seconds = 1e300 }
        for line in text(status, width: width, withRounds: true).split(separator: "\n") {
            #expect(String(line).columns < width, "\(line)")
        }
        // Where there is no terminal, nothing is cut.
        #expect(text(status, width: nil).contains(status.source))
    }

    @Test func `nothing that a move says is a command to the terminal`() {
        var status = following
        let command = "\u{1b}[2J\n\r\u{202e}"
        (status.source, status.target, status.title) = ("a" + command, "b" + command, "c" + command)
        (status.verdict, status.reason, status.notice) = ("d" + command, "e" + command, "f" + command)
        status.rounds[0].verdict = "g" + command
        status.rounds[0].reason = "h" + command
        let shown = text(status, width: 400, withRounds: true)
        #expect(shown.unicodeScalars.allSatisfy { $0 == "\n" || $0.properties.generalCategory != .control })
        #expect(!shown.contains("\u{202e}"))
        for letter in "abcdefgh" { #expect(shown.contains("\(letter)\\u001b[2J\\u000a\\u000d\\u202e")) }
    }

    @Test func `numbers that can't be are shown all the same`() {
        var status = following
        (status.doneBytes, status.totalBytes) = (.max, 1)
        status.maxPauseSeconds = -1
        status.predictedPauseSeconds = 1e300
        status.started = "yesterday"
        let shown = text(status)
        #expect(shown.contains("100%"))
        #expect(shown.contains("for ever predicted, for ever allowed"))
        #expect(!shown.contains("running for"))
    }
}
