import Conformance
import Synchronization
import Testing
import Volumes

/// What a volume could do wrong, and the check that must notice: a check that can't fail proves nothing.
enum PlantedFault: String, CaseIterable, Sendable {
    case zeroDoesNothing, zeroWritesZeros, zeroGoesAByteTooFar
    case writeDropsItsLastByte, writeGoesAByteTooFar, writeWithoutOwning
    case cutBytesComeBack, resizeForgets
    case recordIsNotSaved, recordInMemoryOnly, makeTwice
    case anyoneMayOwn
    case foreignLooksUnfinished
    case commitAgainFails, forgetDoesNothing, discardDoesNothing
    case keepKeepsTheStateBefore, keepForgetsProtection
    case extentsMissABlock, extentsAreEverything, readLeavesTheEnd, differencesMissABlock
    case identityIsTheName

    var check: String {
        switch self {
        case .zeroDoesNothing, .zeroWritesZeros, .zeroGoesAByteTooFar: "zero makes zeros, and holes"
        case .writeDropsItsLastByte: "it can have any size"
        case .writeGoesAByteTooFar: "writes at the edges stay within them"
        case .writeWithoutOwning: "nobody writes who doesn't own it"
        case .cutBytesComeBack, .resizeForgets: "what grows or comes back reads as zeros"
        case .recordIsNotSaved, .recordInMemoryOnly: "the record is read back by another"
        case .makeTwice, .forgetDoesNothing: "it is absent, unfinished, committed, finished"
        case .anyoneMayOwn: "only one can own it"
        case .foreignLooksUnfinished: "a foreign volume is never touched"
        case .commitAgainFails: "commit done again changes nothing"
        case .discardDoesNothing: "discard leaves nothing"
        case .keepKeepsTheStateBefore, .keepForgetsProtection, .differencesMissABlock: "snapshots keep what was written"
        case .extentsMissABlock, .readLeavesTheEnd: "any sequence of changes leaves what an array of bytes would hold"
        case .extentsAreEverything: "what was not written is a hole"
        case .identityIsTheName: "another of the same name has another identity"
        }
    }
}

/// Counts the issues that a planted fault was to raise, and keeps them out of the report.
final class Catch: Sendable {
    @TaskLocal static var current: Catch?
    let count = Atomic(0)

    static func isUnexpected(_ issue: Issue) -> Bool {
        guard let current else { return true }
        current.count.add(1, ordering: .relaxed)
        return false
    }
}

/// What a source could do wrong.
enum PlantedSourceFault: String, CaseIterable, Sendable {
    case freezeGivesTheHead, freezeAgainFreezesAgain, frozenStateIsTheUsers, thawDoesNothing
    case changesAreUnseen, readingCountsAsChange
    case extentsMissABlock, differencesMissABlock, differencesAreEverything

    var check: String {
        switch self {
        case .freezeGivesTheHead, .freezeAgainFreezesAgain, .frozenStateIsTheUsers, .thawDoesNothing:
            "a frozen state stays"
        case .changesAreUnseen, .readingCountsAsChange: "a change is seen"
        case .extentsMissABlock: "its extents miss no byte"
        case .differencesMissABlock, .differencesAreEverything: "differences between snapshots miss no byte"
        }
    }
}

@Suite struct PlantedFaultTests {
    static func catches(_ what: String, _ check: () async throws -> Void) async {
        let caught = Catch()
        await Catch.$current.withValue(caught) {
            do {
                try await check()
            } catch {
                caught.count.add(1, ordering: .relaxed)
            }
        }
        #expect(caught.count.load(ordering: .relaxed) > 0, "not caught: \(what)")
    }

    @Test(.filterIssues(Catch.isUnexpected), arguments: PlantedFault.allCases)
    func `a fault planted in a target is caught by the check it breaks`(fault: PlantedFault) async throws {
        let check = try #require(TargetCheck.all.first { $0.name == fault.check })
        let kind = TargetKind.memory { FaultyTarget($0, fault) }
        await Self.catches("\(fault) by '\(check.name)'") { try await check.run(kind) }
    }

