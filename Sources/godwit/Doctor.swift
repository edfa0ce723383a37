internal import ArgumentParser
internal import Glibc
internal import Mirror
internal import RBDVolumes
internal import Volumes

struct Doctor: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Finds what moves left behind that were ended by force, or with their host.",
        discussion: """
            Looks for targets that aren't finished, snapshots godwit.… that a move took, limits that it put on a \
            source's clients, and its marks, of moves whose process is gone. What a running move needs is shown as such, \
            and never touched; nor is what may be of a process on a host that can't be asked from here.

            Before --fix: a move whose target isn't finished goes on where it was when its command is given again. \
            With --fix that target is removed, as 'godwit abort' does.

            EXAMPLE
              godwit doctor                 the whole cluster
              godwit doctor rbd:fast --fix

            EXIT STATUS
              0  nothing is left, or all of it was removed     65  something is left
            """)

    @Argument(help: "rbd:POOL, rbd:POOL/NAMESPACE or rbd:POOL/IMAGE.") var scope: [String] = []
    @Flag(help: "Remove what is left of moves whose process is gone.") var fix = false
    @Flag(help: "Write what was found to stdout as JSON.") var json = false
    @Option(help: "Progress on stderr: auto, bar, plain or none.") var progress = ProgressStyle.auto

    func validate() throws { _ = try RBDScope.all(scope) }

    func run() async throws {
        let scopes = try RBDScope.all(scope)
        var isClean = false
        try await reporting { () async throws(MoveError) in
            let progress = WorkProgress()
            progress.begin("looking at images")
            let (found, problems) = try await ProgressDisplay(progress, style: self.progress).during {
                () throws(MoveError) in
                try await staged(.source) { () throws(VolumeError) in
                    try await LeftoverSurvey.connect(to: scopes).run { progress.count($0, of: $0, "images") }
                }
            }
            if json { emit(encoded(found) + "\n", to: STDOUT_FILENO) }
            var left = found.filter { $0.life != .alive }
            if !json { for leftover in found { emit(leftover.text + "\n", to: STDOUT_FILENO) } }
            for problem in problems { tell("godwit: \(problem.printable)") }
            if fix { left = await mend(left) }
            if !json, left.isEmpty, problems.isEmpty {
                emit(found.isEmpty ? "nothing of a move is left\n" : "nothing else is left\n", to: STDOUT_FILENO)
            }
            isClean = left.isEmpty && problems.isEmpty
        }
        guard isClean else { throw Status.differs }
    }

    /// - Returns: What is left still.
    private func mend(_ left: [Leftover]) async -> [Leftover] {
        var rest: [Leftover] = []
        // Targets first: giving one up removes what its move left at the source as well.
        for leftover in left.filter({ $0.kind == .unfinished }) + left.filter({ $0.kind != .unfinished }) {
            guard leftover.life == .gone, leftover.kind != .untidied else {
                rest.append(leftover)
                continue
            }
            do throws(MoveError) {
                try await remove(leftover)
                if !json { emit("removed: \(leftover.title)\n".printableLines, to: STDOUT_FILENO) }
            } catch {
                tell(error)
                rest.append(leftover)
            }
        }
        return rest
    }

    private func remove(_ leftover: Leftover) async throws(MoveError) {
        guard leftover.kind != .unfinished else { return try await giveUp(leftover) }
        try await staged(.underWay) { () throws(VolumeError) in
            guard case .rbd(let address) = try Opening.recorded(leftover.address) else { return }
            let source = try await RBDSource.connect(to: address)
            switch leftover.kind {
            case .transient: if let name = leftover.detail { try await source.thaw(name) }
            case .throttle: try await source.lift()
            case .claim: if let target = leftover.target { try await source.release(from: target) }
            case .unfinished, .untidied: break
            }
        }
    }

    private func giveUp(_ leftover: Leftover) async throws(MoveError) {
        let target = try await staged(.target) { () throws(VolumeError) in
            try await Opening.target(try Opening.recorded(leftover.address)) { tell("godwit: \($0)") }
        }
        _ = try await Abort(of: target) { recorded throws(VolumeError) in
            try await Opening.source(try Opening.recorded(recorded))
        }.run()
    }
}

extension Leftover {
    fileprivate var title: String {
        let place = kind == .transient ? "\(address)@\(detail ?? "")" : address
        return "\(kind.rawValue) \(place)" + (kind == .throttle ? ", \(detail ?? "")" : "")
    }

    /// What it is, whose, and what now.
    fileprivate var text: String {
        let whose =
            switch life {
            case .alive: "of \(mover ?? "a move") that is running: left alone"
            case .gone: mover.map { "of \($0), which is gone" } ?? "of a move that is gone"
            case .unknown: "of \(mover ?? "a move") that may be running: look there, and leave it alone till then"
            }
        var lines = ["\(title): \(whose)"]
        if life == .gone {
            switch kind {
            case .untidied: lines.append("  give its command again: it tidies up")
            case .unfinished:
                lines.append("  give its command again to go on; --fix, or 'godwit abort \(address)', removes it")
            default: lines.append("  --fix removes it")
            }
        }
        return lines.joined(separator: "\n").printableLines
    }
}

extension String {
    fileprivate var printableLines: String {
        split(separator: "\n", omittingEmptySubsequences: false).map { String($0).printable }.joined(separator: "\n")
    }
}
