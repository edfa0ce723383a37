internal import Capacity
internal import CCeph
internal import Volumes

/// Measures images of one namespace without opening them: from their headers, their object maps and their objects,
/// with no watch and no lock.
struct ImageSurvey: Sendable {
    /// As many objects are in one batch; a batch's figures are added up before the next.
    private static let batch = 4096
    /// Objects of one image under way at once, of all that the slots let in.
    private static let objectsAtOnce = 64

    let pool: Pool
    let isExact: Bool
    let slots: Slots

    /// - Returns: Nothing for an image that went away meanwhile.
    func usage(of listed: ListedImage) async throws(VolumeError) -> ImageUsage? {
        var usage = ImageUsage(pool: pool.name, namespace: pool.namespace, name: listed.name)
        usage.id = listed.id
        usage.isInTrash = listed.isInTrash
        do throws(VolumeError) {
            guard let id = listed.id else {
                try await measureOldFormat(&usage)
                return usage
            }
            guard
                let header = try await slots.run({ () throws(VolumeError) in
                    try await ImageHeader.load(id: id, in: pool)
                })
            else {
                guard try await isStillThere(listed) else { return nil }
                usage.problem = "it has no header: it is being made or removed, or was left so"
                return usage
            }
            try await measure(header, &usage)
        } catch {
            // One object that doesn't answer is this image's misfortune; a cluster that doesn't is everybody's.
            if error.kind == .unreachable, await !pool.cluster.answers { throw error }
            usage.problem = "\(error.operation): \(error.reason)"
        }
        return usage
    }

    private func isStillThere(_ listed: ListedImage) async throws(VolumeError) -> Bool {
        guard !listed.isInTrash, let id = listed.id else { return false }
        return try await pool.nameInDirectory(ofImage: id) != nil
    }

    // MARK: From the header on

    private func measure(_ header: ImageHeader, _ usage: inout ImageUsage) async throws(VolumeError) {
        usage.provisioned = header.size
        let data = try pool.dataObjects(of: header)
        if data.pool !== pool { usage.dataPool = data.pool.name }
        usage.snapshots = header.snapshots.map { SnapshotUsage(id: $0.id, name: $0.title, size: $0.size) }
        let states = States(header, try await maps(of: header))
        var found = try await measure(states, data)
        if isExact {
            usage.allocated = found.usage.all
            usage.head = found.usage.head
            for index in usage.snapshots.indices {
                usage.snapshots[index].alone = found.usage.alone[usage.snapshots[index].id] ?? .zero
            }
        }
        usage.means = isExact ? (found.isBySize ? .sizes : .extents) : (states.tellWritten ? .objectMap : .objects)
        if states.tellWritten { found.objects = states.written() }
        let bytes = found.objects.enumerated().map { states.bytes(of: $1, in: $0) }
        for (index, bytes) in bytes.dropLast().enumerated() { usage.snapshots[index].used = bytes }
        usage.used = bytes.reduce(.zero, +)
        if let parent = header.parent, parent.overlap > .zero {
            usage.parent = try await ParentSurvey(cluster: pool.cluster, isExact: isExact, slots: slots)
                .visible(states.missing(unless: found.inHead), of: parent)
        }
    }

    /// The object maps of all states, the head's last; nothing if one of them can't be believed.
    private func maps(of header: ImageHeader) async throws(VolumeError) -> [ObjectMap]? {
        var maps: [ObjectMap] = []
        for id in header.snapshots.map({ $0.id as UInt64? }) + [nil] {
            let map = try await slots.run { () throws(VolumeError) in try await pool.objectMap(of: id, header) }
            guard let map else { return nil }
            maps.append(map)
        }
        return maps
    }

    private struct Found {
        var usage = ObjectUsage()
        /// Whether an object's extents couldn't be told.
        var isBySize = false
        /// Objects written for each state.
        var objects: [ObjectCount]
        /// Objects of the head; kept only where no map tells.
        var inHead: ObjectMap
    }

    private func measure(_ states: States, _ data: DataObjects) async throws(VolumeError) -> Found {
        let head = states.count(of: states.sizes.count - 1)
        var found = Found(
            objects: states.sizes.map { _ in ObjectCount() }, inHead: ObjectMap(count: states.areKnown ? 0 : head))
        guard isExact || !states.tellWritten else { return found }
        let reader = try ObjectReader(data, states, isExact: isExact)
        for numbers in try states.candidates().batches(of: Self.batch) {
            let slots = slots
            let batch = try await concurrently(numbers, limit: Self.objectsAtOnce) { number throws(VolumeError) in
                (number, try await slots.run { () throws(VolumeError) in try await reader.ask(number) })
            }
            for (number, object) in batch {
                found.usage += object.usage
                found.isBySize = found.isBySize || object.isBySize
                guard !states.tellWritten else { continue }
                if object.isInHead, !states.areKnown, number < found.inHead.count { found.inHead[number] = .exists }
                for state in object.writtenStates {
                    found.objects[state].add(number, lastSet: states.lastSet(of: state))
                }
            }
        }
        return found
    }

    // MARK: Through librbd

    private func measureOldFormat(_ usage: inout ImageUsage) async throws(VolumeError) {
        let (pool, name, title) = (pool, usage.name, usage.spec)
        let (size, listed) = try await slots.run { () throws(VolumeError) in
            try await Image.with(name, in: pool, title: title, for: .reading) { image throws(VolumeError) in
                (try await image.size(), try await image.snapshots().map(\.snapshot))
            }
        }
        func bytes(
            of state: Snapshot?, since base: Snapshot?, wholeObjects: Bool
        ) async throws(VolumeError) -> ByteCount {
            try await slots.run { () throws(VolumeError) in
                try await Image.with(name, in: pool, title: title, for: .reading, at: state) {
                    image throws(VolumeError) in
                    let whole = Extent(offset: .zero, length: state?.size ?? size)
                    return try await image.diff(
                        in: whole, since: base, countsHoles: false, wholeObjects: wholeObjects
                    ).total
                }
            }
        }
        usage.provisioned = size
        usage.means = .diff
        var (base, used, most): (Snapshot?, ByteCount, ByteCount) = (nil, .zero, .zero)
        for state in listed.map({ $0 as Snapshot? }) + [nil] {
            let whole = try await bytes(of: state, since: base, wholeObjects: true)
            used += whole
            if isExact { most += try await bytes(of: state, since: base, wholeObjects: false) }
            guard let state else { continue }
            var line = SnapshotUsage(id: state.id, name: state.name, size: state.size)
            line.used = whole
            usage.snapshots.append(line)
            base = state
        }
        usage.used = used
        guard isExact else { return }
        usage.allocated = most
        usage.head = min(most, try await bytes(of: nil, since: nil, wholeObjects: false))
    }
}

extension HeaderSnapshot {
    /// As people know it, also where it has left for the trash.
    fileprivate var title: String { if case .trash(let name) = kind { name } else { name } }
}
