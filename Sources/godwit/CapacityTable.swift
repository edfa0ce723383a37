internal import Capacity
internal import Foundation
internal import Volumes

/// A capacity report as lines of text.
struct CapacityTable {
    private let report: CapacityReport
    private let inBytes: Bool
    private let withSnapshots: Bool

    init(_ report: CapacityReport, inBytes: Bool, withSnapshots: Bool) {
        self.report = report
        self.inBytes = inBytes
        self.withSnapshots = withSnapshots
    }

    // MARK: For people

    private struct Column {
        let title: String
        var figure: (ImageUsage) -> ByteCount?
        var ofSnapshot: (SnapshotUsage) -> ByteCount? = { _ in nil }
        var total: (CapacityReport.Totals) -> ByteCount? = { _ in nil }
    }

    private var columns: [Column] {
        var columns = [
            Column(title: "PROVISIONED", figure: \.provisioned, ofSnapshot: \.size, total: \.provisioned),
            Column(title: "USED", figure: \.used, ofSnapshot: \.used, total: \.used),
        ]
        if report.isExact {
            columns.append(Column(title: "ALLOCATED", figure: \.allocated, total: \.allocated))
            columns.append(
                Column(title: "SNAPSHOTS", figure: \.heldBySnapshots, ofSnapshot: \.alone, total: \.heldBySnapshots))
        }
        if report.images.contains(where: { $0.parent != nil }) {
            columns.append(Column(title: "PARENT", figure: \.parent))
        }
        return columns
    }

    /// - Parameter width: Of the terminal; names that are longer than what is left are cut in the middle. Nothing where
    ///   there is none.
    func text(width: Int?) -> String {
        let columns = columns
        var rows: [(name: String, figures: [String], note: String)] = []
        for image in report.images {
            rows.append((image.title, columns.map { figure($0.figure(image)) }, note(on: image)))
            guard withSnapshots else { continue }
            for snapshot in image.snapshots {
                rows.append(("  @\(snapshot.name)", columns.map { figure($0.ofSnapshot(snapshot)) }, ""))
            }
        }
        let images = rows.count
        func sum(_ name: String, _ totals: CapacityReport.Totals) {
            rows.append(("\(name): \(count(totals.images))", columns.map { figure($0.total(totals)) }, ""))
        }
        let places = Dictionary(grouping: report.places, by: \.place.pool).sorted { $0.key < $1.key }
        for (pool, places) in places where report.places.count > 1 {
            for (place, totals) in places {
                sum([place.pool, place.namespace].filter { !$0.isEmpty }.joined(separator: "/"), totals)
            }
            if places.count > 1 { sum("all of \(pool)", report.totals(ofPool: pool)) }
        }
        let all = report.totals
        sum("in all", all)

        let widths = columns.enumerated().map { index, column in
            max(column.title.count, rows.map { $0.figures[index].count }.max() ?? 0)
        }
        let taken = widths.reduce(0) { $0 + $1 + 2 }
        let longest = max("NAME".count, rows.map(\.name.printable.columns).max() ?? 0)
        let nameWidth = width.map { min(longest, max(16, $0 - taken - 1)) } ?? longest
        let longestNote = width.map { max(20, $0 - 3) } ?? .max
        func line(_ name: String, _ figures: [String], _ note: String = "") -> String {
            let cells = zip(figures, widths).map { String(repeating: " ", count: $1 - $0.count + 2) + $0 }
            return name.printable.fitted(to: nameWidth) + cells.joined()
                + note.folded(to: longestNote).map { "\n  " + $0 }.joined() + "\n"
        }
        var text = line("NAME", columns.map(\.title))
        for row in rows[..<images] { text += line(row.name, row.figures, row.note) }
        if images > 0 { text += "\n" }
        for row in rows[images...] { text += line(row.name, row.figures) }
        return text + (report.pools.isEmpty ? "" : "\n")
            + report.pools.map { pool in
                describe(pool).folded(to: width.map { $0 - 1 } ?? .max).joined(separator: "\n  ") + "\n"
            }.joined()
    }

    private func count(_ images: Int) -> String { images == 1 ? "1 image" : "\(images) images" }

    private func note(on image: ImageUsage) -> String {
        if let problem = image.problem { return problem }
        return image.means == .sizes
            ? "at most: its pool can't tell extents, so objects count up to their last byte" : ""
    }

    private func describe(_ pool: PoolView) -> String {
        var line = "pool \(pool.name): \(figure(pool.stored)) stored by all clients, \(figure(pool.used)) on the OSDs"
        line += " (\(pool.redundancy)), \(figure(pool.available)) available"
        if let quota = pool.quota { line += ", quota \(figure(quota))" }
        return line
    }

    private func figure(_ bytes: ByteCount?) -> String {
        guard let bytes else { return "-" }
        return inBytes ? "\(bytes.bytes)" : bytes.text.replacingOccurrences(of: " bytes", with: " B")
    }

    // MARK: For programs (RFC 4180)

