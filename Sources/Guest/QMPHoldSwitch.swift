internal import Volumes

/// The switch itself, in steps that can each be the last one of a run.
extension QMPHold {
    /// Swaps the disk's root. :returns: why it failed, or may have failed
    func attempt(_ disk: GuestDisk, _ shape: GuestView.Shape, _ qemu: QMPConnection) async -> VolumeError? {
        do throws(VolumeError) {
            let nodes = try await view(qemu).targetNodes(like: shape, objects: qemu.objects())
            for node in nodes { try await qemu.execute("blockdev-add", node) }
            let root = nodes[nodes.count - 1]["node-name"] ?? .null
            try await qemu.execute(
                "blockdev-mirror",
                [
                    "job-id": .string(names.job), "device": .string(shape.root.name), "target": root, "sync": "none",
                    // Any error ends it, rather than wait for an operator.
                    "on-source-error": "report", "on-target-error": "report",
                ])
            try await qemu.job(names.job, reaches: "BLOCK_JOB_READY")
            try await qemu.execute("block-job-complete", ["device": .string(names.job)])
            try await qemu.job(names.job, reaches: "BLOCK_JOB_COMPLETED")
            guard case .atTarget(let swapped) = try await place(qemu), swapped.device == disk.device,
                .string(swapped.root.name) == root
            else {
                return obstacle(.failed, "switch over", "the mirror has ended well, but the disk is not at the target")
            }
            return nil
        } catch {
            return error
        }
    }

    /// Takes back what a failed attempt has made; or ends the switch, if the disk turns out to be at the target all the
    /// same.
    ///
    /// - Throws: The failure, and what has gone wrong beside it.
    func undo(_ failure: VolumeError) async throws(VolumeError) {
        do throws(VolumeError) {
            let isAtTarget = try await call("switch over", limit: Self.undoLimit) { qemu throws(VolumeError) in
                try await removeLeftovers(qemu)
                guard case .atTarget = try await place(qemu) else { return false }
                try await goOnAtTarget(qemu)
                return true
            }
            if isAtTarget { return }
        } catch {
            throw VolumeError(
                failure.kind, "switch over", on: title,
                reason: "\(failure.operation): \(failure.reason); then, on taking it back: \(error.reason)",
                advice: failure.advice ?? Self.again)
        }
        throw VolumeError(
            failure.kind, "switch over", on: title, reason: "\(failure.operation): \(failure.reason)",
            advice: failure.advice)
    }

    /// The disk is at the target: what is left is to let the VM go, first, and to close the source.
    func goOnAtTarget(_ qemu: QMPConnection) async throws(VolumeError) {
        guard case .atTarget = try await place(qemu) else {
            throw obstacle(.failed, "switch over", "the disk is at the source again", Self.again)
        }
        try await letGo(qemu)
        try await closeSource(qemu)
    }

    /// Lets the VM run again, if it was this move that stopped it.
    func letGo(_ qemu: QMPConnection) async throws(VolumeError) {
        guard try await qemu.objects().contains(names.marker) else { return }
        try await qemu.execute("cont")
        try await qemu.execute("object-del", ["id": .string(names.marker)])
    }

    /// So that QEMU gives up its watch and its lock on the source.
    func closeSource(_ qemu: QMPConnection) async throws(VolumeError) {
        // A node without a name of the operator's goes with the last that uses it.
        for node in try await view(qemu).sourceNodes where !node.name.hasPrefix("#") {
            try await qemu.execute("blockdev-del", ["node-name": .string(node.name)])
        }
        let left = try await view(qemu).sourceNodes
        guard left.isEmpty else {
            throw obstacle(
                .busy, "switch over",
                "the VM runs on \(target.spec), but QEMU still has \(source.spec) open as "
                    + left.prefix(8).map(\.name).joined(separator: ", "), Self.again)
        }
    }

    /// Ends the job and removes the nodes that an attempt has left, unless the disk uses them by now.
    func removeLeftovers(_ qemu: QMPConnection) async throws(VolumeError) {
        while try await qemu.hasJob(names.job) {
            // It may end by itself meanwhile, which is as good.
            do throws(VolumeError) {
                try await qemu.execute("block-job-cancel", ["device": .string(names.job), "force": true])
            } catch  where error.kind == .missing || error.kind == .failed {}
            await qemu.pause(.milliseconds(20))
        }
        await qemu.forgetEvents()
        let view = try await view(qemu)
        guard !view.disks.contains(where: { names.owns($0.root) }) else { return }
        for node in view.leftovers { try await qemu.execute("blockdev-del", ["node-name": .string(node)]) }
    }
}
