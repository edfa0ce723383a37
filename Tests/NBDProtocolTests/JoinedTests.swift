import Testing

@testable import NBDProtocol

/// Both sessions back to back.
struct JoinedTests {
    @Test(arguments: ReplyStyle.allCases, 1...24 as ClosedRange<UInt64>)
    func `everything arrives as it was asked for`(style: ReplyStyle, seed: UInt64) {
        var joined = Joined(style: style, seed: seed)
        joined.run(requests: 40)
        #expect(joined.faults == [])
        #expect(joined.finished == 40 && joined.expected.isEmpty && joined.client.pendingCookies.isEmpty)
        #expect(joined.failed < 40)
    }

    @Test(arguments: ReplyStyle.allCases)
    func `a byte that is wrong on the wire doesn't go unseen`(style: ReplyStyle) {
        var joined = Joined(style: style, seed: 1)
        joined.plantsFault = true
        joined.run(requests: 40)
        #expect(joined.faults == ["other bytes"])
    }
}
