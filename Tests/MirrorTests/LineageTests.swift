import Mirror
import Testing
import Volumes

/// Where a walk goes on, whatever it was in the middle of: a table.
struct LineageTests {
    private static func state(_ id: UInt64, _ name: String? = nil) -> Snapshot {
        Snapshot(id: id, name: name ?? "s\(id)", size: ByteCount(id * 100))
    }
    private static func transient(_ id: UInt64) -> Snapshot { state(id, Snapshot.transientName(id)) }

    private static let three = [state(10), state(20), state(30)]

    /// A step: from which state, nothing for an empty target, to which.
    struct Way: Equatable {
        let base: UInt64?
        let goal: UInt64
        init(_ base: UInt64?, _ goal: UInt64) { (self.base, self.goal) = (base, goal) }
    }

    struct Row: CustomTestStringConvertible {
        let testDescription: String
        var carried = LineageTests.three
        var frozen = [LineageTests.transient(40)]
        var arrived: UInt64?
        var goal: UInt64?
        var isMixed = false
        var expected: [Way]
        /// Whether the first step goes from a mixed target; the others never do.
        var expectsMixed = false
    }

    private static let all = [Way(nil, 10), Way(10, 20), Way(20, 30), Way(30, 40)]

    static let rows: [Row] = [
        // Begun, and ended anywhere.
        Row(testDescription: "nothing was done", expected: all),
        Row(testDescription: "half way to the first", goal: 10, expected: all),
        Row(testDescription: "at the first", arrived: 10, expected: [Way(10, 20), Way(20, 30), Way(30, 40)]),
        Row(
            testDescription: "half way to the second", arrived: 10, goal: 20,
            expected: [Way(10, 20), Way(20, 30), Way(30, 40)]),
        Row(testDescription: "at the last", arrived: 30, expected: [Way(30, 40)]),
        Row(testDescription: "half way to the head", arrived: 30, goal: 40, expected: [Way(30, 40)]),
        Row(testDescription: "at the head", arrived: 40, expected: []),
        Row(testDescription: "no snapshots", carried: [], expected: [Way(nil, 40)]),
        Row(testDescription: "no snapshots, half way", carried: [], goal: 40, expected: [Way(nil, 40)]),
        Row(testDescription: "no snapshots, at the head", carried: [], arrived: 40, expected: []),

        // Snapshots were taken since.
        Row(
            testDescription: "one was taken while half way to the head", carried: three + [state(50)], arrived: 30,
            goal: 40, expected: [Way(30, 40), Way(40, 50)]),
        Row(
            testDescription: "one was taken after the head", carried: three + [state(50)], arrived: 40,
            expected: [Way(40, 50)]),
        Row(
            testDescription: "one was taken after the head, then the head was frozen again",
            carried: three + [state(50)], frozen: [transient(40), transient(60)], arrived: 40,
            expected: [Way(40, 50), Way(50, 60)]),
        Row(
            testDescription: "an older head that nothing was done for is passed over",
            frozen: [transient(40), transient(60)], arrived: 10, goal: 20,
            expected: [Way(10, 20), Way(20, 30), Way(30, 60)]),
        Row(
            testDescription: "an older head that is half there is gone to", frozen: [transient(40), transient(60)],
            arrived: 30, goal: 40, expected: [Way(30, 40), Way(40, 60)]),

        // Snapshots were removed since.
        Row(
            testDescription: "one that was to come is gone", carried: [state(10), state(30)], arrived: 10,
            expected: [Way(10, 30), Way(30, 40)]),
        Row(
            testDescription: "one long past is gone", carried: [state(20), state(30)], arrived: 20,
            expected: [Way(20, 30), Way(30, 40)]),
        Row(
            testDescription: "the one that is half there is gone", carried: [state(10), state(30)], arrived: 10,
            goal: 20, expected: [Way(10, 30), Way(30, 40)], expectsMixed: true),
        Row(
            testDescription: "the one that the target is in is gone", carried: [state(10), state(30)], arrived: 20,
            expected: [Way(10, 30), Way(30, 40)], expectsMixed: true),
        Row(
            testDescription: "the one that the target is in is gone, half way to the next",
            carried: [state(10), state(30)], arrived: 20, goal: 30, expected: [Way(10, 30), Way(30, 40)],
            expectsMixed: true),
        Row(
            testDescription: "the first is gone, and the target is in it", carried: [state(20)], arrived: 10,
            expected: [Way(nil, 20), Way(20, 40)], expectsMixed: true),
        Row(
            testDescription: "the head that the target is in is gone", frozen: [transient(60)], arrived: 40,
            expected: [Way(30, 60)], expectsMixed: true),
        Row(
            testDescription: "the head that it was on its way to is gone, and an older one is there",
            frozen: [transient(40)], arrived: 30, goal: 50, expected: [], expectsMixed: false),
        Row(
            testDescription: "all are gone", carried: [], frozen: [transient(60)], arrived: 40, goal: 50,
            expected: [Way(nil, 60)], expectsMixed: true),
        Row(
            testDescription: "a mixed target stays one until a state is reached", arrived: 10, goal: 20, isMixed: true,
            expected: [Way(10, 20), Way(20, 30), Way(30, 40)], expectsMixed: true),
    ]

    @Test(arguments: rows)
    func `the walk goes on from where the target is`(row: Row) {
        let steps = Lineage(
            carried: row.carried, frozen: row.frozen, arrived: row.arrived, goal: row.goal, isMixed: row.isMixed
        ).steps
        #expect(steps.allSatisfy { $0.size == $0.goal.snapshot?.size })
        #expect(steps.map { Way($0.base?.id, $0.goal.snapshot?.id ?? 0) } == row.expected)
        #expect(steps.first?.isMixed ?? false == row.expectsMixed)
        #expect(steps.dropFirst().allSatisfy { !$0.isMixed })
    }

    @Test func `a target half way to a state that is gone, and newer than the head, has nowhere to go yet`() {
        let lineage = Lineage(carried: [], frozen: [Self.transient(40)], arrived: 40, goal: 50)
        #expect(lineage.steps.isEmpty)
    }
}
