internal import Volumes

/// What QEMU has of a move's two images: its disks, its open nodes and its jobs, at one moment.
struct GuestView: Sendable {
    let source: RBDAddress
    let target: RBDAddress
    let names: Names
    let disks: [GuestDisk]
    private(set) var nodes: [BlockNode]

    func with(nodes: [BlockNode]) -> GuestView {
        var view = self
        view.nodes = nodes
        return view
    }

    /// What a move calls what it makes in QEMU. Of the addresses alone, so that a later run knows it for its own.
    struct Names: Sendable, Equatable {
        let image, root, probe, job, marker: String

        init(source: RBDAddress, target: RBDAddress) {
            // FNV-1a: no more than a name is to come of it. A node's name has 31 characters at most.
            var hash: UInt64 = 0xcbf2_9ce4_8422_2325
            for byte in "\(source.text) \(target.text)".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            let digits = String(hash, radix: 16)
            let suffix = String(repeating: "0", count: 16 - digits.count) + digits
            image = "godwit-image-" + suffix
            root = "godwit-raw-" + suffix
            probe = "godwit-probe-" + suffix
            job = "godwit-job-" + suffix
            marker = "godwit-stopped-" + suffix
        }

        func owns(_ node: BlockNode) -> Bool { node.name == image || node.name == root }
    }

    /// How the source stands under its device.
    enum Shape: Sendable, Equatable {
        /// The device's root is the rbd node.
        case image(BlockNode)
        /// A raw node straight over it, as libvirt has it.
        case raw(BlockNode, over: BlockNode)

        var nodes: [BlockNode] {
            switch self {
            case .image(let image): [image]
            case .raw(let root, let image): [root, image]
            }
        }
        var image: BlockNode { nodes[nodes.count - 1] }
        var root: BlockNode { nodes[0] }
    }

    enum Place: Sendable {
        case atSource(GuestDisk, Shape)
        case atTarget(GuestDisk)
    }

    /// Why it can't be done with this VM.
    struct Obstacle: Error, Equatable {
        let kind: VolumeError.Kind
        let reason: String
    }

    private func isTarget(_ node: BlockNode) -> Bool {
        guard let image = node.image, image.isNamed(by: target) else { return false }
        // Two clusters may have images of one name: then the node's own name tells them apart, or the configuration.
        return names.owns(node) || source.spec != target.spec || image.configuration == target.configuration
    }

    func isSource(_ node: BlockNode) -> Bool {
        node.image?.isNamed(by: source) == true && !isTarget(node)
    }

    func place() throws(Obstacle) -> Place {
        let atSource = narrowed(disks.filter { isSource($0.root) })
        let atTarget = disks.filter { isTarget($0.root) }
        switch (atSource.count, atTarget.count) {
        case (1, 0): return .atSource(atSource[0], try shape(of: atSource[0]))
        case (0, 1): return .atTarget(atTarget[0])
        case (0, 0):
            let list = disks.prefix(8).map(\.title).joined(separator: ", ")
            throw Obstacle(
                kind: .missing,
                reason: "the VM has no disk \(source.spec); it has " + (disks.isEmpty ? "none" : list))
        case (_, 0):
            throw Obstacle(
                kind: .unsupported,
                reason: "more than one disk of the VM is \(source.spec): "
                    + atSource.prefix(8).map(\.title).joined(separator: ", "))
        default:
            throw Obstacle(
                kind: .busy,
                reason: "the VM has \(target.spec) as a disk beside \(source.spec): "
                    + (atSource + atTarget).prefix(8).map(\.title).joined(separator: ", "))
        }
    }

    /// Whether the disk is at the target; that can be told of the disks alone.
    var isAtTarget: Bool {
        if case .atTarget = try? place() { true } else { false }
    }

