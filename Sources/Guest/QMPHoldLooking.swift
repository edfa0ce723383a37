internal import Volumes

/// What is looked at before anything is done.
extension QMPHold {
    func view(_ qemu: QMPConnection) async throws(VolumeError) -> GuestView {
        let disks = try await qemu.execute("query-block").elements ?? []
        let nodes = try await qemu.execute("query-named-block-nodes").elements ?? []
        return GuestView(
            source: source, target: target, names: names, disks: disks.compactMap(GuestDisk.init),
            nodes: nodes.compactMap(BlockNode.init))
    }

    func place(_ qemu: QMPConnection) async throws(VolumeError) -> GuestView.Place {
        let view = try await view(qemu)
        do {
            return try view.place()
        } catch {
            throw obstacle(error.kind, "query-block", error.reason, Self.wayOut)
        }
    }

    func expectNoMigration(_ qemu: QMPConnection) async throws(VolumeError) {
        let status = try await qemu.status()
        guard !["inmigrate", "postmigrate", "finish-migrate", "colo", "save-vm", "restore-vm"].contains(status) else {
            throw obstacle(
                .busy, "query-status", "the VM's memory is on its way to or from another QEMU (\(status))",
                "Wait until that has ended, then give the command again.")
        }
    }

    /// In these states nothing runs until somebody asks for it; a VM that sleeps ("suspended") may wake by itself.
    func expectStill(_ qemu: QMPConnection) async throws(VolumeError) {
        try await expectNoMigration(qemu)
        let status = try await qemu.status()
        guard
            ["paused", "io-error", "prelaunch", "shutdown", "watchdog", "guest-panicked", "internal-error", "debug"]
                .contains(status)
        else {
            throw obstacle(
                .failed, "stop", "the VM doesn't stand still: its state is '\(status)'",
                status == "suspended" ? "Wake the guest, then give the command again." : nil)
        }
    }

    /// A backup, an export or another job on the disk would keep the source open, or write to it.
    func expectNoOtherUser(
        of shape: GuestView.Shape, _ disk: GuestDisk, _ qemu: QMPConnection
    ) async throws(VolumeError) {
        guard try await !qemu.hasJob(names.job) else { return }  // of an earlier run, and taken away by the switch
        let graph: BlockGraph
        do throws(VolumeError) {
            graph = BlockGraph(try await qemu.execute("x-debug-query-block-graph"))
        } catch  where error.kind == .unsupported {
            return  // then QEMU itself refuses, at the switch
        }
        let others = graph.users(of: shape.nodes.map(\.name), without: disk.aliases)
        guard others.isEmpty else {
            throw obstacle(
                .busy, "query-block", "the disk \(disk.title) is also used by " + others.joined(separator: ", "),
                "End that, or wait until it has ended; then give the command again.")
        }
    }

    /// Whether QEMU reaches the target's pool, as it will have to while the VM stands still: it is asked for an image that
    /// isn't there, and has to know that it isn't.
    func probe(_ shape: GuestView.Shape, _ qemu: QMPConnection) async throws(VolumeError) {
        let view = try await view(qemu)
        let node = try await view.imageNode(
            names.probe, target.image + ".godwit-probe", like: shape.image, objects: qemu.objects())
        do throws(VolumeError) {
            try await qemu.execute("blockdev-add", node)
        } catch {
            // qemu_rbd_open, block/rbd.c.
            if error.kind == .missing, error.reason.contains("error reading header") { return }
            guard error.kind == .missing || error.kind == .forbidden || error.kind == .failed else { throw error }
            throw obstacle(
                error.kind, "blockdev-add", "QEMU can't reach the pool of \(target.spec): \(error.reason)",
                "QEMU opens the target by itself: its user must be able to read the conf= and the keyring that it names, "
                    + "and id= must be allowed to write there. Or use --freeze exec:COMMAND.")
        }
        try await qemu.execute("blockdev-del", ["node-name": .string(names.probe)])
    }

    static let wayOut = "A VM that this can't serve is held by a command of yours: --freeze exec:COMMAND"
}
