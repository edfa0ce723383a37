internal import NBDProtocol
package import Volumes

/// A disk under the name by which clients ask for it.
///
/// All connections share the one disk: so a flush on one of them covers what was written on any, and several may be used
/// as one (NBD protocol, `NBD_FLAG_CAN_MULTI_CONN`).
package struct Export: Sendable {
    package let name: String
    /// For people; empty if there is nothing to say.
    package let description: String
    package let disk: any Disk
    /// Knows what of the disk was changed, for clients that ask (`x-godwit:dirty`).
    package let watch: (any DirtyView)?

    /// - Parameter name: At most 4096 bytes, without NUL.
    package init(name: String, description: String = "", disk: any Disk, watch: (any DirtyView)? = nil) {
        precondition(name.isNBDString, "no string of the protocol")
        (self.name, self.description, self.disk, self.watch) = (name, description, disk, watch)
    }

    var info: ExportInfo {
        var flags: TransmissionFlags = [.multiConn]
        if disk.isWritable {
            flags.formUnion([.flush, .fua, .trim, .writeZeroes, .fastZero])
        } else {
            flags.insert(.readOnly)
        }
        if disk.caches { flags.insert(.cache) }
        let minimum = UInt32(disk.blockSize.bytes)
        guard
            let sizes = BlockSizes(
                minimum: minimum, preferred: max(4096, minimum), maximumPayload: Bounds.payload)
        else { preconditionFailure("a disk's blocks are a power of two up to 64 KiB") }
        return ExportInfo(
            name: name, description: description, size: disk.size, flags: flags, blockSizes: sizes,
            contexts: watch == nil ? [.allocation] : [.allocation, .dirty])
    }
}

/// The exports of a server, which stay the same for as long as it runs.
struct Exports: Sendable {
    let all: [Export]

    /// - Parameter all: Each of another name.
    init(_ all: [Export]) {
        precondition(Set(all.map(\.name)).count == all.count, "one name, one export")
        self.all = all
    }

    var listed: [ListedExport] { all.map { ListedExport(name: $0.name, description: $0.description) } }

    /// The export of that name. No name at all means the only one there is.
    func named(_ name: String) -> Export? {
        all.first { $0.name == name } ?? (name.isEmpty && all.count == 1 ? all[0] : nil)
    }
}
