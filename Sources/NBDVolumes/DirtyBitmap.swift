internal import NBDProtocol
internal import Volumes

/// A dirty bitmap of QEMU's, by which a server tells what was written since the bitmap was begun (QEMU,
/// docs/interop/bitmaps.rst, docs/interop/nbd.txt).
package struct DirtyBitmap: Sendable, Equatable {
    package let name: String

    /// Nothing if no server can have one of that name.
    package init?(_ name: String) {
        guard !name.isEmpty, MetaContext.qemuDirtyBitmap(name).name.isNBDString else { return nil }
        self.name = name
    }

    var context: MetaContext { .qemuDirtyBitmap(name) }

    /// The state in which the bitmap was begun. Nobody has it still: all there is to know of it is what differs.
    func base(_ size: ByteCount) -> Snapshot { Snapshot(id: 0, name: name, size: size) }

    /// What is said where the server doesn't offer it.
    func missing(from address: NBDAddress) -> VolumeError {
        VolumeError(
            .missing, "connect", on: address.text,
            reason: "the server offers no dirty bitmap \"\(name)\" of this export (\(context.name))",
            advice: "'nbdinfo \(address.text)' lists the contexts it offers. 'qemu-nbd --bitmap=NAME' serves a bitmap, "
                + "as does QEMU's block-export-add with \"bitmaps\".")
    }
}
