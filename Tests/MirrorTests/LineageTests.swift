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
        var kept: [String] = []
        var arrived: UInt64?
        var goal: UInt64?
        var expected: Result<[Way], Lineage.Broken>
    }

    private static let all: Result<[Way], Lineage.Broken> = .success([
        Way(nil, 10), Way(10, 20), Way(20, 30), Way(30, 40),
    ])

    static let rows: [Row] = [
        // Begun, and ended anywhere.
        Row(testDescription: "nothing was done", expected: all),
        Row(testDescription: "half way to the first", goal: 10, expected: all),
        Row(
            testDescription: "the first was kept, and not noted", kept: ["s10"], goal: 10,
            expected: .success([Way(10, 20), Way(20, 30), Way(30, 40)])),
        Row(
            testDescription: "the first was noted", kept: ["s10"], arrived: 10,
            expected: .success([Way(10, 20), Way(20, 30), Way(30, 40)])),
        Row(
            testDescription: "half way to the second", kept: ["s10"], arrived: 10, goal: 20,
            expected: .success([Way(10, 20), Way(20, 30), Way(30, 40)])),
        Row(
            testDescription: "the second was kept, and not noted", kept: ["s10", "s20"], arrived: 10, goal: 20,
            expected: .success([Way(20, 30), Way(30, 40)])),
        Row(
            testDescription: "all were kept", kept: ["s10", "s20", "s30"], arrived: 30,
            expected: .success([Way(30, 40)])),
        Row(
            testDescription: "half way to the head", kept: ["s10", "s20", "s30"], arrived: 30, goal: 40,
            expected: .success([Way(30, 40)])),
        Row(
            testDescription: "at the head", kept: ["s10", "s20", "s30"], arrived: 40, expected: .success([])),
        Row(testDescription: "no snapshots", carried: [], expected: .success([Way(nil, 40)])),
        Row(testDescription: "no snapshots, half way", carried: [], goal: 40, expected: .success([Way(nil, 40)])),
        Row(testDescription: "no snapshots, at the head", carried: [], arrived: 40, expected: .success([])),

        // Snapshots were taken since.
        Row(
            testDescription: "one was taken while half way to the head", carried: three + [state(50)],
            kept: ["s10", "s20", "s30"], arrived: 30, goal: 40, expected: .success([Way(30, 40), Way(40, 50)])),
        Row(
            testDescription: "one was taken after the head", carried: three + [state(50)],
            kept: ["s10", "s20", "s30"], arrived: 40, expected: .success([Way(40, 50)])),
        Row(
            testDescription: "one was taken after the head, then the head was frozen again",
            carried: three + [state(50)], frozen: [transient(40), transient(60)], kept: ["s10", "s20", "s30"],
            arrived: 40, expected: .success([Way(40, 50), Way(50, 60)])),
        Row(
            testDescription: "an older head that nothing was done for is passed over",
            frozen: [transient(40), transient(60)], kept: ["s10"], arrived: 10, goal: 20,
            expected: .success([Way(10, 20), Way(20, 30), Way(30, 60)])),
        Row(
            testDescription: "an older head that is half there is gone to", frozen: [transient(40), transient(60)],
            kept: ["s10", "s20", "s30"], arrived: 30, goal: 40, expected: .success([Way(30, 40), Way(40, 60)])),
        Row(
            testDescription: "one taken after the head was kept, and not noted", carried: three + [state(50)],
            kept: ["s10", "s20", "s30", "s50"], arrived: 40, goal: 50, expected: .success([])),

        // Snapshots were removed since.
        Row(
            testDescription: "one that was to come is gone", carried: [state(10), state(30)], kept: ["s10"],
            arrived: 10, expected: .success([Way(10, 30), Way(30, 40)])),
        Row(
            testDescription: "the one that is half there is gone", carried: [state(10), state(30)], kept: ["s10"],
            arrived: 10, goal: 20, expected: .failure(.stateGone(20))),
        Row(
            testDescription: "the one that was kept and not noted is gone", carried: [state(10), state(30)],
            kept: ["s10", "s20"], arrived: 10, goal: 20, expected: .failure(.stateGone(20))),
        Row(
            testDescription: "the one that the target is in is gone", carried: [state(10), state(30)],
            kept: ["s10", "s20"], arrived: 20, expected: .failure(.stateGone(20))),
        Row(
            testDescription: "the head that the target is in is gone", frozen: [transient(60)],
            kept: ["s10", "s20", "s30"], arrived: 40, expected: .failure(.stateGone(40))),
        Row(
            testDescription: "one that was kept is gone", carried: [state(20), state(30)], kept: ["s10", "s20"],
            arrived: 20, expected: .failure(.keptGone("s10"))),
        Row(
            testDescription: "one that was kept was made anew", carried: [state(20), state(30), state(35, "s10")],
            kept: ["s10", "s20"], arrived: 20, expected: .failure(.keptGone("s10"))),

        // The target isn't as the record says.
        Row(
            testDescription: "the target has one that the source never had", kept: ["s10", "x"], arrived: 10,
            expected: .failure(.keptGone("x"))),
        Row(
            testDescription: "the target has lost one", kept: ["s10"], arrived: 20,
            expected: .failure(.stateGone(20))),
        Row(
            testDescription: "the target has them in another order", kept: ["s20", "s10"], arrived: 20,
            expected: .failure(.keptGone("s20"))),

        // Names that Swift's strings hold equal, and volumes don't.
        Row(
            testDescription: "two spellings of one name are two snapshots",
            carried: [state(10, "e\u{301}"), state(20, "\u{E9}")], kept: ["e\u{301}"], arrived: 10,
            expected: .success([Way(10, 20), Way(20, 40)])),
        Row(
            testDescription: "another spelling of a kept name is another snapshot",
            carried: [state(10, "e\u{301}")], kept: ["\u{E9}"], arrived: 10, expected: .failure(.keptGone("\u{E9}"))),
    ]

    @Test(arguments: rows)
    func `the walk goes on from where the target is`(row: Row) {
        let found: Result<[Way], Lineage.Broken>
        do throws(Lineage.Broken) {
            let steps = try Lineage(
                carried: row.carried, frozen: row.frozen, kept: row.kept, arrived: row.arrived, goal: row.goal
            ).steps
            #expect(steps.allSatisfy { $0.size == $0.goal.snapshot?.size })
            found = .success(steps.map { Way($0.base?.id, $0.goal.snapshot?.id ?? 0) })
        } catch {
            found = .failure(error)
        }
        #expect(found == row.expected)
    }
}
