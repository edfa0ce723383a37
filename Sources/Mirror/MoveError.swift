package import Volumes

/// Why a move or one of its kin didn't come to its end, in the terms of whoever asked for it.
package struct MoveError: Error, Sendable {
    /// Closed: each is an exit status (Docs/CLI.md).
    package enum Kind: Sendable, Equatable {
        case usage
        case noSource
        case unreachable
        case noTarget
        /// What was done so far stands: the same command goes on from there.
        case resumable
        /// Source and target aren't the same.
        case differs
        case forbidden
    }

    package let kind: Kind
    /// What, where and why, a line each.
    package let lines: [String]
    /// What now.
    package let advice: String?
    /// Whether a volume doesn't answer: what is left to do there would only wait as long again.
    package var isUnanswered = false

    package init(_ kind: Kind, _ lines: [String], advice: String? = nil) {
        self.kind = kind
        self.lines = lines
        self.advice = advice
    }

    /// Where a move had come to when it failed.
    package enum Stage: Sendable { case source, target, underWay }

    package init(_ cause: VolumeError, at stage: Stage) {
        let kind: Kind =
            switch (stage, cause.kind) {
            case (_, .forbidden): .forbidden
            case (.underWay, _): .resumable
            case (_, .unreachable): .unreachable
            case (.source, .missing), (.source, .unsupported): .noSource
            case (.source, _): .resumable
            case (.target, .busy): .resumable
            case (.target, _): .noTarget
            }
        self.init(kind, ["\(cause.object): \(cause.operation): \(cause.reason)"], advice: cause.advice)
        isUnanswered = cause.kind == .unreachable
    }

    package init(_ obstacles: [Obstacle], at stage: Stage) {
        let kinds = obstacles.map(\.kind)
        let kind: Kind =
            if kinds.contains(.forbidden) { .forbidden } else if stage == .source, kinds.contains(.busy) {
                .resumable
            } else { .noTarget }
        self.init(kind, obstacles.flatMap { [$0.fact, "  " + $0.remedy] })
    }
}

/// Runs `body`, and says of what it throws where the move had come to.
package func staged<Value>(
    _ stage: MoveError.Stage, _ body: () async throws(VolumeError) -> Value
) async throws(MoveError) -> Value {
    do throws(VolumeError) {
        return try await body()
    } catch {
        throw MoveError(error, at: stage)
    }
}
