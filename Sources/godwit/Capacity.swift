internal import ArgumentParser
internal import Capacity
internal import Foundation
internal import Glibc
internal import Mirror
internal import RBDVolumes
internal import Volumes

extension CapacityReport.Order: ExpressibleByArgument {}

struct ShowCapacity: AsyncParsableCommand {
    enum Format: String, ExpressibleByArgument, CaseIterable, Sendable { case table, json, csv }

    static let configuration = CommandConfiguration(
        commandName: "capacity",
        abstract: "Shows what images really take: by allocated bytes, not by whole objects.",
        discussion: """
            SCOPE is rbd:POOL, rbd:POOL/NAMESPACE or rbd:POOL/IMAGE, with :conf=, :id= and :keyring= as everywhere; \
            without one, every RBD pool of the cluster is shown. What is shown of an image:

              PROVISIONED  its size
              USED         whole objects, as 'rbd du' counts: an object with one byte counts in full
              ALLOCATED    what the OSDs hold for it and its snapshots, exactly, each byte once
              SNAPSHOTS    what of that would be given back if all its snapshots were removed
              PARENT       what it shows of a parent, and doesn't hold itself

            Images are not opened: no lock is taken, no client is disturbed, and reading caps suffice. An image that \
            can't be measured has a line that says why; the exit status is then 75. See Docs/Capacity.md.
            """)

    @Argument(help: "rbd:POOL, rbd:POOL/NAMESPACE or rbd:POOL/IMAGE.") var scope: [String] = []
    @Flag(help: "By the object maps: PROVISIONED and USED, in whole objects, in a fraction of the time.") var fast =
        false
    @Flag(help: "A line for each snapshot, with what it alone holds.") var snapshots = false
    @Option(help: "Order: name, size, used, allocated, snapshots or parent.") var sort = CapacityReport.Order.name
    @Option(help: "Only the first so many images in that order; all are summed up.") var top: Int?
    @Option(help: "table, json or csv.") var format = Format.table
    @Flag(help: "Bytes, rather than KiB, MiB, ….") var bytes = false
    @Option(help: "Measure and show again after so many seconds, until Ctrl-C.") var watch: Double?
    @Option(help: "How many operations may be under way at once.") var parallel = 32
    @Option(help: "Progress on stderr: auto, bar, plain or none.") var progress = ProgressStyle.auto

    func validate() throws {
        _ = try RBDScope.all(scope)
        if let top, top < 1 { throw ValidationError("--top takes a number from 1 on") }
        if let watch, !(watch >= 0.1 && watch <= 1e6) { throw ValidationError("--watch takes seconds, from 0.1 on") }
        guard (1...1024).contains(parallel) else { throw ValidationError("--parallel takes a number from 1 to 1024") }
    }

    func run() async throws {
        let scopes = try RBDScope.all(scope)
        var isWhole = true
        try await reporting { () async throws(MoveError) in
            while true {
                let progress = WorkProgress()
                let (isExact, parallel) = (!fast, parallel)
                progress.begin(isExact ? "measuring" : "reading object maps")
                let outcome = try await ProgressDisplay(progress, style: self.progress).during { () throws(MoveError) in
                    try await staged(.source) { () throws(VolumeError) in
                        try await ClusterSurvey.connect(to: scopes, isExact: isExact, parallel: parallel)
                            .run { done, known in progress.count(done, of: known, "images") }
                    }
                }
                let report = CapacityReport(
                    outcome.images, pools: outcome.pools, isExact: isExact, by: sort, top: top)
                show(report)
                for problem in outcome.problems { tell("godwit: \(problem.printable)") }
                isWhole = report.totals.unanswered == 0 && outcome.problems.isEmpty
                guard let watch else { return }
                try? await Task.sleep(for: .seconds(watch))
            }
        }
        guard isWhole else { throw Status.resumable }
    }

    private func show(_ report: CapacityReport) {
        switch format {
        case .json: emit(CapacityJSON(report).text, to: STDOUT_FILENO)
        case .csv: emit(CapacityTable(report, inBytes: true, withSnapshots: snapshots).csv, to: STDOUT_FILENO)
        case .table:
            let isRedrawn = watch != nil && isatty(STDOUT_FILENO) == 1
            let table = CapacityTable(report, inBytes: bytes, withSnapshots: snapshots)
            // From the top left, and nothing left below.
            emit((isRedrawn ? "\u{1b}[H\u{1b}[J" : "") + table.text(width: terminalWidth(of: STDOUT_FILENO)), to: 1)
        }
    }
}
