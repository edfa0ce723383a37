import Foundation
import Testing
import Volumes

@testable import Control

/// What goes over the socket.
struct ControlLineTests {
    @Test(arguments: [
        (MoveOrder.status, #"{"order":"status"}"#), (.pause, #"{"order":"pause"}"#), (.resume, #"{"order":"resume"}"#),
        (.cutover, #"{"order":"cutover"}"#), (.cancel, #"{"order":"cancel"}"#),
        (.throttle(.auto), #"{"mode":"auto","order":"throttle"}"#),
        (.throttle(.off), #"{"mode":"off","order":"throttle"}"#),
        (
            .throttle(.limit(ByteRate(bytesPerSecond: .max))),
            #"{"bytesPerSecond":18446744073709551615,"mode":"limit","order":"throttle"}"#
        ),
        (.bandwidth(ByteRate(bytesPerSecond: 1)), #"{"bytesPerSecond":1,"order":"bandwidth"}"#),
        (.bandwidth(nil), #"{"bytesPerSecond":0,"order":"bandwidth"}"#),
    ])
    func `an order is this line`(order: MoveOrder, line: String) throws {
        #expect(controlLine(order) == Array((line + "\n").utf8))
        #expect(controlValue(MoveOrder.self, of: Array(line.utf8)) == order)
    }

    @Test func `what JSON can't say of a move is left out`() throws {
        var status = MoveStatus(source: "a", target: "b", maxPauseSeconds: .infinity)
        status.predictedPauseSeconds = .infinity
        status.rounds = (0..<30).map {
            .init(
                dirtiedBytes: UInt64($0), sentBytes: 0, seconds: .nan, drainBytesPerSecond: 0, dirtyBytesPerSecond: 0,
                predictedPauseSeconds: .infinity, verdict: "go on", reason: "")
        }
        let line = try #require(controlLine(ControlReply.status(status)))
        guard case .status(let told)? = controlValue(ControlReply.self, of: line) else {
            Issue.record("no status")
            return
        }
        #expect(told.rounds.map(\.dirtiedBytes) == Array(20..<30))
        #expect(told.predictedPauseSeconds == nil && told.rounds[0].predictedPauseSeconds == nil)
        #expect(told.maxPauseSeconds == 0 && told.rounds[0].seconds == 0)
    }

    @Test func `a status of a later version is still read`() throws {
        let line = try #require(controlLine(MoveStatus(source: "a", target: "b", maxPauseSeconds: 1)))
        let text = String(decoding: line, as: UTF8.self).replacingOccurrences(of: "{\"", with: #"{"shape":[1],""#)
        #expect(controlValue(MoveStatus.self, of: Array(text.utf8))?.target == "b")
    }

    @Test func `an age is told from the beginning`() {
        let began = Date(timeIntervalSince1970: 1_800_000_000)
        let status = MoveStatus(source: "a", target: "b", started: began, maxPauseSeconds: 1)
        #expect(status.started == "2027-01-15T08:00:00Z")
        #expect(status.age(at: began.addingTimeInterval(75)) == 75)
        #expect(status.age(at: began.addingTimeInterval(-75)) == 0)
    }

    @Test(arguments: 1...9) func `a line is the same in pieces of any length`(length: Int) {
        let text = Array("abcdefg\nhi".utf8)
        for limit in [6, 7, 100] {
            var whole = LineCollector(limit: limit)
            let expected = whole.take(text)
            #expect(expected == (limit < 7 ? .tooLong : .line(Array("abcdefg".utf8))))
            var collector = LineCollector(limit: limit)
            var step = LineCollector.Step.more
            var rest = text[...]
            while step == .more {
                step = collector.take(rest.prefix(length))
                rest = rest.dropFirst(length)
            }
            #expect(step == expected)
        }
    }
}