    @Test(.filterIssues(Catch.isUnexpected), arguments: PlantedSourceFault.allCases)
    func `a fault planted in a source is caught by the check it breaks`(fault: PlantedSourceFault) async throws {
        let check = try #require(SourceCheck.all.first { $0.name == fault.check })
        let kind = SourceKind.memory { FaultySource(volume: $0, fault: fault) }
        await Self.catches("\(fault) by '\(check.name)'") { try await check.run(kind) }
    }

    @Test(arguments: SourceCheck.all)
    func `the wrapping of a source by itself breaks nothing`(check: SourceCheck) async throws {
        try await check.run(.memory { FaultySource(volume: $0, fault: nil) })
    }

    @Test(arguments: TargetCheck.all)
    func `the wrapping of a target by itself breaks nothing`(check: TargetCheck) async throws {
        try await check.run(.memory { FaultyTarget($0, nil) })
    }
}

/// A target with one fault.
private final class FaultyTarget: TargetWrapper {
    var inner: any TargetVolume { volume }
    let volume: MemoryVolume
    let fault: PlantedFault?
    private let lastRecord = Mutex<String?>(nil)
    private let cut = Mutex<[UInt8]>([])

    init(_ volume: MemoryVolume, _ fault: PlantedFault?) {
        self.volume = volume
        self.fault = fault
    }

    func describe() async throws(VolumeError) -> VolumeDescription {
        var description = try await volume.describe()
        if fault == .identityIsTheName { description.identity = address }
        return description
    }

    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        FaultyReader(reader: try await volume.open(revision), fault: fault)
    }

    func state() async throws(VolumeError) -> TargetState {
        let state = try await volume.state()
        if fault == .foreignLooksUnfinished, state == .foreign { return .unfinished(record: "") }
        if fault == .recordInMemoryOnly, case .unfinished = state, let record = lastRecord.withLock({ $0 }) {
            return .unfinished(record: record)
        }
        return state
    }

    func make(as source: VolumeDescription, record: String) async throws(VolumeError) {
        if fault == .makeTwice, case .unfinished = try await volume.state() {
            return try await volume.save(record: record)
        }
        try await volume.make(as: source, record: record)
    }

    func own() async throws(VolumeError) -> Bool {
        if fault == .anyoneMayOwn { volume.place.crash() }
        return try await volume.own()
    }

    func save(record: String) async throws(VolumeError) {
        if fault == .recordIsNotSaved { return }
        if fault == .recordInMemoryOnly { return lastRecord.withLock { $0 = record } }
        try await volume.save(record: record)
    }

    func resize(to size: ByteCount) async throws(VolumeError) {
        let before = volume.place.bytes()
        try await volume.resize(to: size)
        if fault == .resizeForgets {
            try await volume.zero(Extent(offset: .zero, length: min(size, ByteCount(1))))
        }
        guard fault == .cutBytesComeBack else { return }
        let old = cut.withLock { $0 }
        if before.count > Int(size.bytes) {
            cut.withLock { $0 = before }
        } else if old.count > before.count {
            // As a file system would that shrinks without clearing the last block's rest.
            try await volume.write(Array(old[before.count..<min(old.count, Int(size.bytes))]), at: before.count)
        }
    }

    func keep(_ snapshot: Snapshot) async throws(VolumeError) -> Snapshot {
        switch fault {
        case .keepForgetsProtection:
            return try await volume.keep(Snapshot(id: snapshot.id, name: snapshot.name, size: snapshot.size))
        case .keepKeepsTheStateBefore:
            let now = volume.place.bytes()
            try await volume.zero(Extent(offset: .zero, length: snapshot.size))
            let kept = try await volume.keep(snapshot)
            try await volume.write(now, at: 0)
            return kept
        default: return try await volume.keep(snapshot)
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        switch fault {
        case .writeDropsItsLastByte:
            unsafe try await volume.write(UnsafeRawBufferPointer(rebasing: bytes.dropLast()), at: offset)
        case .writeGoesAByteTooFar where bytes.count > 0:
            let past = offset + ByteCount(UInt64(bytes.count))
            unsafe try await volume.write(bytes, at: offset)
            if past.bytes < volume.place.bytes().count { try await volume.write([0xEE], at: Int(past.bytes)) }
        case .writeWithoutOwning:
            _ = try? await volume.own()
            unsafe try await volume.write(bytes, at: offset)
        default: unsafe try await volume.write(bytes, at: offset)
        }
    }

    func zero(_ extent: Extent) async throws(VolumeError) {
        switch fault {
        case .zeroDoesNothing: break
        case .zeroWritesZeros:
            try await volume.write([UInt8](repeating: 0, count: Int(extent.length.bytes)), at: Int(extent.offset.bytes))
        case .zeroGoesAByteTooFar:
            let limit = ByteOffset(UInt64(volume.place.bytes().count))
            try await volume.zero(Extent(from: extent.offset, to: min(limit, extent.end + ByteCount(1))))
        default: try await volume.zero(extent)
        }
    }

    func commit(as source: VolumeDescription) async throws(VolumeError) {
        if fault == .commitAgainFails, case .committed = try await volume.state() {
            throw VolumeError(.missing, "commit", on: address, reason: "nothing to rename")
        }
        try await volume.commit(as: source)
    }

    func forget() async throws(VolumeError) {
        if fault == .forgetDoesNothing { return }
        try await volume.forget()
    }

    func discard() async throws(VolumeError) {
        if fault == .discardDoesNothing { return }
        try await volume.discard()
    }
}