    var csv: String {
        var lines = [
            "pool,namespace,image,snapshot,in_trash,data_pool,means,provisioned,used,allocated,head,held_by_snapshots,"
                + "alone,parent,problem"
        ]
        for image in report.images {
            let place = [image.pool, image.namespace, image.name]
            lines.append(
                Self.record(
                    place + [
                        "", image.isInTrash ? "true" : "false", image.dataPool ?? "", image.means?.rawValue ?? "",
                        plain(image.provisioned), plain(image.used), plain(image.allocated), plain(image.head),
                        plain(image.heldBySnapshots), "", plain(image.parent), image.problem ?? "",
                    ]))
            guard withSnapshots else { continue }
            for snapshot in image.snapshots {
                lines.append(
                    Self.record(
                        place + [
                            snapshot.name, image.isInTrash ? "true" : "false", image.dataPool ?? "",
                            image.means?.rawValue ?? "", plain(snapshot.size), plain(snapshot.used), "", "", "",
                            plain(snapshot.alone), "", "",
                        ]))
            }
        }
        return lines.map { $0 + "\r\n" }.joined()
    }

    private func plain(_ bytes: ByteCount?) -> String { bytes.map { "\($0.bytes)" } ?? "" }

    private static func record(_ fields: [String]) -> String {
        fields.map { field in
            let isPlain = !field.unicodeScalars.contains { "\",\r\n".unicodeScalars.contains($0) }
            if isPlain { return field }
            // By scalars: a quote and a mark after it are one Character.
            let doubled = field.unicodeScalars.flatMap { $0 == "\"" ? [$0, $0] : [$0] }
            return "\"" + String(String.UnicodeScalarView(doubled)) + "\""
        }.joined(separator: ",")
    }
}

extension ImageUsage {
    fileprivate var title: String { isInTrash ? "\(spec) (trash)" : spec }
}

/// A capacity report for programs.
struct CapacityJSON: Encodable {
    struct Totals: Encodable {
        let images: Int
        let provisionedBytes, usedBytes: UInt64
        let allocatedBytes, heldBySnapshotsBytes: UInt64?
        let unanswered: Int

        init(_ totals: CapacityReport.Totals, isExact: Bool) {
            images = totals.images
            provisionedBytes = totals.provisioned.bytes
            usedBytes = totals.used.bytes
            allocatedBytes = isExact ? totals.allocated.bytes : nil
            heldBySnapshotsBytes = isExact ? totals.heldBySnapshots.bytes : nil
            unanswered = totals.unanswered
        }
    }
    struct Namespace: Encodable {
        let namespace: String
        let totals: Totals
    }
    struct Pool: Encodable {
        let pool: String
        let storedBytes, usedBytes, availableBytes, quotaBytes: UInt64?
        let redundancy: String?
        let overhead: Double?
        let totals: Totals
        let namespaces: [Namespace]
    }
    struct Image: Encodable {
        struct Snapshot: Encodable {
            let snapshot: String
            let id, sizeBytes: UInt64
            let usedBytes, aloneBytes: UInt64?
        }
        let pool, namespace, image: String
        let id: String?
        let inTrash: Bool
        let dataPool: String?
        let means: ImageUsage.Means?
        let provisionedBytes, usedBytes, allocatedBytes, headBytes, heldBySnapshotsBytes, parentBytes: UInt64?
        let snapshots: [Snapshot]
        let problem: String?

        init(_ image: ImageUsage) {
            (pool, namespace, self.image) = (image.pool, image.namespace, image.name)
            (id, inTrash, dataPool, means) = (image.id, image.isInTrash, image.dataPool, image.means)
            provisionedBytes = image.provisioned?.bytes
            usedBytes = image.used?.bytes
            allocatedBytes = image.allocated?.bytes
            headBytes = image.head?.bytes
            heldBySnapshotsBytes = image.heldBySnapshots?.bytes
            parentBytes = image.parent?.bytes
            snapshots = image.snapshots.map {
                Snapshot(
                    snapshot: $0.name, id: $0.id, sizeBytes: $0.size.bytes, usedBytes: $0.used?.bytes,
                    aloneBytes: $0.alone?.bytes)
            }
            problem = image.problem
        }
    }

    let pools: [Pool]
    let images: [Image]
    let totals: Totals

    var text: String { encoded(self) + "\n" }

    init(_ report: CapacityReport) {
        let isExact = report.isExact
        let names = Set(report.places.map(\.place.pool)).union(report.pools.map(\.name)).sorted()
        pools = names.map { name in
            let view = report.pools.first { $0.name == name }
            return Pool(
                pool: name, storedBytes: view?.stored?.bytes, usedBytes: view?.used?.bytes,
                availableBytes: view?.available?.bytes, quotaBytes: view?.quota?.bytes, redundancy: view?.redundancy,
                overhead: view?.overhead, totals: Totals(report.totals(ofPool: name), isExact: isExact),
                namespaces: report.places.filter { $0.place.pool == name }.map {
                    Namespace(namespace: $0.place.namespace, totals: Totals($0.totals, isExact: isExact))
                })
        }
        images = report.images.map(Image.init)
        totals = Totals(report.totals, isExact: isExact)
    }
}
