import Mirror
import Testing
import Volumes

/// Which exit status a failure ends in: a table, as scripts go by it.
struct MoveErrorTests {
    struct Row: CustomTestStringConvertible {
        let cause: VolumeError.Kind
        let atSource: MoveError.Kind
        let atTarget: MoveError.Kind
        let underWay: MoveError.Kind
        var testDescription: String { "\(cause)" }
    }

    static let rows: [Row] = [
        Row(cause: .missing, atSource: .noSource, atTarget: .noTarget, underWay: .resumable),
        Row(cause: .exists, atSource: .resumable, atTarget: .noTarget, underWay: .resumable),
        Row(cause: .unreachable, atSource: .unreachable, atTarget: .unreachable, underWay: .resumable),
        Row(cause: .forbidden, atSource: .forbidden, atTarget: .forbidden, underWay: .forbidden),
        Row(cause: .full, atSource: .resumable, atTarget: .noTarget, underWay: .resumable),
        Row(cause: .busy, atSource: .resumable, atTarget: .resumable, underWay: .resumable),
        Row(cause: .unsupported, atSource: .noSource, atTarget: .noTarget, underWay: .resumable),
        Row(cause: .damaged, atSource: .resumable, atTarget: .noTarget, underWay: .resumable),
        Row(cause: .failed, atSource: .resumable, atTarget: .noTarget, underWay: .resumable),
    ]

    @Test(arguments: rows)
    func `a volume's failure ends as the stage it came at says`(row: Row) {
        let cause = VolumeError(row.cause, "rbd_open", on: "rbd:fast/v", reason: "No such file", advice: "Look.")
        #expect(MoveError(cause, at: .source).kind == row.atSource)
        #expect(MoveError(cause, at: .target).kind == row.atTarget)
        #expect(MoveError(cause, at: .underWay).kind == row.underWay)
    }

    @Test func `object, operation, reason and advice are handed on`() {
        let cause = VolumeError(.missing, "rbd_open", on: "rbd:fast/v", reason: "No such file", advice: "Look.")
        let error = MoveError(cause, at: .source)
        #expect(error.lines == ["rbd:fast/v: rbd_open: No such file"])
        #expect(error.advice == "Look.")
    }

    @Test(
        arguments: [
            ([.busy], .resumable, .noTarget), ([.busy, .full], .resumable, .noTarget),
            ([.unsupported], .noTarget, .noTarget), ([.full, .exists], .noTarget, .noTarget),
            ([.busy, .forbidden], .forbidden, .forbidden),
        ] as [([VolumeError.Kind], MoveError.Kind, MoveError.Kind)])
    func `obstacles end as the worst of them`(
        kinds: [VolumeError.Kind], atSource: MoveError.Kind, atTarget: MoveError.Kind
    ) {
        let obstacles = kinds.map { Obstacle($0, "fact \($0)", remedy: "remedy \($0)") }
        #expect(MoveError(obstacles, at: .source).kind == atSource)
        #expect(MoveError(obstacles, at: .target).kind == atTarget)
        #expect(
            MoveError(obstacles, at: .source).lines
                == kinds.flatMap { ["fact \($0)", "  remedy \($0)"] })
    }

    @Test func `what goes well passes through a stage, and what doesn't is placed`() async throws {
        #expect(try await staged(.source) { () throws(VolumeError) in 7 } == 7)
        await #expect {
            try await staged(.target) { () throws(VolumeError) in
                throw VolumeError(.full, "write", on: "x", reason: "full")
            }
        } throws: {
            ($0 as? MoveError)?.kind == .noTarget
        }
    }
}
