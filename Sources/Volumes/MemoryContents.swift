struct MemoryContents {
    let holdsSnapshots: Bool
    let means: ExtentMeans
    let extentUnit: ByteCount
    var finished: MemoryBody?
    var unfinished: MemoryBody?
    /// What a live move has left of a volume that got another name, or went to the trash.
    var retired: MemoryBody?
    var record: String?
    /// Who says that it moves the finished volume.
    var movers: [MemoryMover] = []
    /// Who owns the unfinished target.
    var owner: UInt64?
    /// The last owner went without closing.
    var ownerHasDied = false
    private var lastNumber: UInt64 = 0

    init(holdsSnapshots: Bool, means: ExtentMeans, extentUnit: ByteCount) {
        self.holdsSnapshots = holdsSnapshots
        self.means = means
        self.extentUnit = extentUnit
    }

    mutating func newNumber() -> UInt64 {
        lastNumber += 1
        return lastNumber
    }

    mutating func newBody(_ head: MemoryState) -> MemoryBody { MemoryBody(identity: newNumber(), head: head) }

    var targetState: TargetState {
        switch (finished, unfinished, record) {
        case (nil, nil, nil): .absent
        case (nil, _, let record): .unfinished(record: record ?? "")
        case (_?, nil, let record?): .committed(record: record)
        case (_?, _, _): .foreign
        }
    }

    /// What describing and opening find.
    var present: MemoryBody? { finished ?? unfinished }
}

/// A move that has said at its source that it is at it.
struct MemoryMover {
    let target: String
    let holder: UInt64
    let isLive: Bool
    var isAlive = true
}

/// A volume with its history.
struct MemoryBody {
    struct Kept {
        var snapshot: Snapshot
        let state: MemoryState
        let writes: UInt64
    }

    let identity: UInt64
    var head: MemoryState
    var kept: [Kept] = []
    var layout: Layout?
    var metadata: Metadata = [:]
    /// Who has it open for writing.
    var writers: [Writer] = []
    /// Counts whatever changed the head.
    var writes: UInt64 = 0
    private var lastSnapshot: UInt64 = 0
    /// The blocks written since the last flush, as they were before; nothing for one that was a hole.
    private var unsettled: [UInt64: [UInt8]?] = [:]

    init(identity: UInt64, head: MemoryState) {
        self.identity = identity
        self.head = head
    }

    func state(_ revision: Revision, address: String) throws(VolumeError) -> MemoryState {
        guard case .snapshot(let snapshot) = revision else { return head }
        guard let found = kept.first(where: { $0.snapshot.id == snapshot.id && $0.snapshot.isNamed(snapshot.name) })
        else {
            throw VolumeError(.missing, "open", on: "\(address)@\(snapshot.name)", reason: "there is no such snapshot")
        }
        return found.state
    }

    mutating func alter(_ id: UInt64, name: String, isProtected: Bool) {
        guard let index = kept.firstIndex(where: { $0.snapshot.id == id }) else { return }
        kept[index].snapshot = Snapshot(
            id: id, name: name, size: kept[index].snapshot.size, isProtected: isProtected)
    }

    mutating func keep(as name: String, isProtected: Bool) -> Snapshot {
        if let index = kept.firstIndex(where: { $0.snapshot.isNamed(name) }) {
            let old = kept[index].snapshot
            kept[index].snapshot = Snapshot(
                id: old.id, name: name, size: old.size, isProtected: old.isProtected || isProtected)
            return kept[index].snapshot
        }
        settle()
        lastSnapshot += 1
        let snapshot = Snapshot(id: lastSnapshot, name: name, size: head.size, isProtected: isProtected)
        kept.append(Kept(snapshot: snapshot, state: head, writes: writes))
        return snapshot
    }

    private mutating func touch(_ extent: Extent) {
        writes += 1
        guard !extent.isEmpty else { return }
        for number in MemoryState.blocks(of: extent) where unsettled[number] == nil {
            unsettled.updateValue(head.blocks[number], forKey: number)
        }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) {
        touch(Extent(offset: offset, length: ByteCount(UInt64(bytes.count))))
        unsafe head.write(bytes, at: offset)
    }

    mutating func zero(_ extent: Extent) {
        touch(extent)
        head.zero(extent)
    }

    /// Gives every block of `extent` its room, with the bytes that it reads as.
    mutating func occupy(_ extent: Extent) {
        touch(extent)
        for number in MemoryState.blocks(of: extent) where head.blocks[number] == nil {
            head.blocks[number] = [UInt8](repeating: 0, count: Int(MemoryState.block))
        }
    }

    mutating func resize(to size: ByteCount) {
        writes += 1
        // What a crash brings back must not reach past the end that was.
        if size < head.size {
            let cut = Extent(from: ByteOffset(size.bytes), to: ByteOffset(head.size.bytes))
            for number in MemoryState.blocks(of: cut) { unsettled[number] = nil }
        }
        head.resize(to: size)
    }

