internal import ArgumentParser
internal import Mirror
internal import NBDVolumes
internal import Volumes

struct Map: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Lists the extents of a volume, as 'nbdinfo --map' and 'qemu-img map' do.",
        discussion: """
            Each line is an offset and a length in bytes, a type and its name: 0 data, 3 hole,zero. With --from-snap, \
            only what differs from that snapshot is listed: 0 data, 3 zero. The same of an NBD server's export with \
            --dirty-bitmap, for what that bitmap says is dirty.
            """)

    @Argument(help: "The volume, or a snapshot of it: rbd:POOL/IMAGE@SNAP.") var address: String
    @Option(help: "List what changed since this snapshot.") var fromSnap: String?
    @Option(help: "List what this dirty bitmap of QEMU's says has changed; of an NBD server's export.")
    var dirtyBitmap: DirtyBitmap?
    @Flag(help: "As a JSON array.") var json = false

    func validate() throws {
        _ = try AddressArgument.explained(address)
        try dirtyBitmap?.refuseUnlessExport(address)
    }

    func run() async throws {
        let address = try AddressArgument.explained(address)
        var isBackwards = false
        try await reporting { () async throws(MoveError) in
            try await staged(.source) { () throws(VolumeError) in
                var plain = address.address
                if case .rbd(var rbd) = plain {
                    rbd.snapshot = nil
                    plain = .rbd(rbd)
                }
                let volume = try await Opening.source(plain, bitmap: dirtyBitmap)
                let revision = try await volume.revision(named: address.snapshot)
                let base = try await fromSnap == nil ? volume.base : volume.revision(named: fromSnap).snapshot
                if let base, let goal = revision.snapshot, base.id > goal.id {
                    isBackwards = true
                    return
                }
                try await volume.withReader(at: revision) { reader throws(VolumeError) in
                    try await list(reader, since: base)
                }
            }
            guard !isBackwards else {
                throw MoveError(
                    .usage, ["\(fromSnap ?? "") is newer than \(address.snapshot ?? "")"],
                    advice: "Give the older snapshot with --from-snap.")
            }
        }
    }

    private func list(_ reader: any VolumeReader, since base: Snapshot?) async throws(VolumeError) {
        var lines = MapLines(isJSON: json)
        try await forEachWindow(of: reader.size, unit: reader.extentUnit) { window throws(VolumeError) in
            let data = try await reader.extents(in: window, since: nil)
            guard base != nil else {
                lines.add(data, "data")
                lines.add(ExtentSet([window]).subtracting(data), "hole,zero")
                return lines.flush(upTo: window.end)
            }
            let changed = try await reader.extents(in: window, since: base)
            lines.add(changed.intersection(data), "data")
            lines.add(changed.subtracting(data), "zero")
            lines.flush(upTo: window.end)
        }
        lines.end()
    }
}

/// The lines of a map, joined where one window goes on into the next.
private struct MapLines {
    private let isJSON: Bool
    private var pending: [(extent: Extent, type: String)] = []
    private var isFirst = true

    init(isJSON: Bool) { self.isJSON = isJSON }

    mutating func add(_ extents: ExtentSet, _ type: String) {
        for extent in extents.extents { pending.append((extent, type)) }
    }

    /// Writes what can't grow any more.
    mutating func flush(upTo end: ByteOffset) {
        pending.sort { $0.extent.offset < $1.extent.offset }
        var joined: [(extent: Extent, type: String)] = []
        for item in pending {
            if let last = joined.last, last.type == item.type, last.extent.end == item.extent.offset {
                joined[joined.count - 1].extent.length += item.extent.length
            } else {
                joined.append(item)
            }
        }
        let open = joined.last.map { $0.extent.end == end } ?? false
        write(open ? joined.dropLast() : joined[...])
        pending = open ? Array(joined.suffix(1)) : []
    }

    mutating func end() {
        write(pending[...])
        if isJSON { emit(isFirst ? "[]\n" : "\n]\n", to: 1) }
    }

    private mutating func write(_ items: ArraySlice<(extent: Extent, type: String)>) {
        var text = ""
        for (extent, type) in items {
            let number = type == "data" ? 0 : 3
            if isJSON {
                text += isFirst ? "[\n" : ",\n"
                text +=
                    "{ \"offset\": \(extent.offset.bytes), \"length\": \(extent.length.bytes), "
                    + "\"type\": \(number), \"description\": \"\(type)\" }"
            } else {
                text += "\(padded(extent.offset.bytes)) \(padded(extent.length.bytes)) \(number) \(type)\n"
            }
            isFirst = false
        }
        emit(text, to: 1)
    }

    private func padded(_ number: UInt64) -> String {
        let digits = String(number)
        return String(repeating: " ", count: max(0, 15 - digits.count)) + digits
    }
}