/// A source with one fault.
private struct FaultySource: SourceVolume {
    let volume: MemoryVolume
    let fault: PlantedSourceFault?

    var address: String { volume.address }

    func describe() async throws(VolumeError) -> VolumeDescription {
        var description = try await volume.describe()
        if fault == .frozenStateIsTheUsers { description.snapshots = volume.place.snapshots }
        return description
    }

    func open(_ revision: Revision) async throws(VolumeError) -> any VolumeReader {
        if fault == .readingCountsAsChange { volume.place.write([], at: .zero) }
        let isFrozen = revision.snapshot?.isTransient == true
        let revision = fault == .freezeGivesTheHead && isFrozen ? .head : revision
        let readerFault: PlantedFault? =
            switch fault {
            case .extentsMissABlock: .extentsMissABlock
            case .differencesMissABlock: .differencesMissABlock
            case .differencesAreEverything: .extentsAreEverything
            default: nil
            }
        return FaultyReader(reader: try await volume.open(revision), fault: readerFault)
    }

    func obstacles() async throws(VolumeError) -> [Obstacle] { try await volume.obstacles() }

    func standing() async throws(VolumeError) -> Standing { try await volume.standing() }

    func freeze(as name: String) async throws(VolumeError) -> Snapshot? {
        if fault == .freezeAgainFreezesAgain { try await volume.thaw(name) }
        return try await volume.freeze(as: name)
    }

    func thaw(_ name: String) async throws(VolumeError) {
        if fault == .thawDoesNothing { return }
        try await volume.thaw(name)
    }

    func isUnchanged(since snapshot: Snapshot?) async throws(VolumeError) -> Bool {
        let isUnchanged = try await volume.isUnchanged(since: snapshot)
        return fault == .changesAreUnseen ? true : isUnchanged
    }
}

private struct FaultyReader: VolumeReader {
    let reader: any VolumeReader
    let fault: PlantedFault?

    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        let found = try await reader.extents(in: range, since: base)
        switch fault {
        case .extentsAreEverything: return ExtentSet([range])
        case .differencesMissABlock where base == nil: return found
        case .extentsMissABlock, .differencesMissABlock:
            guard let last = found.extents.last else { return found }
            let block = ByteOffset(last.end.bytes - 1).rounded(downTo: zeroBlock)
            return found.subtracting(ExtentSet([Extent(from: block, to: last.end)]))
        default: return found
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        guard fault == .readLeavesTheEnd, buffer.count > 1 else {
            return unsafe try await reader.read(into: buffer, at: offset)
        }
        unsafe try await reader.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer.dropLast()), at: offset)
    }

    func close() async { await reader.close() }
}