    mutating func settle() { unsettled = [:] }

    mutating func lose(butThose survives: (ByteOffset) -> Bool) {
        for (number, block) in unsettled.sorted(by: { $0.key < $1.key })
        where !survives(ByteOffset(number * MemoryState.block)) {
            head.blocks[number] = block
        }
        settle()
    }
}

/// The bytes of one state: the blocks that were written, and zeros between.
struct MemoryState {
    /// Bytes: the smallest thing that is told from zeros.
    static let block = zeroBlock.bytes

    private(set) var size: ByteCount
    /// By their number; each is whole, and zeros past the volume's end.
    var blocks: [UInt64: [UInt8]] = [:]

    init(size: ByteCount) { self.size = size }

    /// The numbers of the blocks that `extent` touches.
    static func blocks(of extent: Extent) -> Range<UInt64> {
        extent.isEmpty ? 0..<0 : extent.offset.bytes / block..<(extent.end.bytes + block - 1) / block
    }

    func checkEnd(of extent: Extent, _ operation: String, _ address: String) throws(VolumeError) {
        guard extent.end.bytes <= size.bytes else {
            throw VolumeError(
                operation == "read" ? .damaged : .failed, operation, on: "\(address) at byte \(extent.offset.bytes)",
                reason: "\(extent.length.bytes) bytes reach past the end at \(size.bytes)")
        }
    }

    /// Hands on each block that `extent` touches: the part of the block, and where that stands from the extent's start.
    private static func forEachPart(of extent: Extent, _ body: (UInt64, Range<Int>, Int) -> Void) {
        for number in blocks(of: extent) {
            let start = number * block
            let part = extent.intersection(Extent(offset: ByteOffset(start), length: ByteCount(block)))
            let low = Int(part.offset.bytes - start)
            body(number, low..<low + Int(part.length.bytes), Int((part.offset - extent.offset).bytes))
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) {
        Self.forEachPart(of: Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))) { number, part, place in
            let goal = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + part.count])
            if let bytes = blocks[number] {
                unsafe goal.copyBytes(from: bytes[part])
            } else {
                unsafe goal.initializeMemory(as: UInt8.self, repeating: 0)
            }
        }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) {
        Self.forEachPart(of: Extent(offset: offset, length: ByteCount(UInt64(bytes.count)))) { number, part, place in
            let source = unsafe UnsafeRawBufferPointer(rebasing: bytes[place..<place + part.count])
            unsafe blocks[number, default: [UInt8](repeating: 0, count: Int(Self.block))].withUnsafeMutableBytes {
                unsafe UnsafeMutableRawBufferPointer(rebasing: $0[part]).copyMemory(from: source)
            }
        }
    }

    mutating func zero(_ extent: Extent) {
        // A hole up to the end takes the last block whole: nothing is past the end.
        let isUpToEnd = extent.end.bytes == size.bytes
        Self.forEachPart(of: extent) { number, part, _ in
            let isLast = isUpToEnd && extent.end.bytes <= (number + 1) * Self.block
            if part.lowerBound == 0, part.count == Int(Self.block) || isLast {
                blocks[number] = nil
            } else if blocks[number] != nil {
                unsafe blocks[number]?.withUnsafeMutableBytes { bytes in
                    _ = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[part]).initializeMemory(
                        as: UInt8.self, repeating: 0)
                }
            }
        }
    }

    mutating func resize(to size: ByteCount) {
        if size < self.size { zero(Extent(from: ByteOffset(size.bytes), to: ByteOffset(self.size.bytes))) }
        self.size = size
    }

    func allocated(in range: Extent) -> ExtentSet {
        extents(blocks.keys, in: range)
    }

    /// Where the bytes differ. What is past the older state's end counts as zeros there.
    func differing(from base: MemoryState, in range: Extent) -> ExtentSet {
        let zeros = [UInt8](repeating: 0, count: Int(Self.block))
        let numbers = Set(blocks.keys).union(base.blocks.keys)
        let changed = numbers.filter { number in
            unsafe (blocks[number] ?? zeros).withUnsafeBytes { new in
                unsafe (base.blocks[number] ?? zeros).withUnsafeBytes { unsafe firstDifferingRun(new, $0) != nil }
            }
        }
        return extents(changed, in: range)
    }

    private func extents(_ numbers: some Sequence<UInt64>, in range: Extent) -> ExtentSet {
        let touched = Self.blocks(of: range)
        var found = ExtentSet()
        for number in numbers.filter({ touched.contains($0) }).sorted() {
            found.append(
                Extent(offset: ByteOffset(number * Self.block), length: ByteCount(Self.block)).intersection(range))
        }
        return found
    }
}
