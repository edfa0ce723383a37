import ArgumentParser
import Control
import Testing
import Volumes

@testable import godwit

/// What the commands that give orders understand.
struct OrderTests {
    private static func rate(_ mebibytes: UInt64) -> ByteRate { ByteRate(bytesPerSecond: mebibytes << 20) }

    @Test(
        arguments: [
            (["auto"], MoveOrder.Throttle.auto, nil), (["off"], .off, nil), (["20M"], .limit(rate(20)), nil),
            (["slow/v", "auto"], .auto, "slow/v"), (["20M", "30M"], .limit(rate(30)), "20M"),
            (["auto", "off"], .off, "auto"),
        ] as [([String], MoveOrder.Throttle, String?)])
    func `the last word is the throttle, and one before it the target`(
        words: [String], throttle: MoveOrder.Throttle, target: String?
    ) throws {
        let (order, named) = try ThrottleMove.parse(words).order()
        #expect(order == .throttle(throttle))
        #expect(named == target)
    }

    @Test(
        arguments: [(["0"], nil, nil), (["slow/v", "100M"], rate(100), "slow/v")] as [([String], ByteRate?, String?)])
    func `the last word is the bandwidth, and one before it the target`(
        words: [String], rate: ByteRate?, target: String?
    ) throws {
        let (order, named) = try LimitMove.parse(words).order()
        #expect(order == .bandwidth(rate))
        #expect(named == target)
    }

    @Test(arguments: [
        (["throttle"], "expected [TARGET] and then auto, off or a rate"),
        (["throttle", "slow/v"], "'slow/v': expected auto"),
        (["throttle", "20M", "slow/v"], "it comes after the target"), (["throttle", "0"], "write 'off'"),
        (["throttle", "a", "b", "c"], "expected [TARGET]"), (["bandwidth", "auto"], "'auto': expected a rate"),
        (["bandwidth", "-1"], "expected [TARGET] and then a rate"), (["pause", "a", "b"], "Unexpected argument 'b'"),
        (["status", "--watch", "0"], "--watch takes seconds"), (["status", "--watch", "nan"], "--watch takes seconds"),
    ])
    func `what is no order is wrong usage, and says why`(arguments: [String], complaint: String) {
        let error = #expect(throws: (any Error).self) { try Godwit.parseAsRoot(arguments) }
        guard let error else { return }
        #expect(Godwit.exitCode(for: error).rawValue == 64)
        #expect(Godwit.fullMessage(for: error).contains(complaint), "\(Godwit.fullMessage(for: error))")
    }

    @Test(
        arguments: [(ControlError.Kind.noMove, 66), (.ambiguous, 64), (.unanswered, 75), (.refused, 75)]
            as [(ControlError.Kind, Int32)])
    func `each failure has its exit status`(kind: ControlError.Kind, status: Int32) async {
        let code = await #expect(throws: ExitCode.self) {
            try await controlling { () async throws(ControlError) in throw ControlError(kind, ["a test says so"]) }
        }
        #expect(code?.rawValue == status)
    }
}