    /// Of several, those with the configuration that the source's address names.
    private func narrowed(_ disks: [GuestDisk]) -> [GuestDisk] {
        let exact = disks.filter { $0.root.image?.configuration == source.configuration }
        return disks.count > 1 && source.configuration != nil && !exact.isEmpty ? exact : disks
    }

    private func shape(of disk: GuestDisk) throws(Obstacle) -> Shape {
        let root = disk.root
        let images = nodes.filter { $0.driver == "rbd" && isSource($0) && $0.image == root.image }
        guard !root.isReadOnly else {
            throw Obstacle(kind: .unsupported, reason: "the disk \(disk.title) is read-only")
        }
        guard root.driver == "rbd" || (root.isPlainRaw && root.options["file"]?["driver"]?.text == "rbd") else {
            let slice = root.driver == "raw" && !root.isPlainRaw ? " with an offset or size" : ""
            throw Obstacle(
                kind: .unsupported,
                reason: "the disk \(disk.title) is \(root.chain)\(slice); served are rbd itself and raw over rbd")
        }
        guard images.count == 1 else {
            throw Obstacle(
                kind: .unsupported,
                reason: "QEMU has \(source.spec) open as \(images.count) nodes: "
                    + images.prefix(8).map(\.name).joined(separator: ", "))
        }
        guard !images[0].isEncrypted else {
            throw Obstacle(kind: .unsupported, reason: "QEMU has \(source.spec) open with librbd's encryption")
        }
        return root.driver == "rbd" ? .image(images[0]) : .raw(root, over: images[0])
    }

    // MARK: The target's nodes

    /// What blockdev-add is to be told, the device's new root last: the source's shape over the target's image.
    ///
    /// - Parameter objects: Names of QEMU's objects, among them the secrets.
    func targetNodes(like shape: Shape, objects: Set<String>) -> [[String: JSONValue]] {
        var image = imageNode(names.image, target.image, like: shape.image, objects: objects)
        image["detect-zeroes"] = .string(shape.image.detectZeroes)
        guard case .raw(let root, _) = shape else { return [image] }
        return [
            image,
            [
                "driver": "raw", "node-name": .string(names.root), "file": .string(names.image), "discard": "unmap",
                "cache": Self.cache(root), "detect-zeroes": .string(root.detectZeroes),
            ],
        ]
    }

    /// - Parameter name: Of the image in the target's pool.
    func imageNode(
        _ node: String, _ name: String, like source: BlockNode, objects: Set<String>
    ) -> [String: JSONValue] {
        let known = source.image
        var options: [String: JSONValue] = [
            "driver": "rbd", "node-name": .string(node), "pool": .string(target.pool), "image": .string(name),
            "discard": "unmap", "cache": Self.cache(source),
        ]
        if !target.namespace.isEmpty { options["namespace"] = .string(target.namespace) }
        if let path = target.configuration ?? known?.configuration { options["conf"] = .string(path) }
        let user = target.user ?? known?.user
        if let user { options["user"] = .string(user) }
        // What reaches the source's cluster doesn't reach another.
        let isSameCluster = target.configuration == nil || target.configuration == known?.configuration
        if isSameCluster, let servers = known?.serverList, !servers.isEmpty { options["server"] = .array(servers) }
        // QEMU doesn't tell which secret a node was opened with; this is how libvirt names it (qemuAliasForSecret).
        let secret = source.name + "-auth-secret0"
        if isSameCluster, user == known?.user, objects.contains(secret) { options["key-secret"] = .string(secret) }
        return options
    }

    private static func cache(_ node: BlockNode) -> JSONValue {
        ["direct": .bool(node.cacheIsDirect), "no-flush": .bool(node.cacheHasNoFlush)]
    }

    /// The nodes by which QEMU has the source open, a raw one before the one it stands on.
    var sourceNodes: [BlockNode] {
        nodes.filter { !names.owns($0) && isSource($0) }.sorted { $0.driver != "rbd" && $1.driver == "rbd" }
    }
}
