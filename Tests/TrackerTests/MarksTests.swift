import Conformance
import Foundation
import Synchronization
import Testing
import Volumes

@testable import Tracker

/// The marks as a value in a file, without any volume.
struct MarksTests {
    private let scratch: Scratch
    private let clock = Clock()
    private let circumstances: Circumstances

    init() throws {
        scratch = try Scratch()
        circumstances = Circumstances(
            identity: "memory:one", size: ByteCount(1000 * 4096 - 100), granularity: Granularity(Granularity.smallest)!,
            boot: "b1", changed: clock.now)
    }

    private var path: String { scratch.file("m") }
    private var all: Extent { (0..<1000 * 4096).extent }

    private func open(_ change: (inout Circumstances) -> Void = { _ in }) throws -> Marks {
        var circumstances = circumstances
        change(&circumstances)
        return try Marks(at: path, of: circumstances, now: { [clock] in clock.now })
    }

    /// A change that is over.
    private func change(_ marks: Marks, _ extent: Extent) {
        marks.begin(extent)
        marks.didChange(extent)
    }

    // MARK: Changes

    @Test func `changes are told in whole chunks, from the newest state on`() throws {
        let marks = try open()
        #expect(marks.finding == .anew(nil))
        change(marks, (0..<4096).extent)
        #expect(marks.dirty(in: all).isEmpty && marks.held.isEmpty)
        let first = try marks.hold(as: "a")
        #expect(first == (try marks.hold(as: "a")))
        change(marks, (4095..<4097).extent)
        change(marks, (500_000..<500_001).extent)
        change(marks, (999 * 4096..<1000 * 4096).extent)
        change(marks, (0..<0).extent)
        let end = (999 * 4096..<1000 * 4096 - 100).extent
        #expect(marks.dirty(in: all) == ExtentSet([(0..<2).chunks, (122..<123).chunks, end]))
        #expect(marks.dirty(in: (4096..<8192).extent) == ExtentSet(1..<2))
        #expect(marks.dirty(in: (8192..<9000).extent).isEmpty)
        let second = try marks.hold(as: "b")
        #expect(second.id > first.id && marks.held == [first, second])
        #expect(marks.dirty(in: all).isEmpty)
        change(marks, (63 * 4096..<65 * 4096).extent)
        #expect(marks.changes(since: second.id, in: all) == ExtentSet(63..<65))
        #expect(
            marks.changes(since: first.id, upTo: second.id, in: all)
                == ExtentSet([(0..<2).chunks, (122..<123).chunks, end]))
        #expect(
            marks.changes(since: first.id, in: all)
                == ExtentSet([(0..<2).chunks, (63..<65).chunks, (122..<123).chunks, end]))
        #expect(marks.changes(since: 77, in: all) == nil && marks.changes(since: first.id, upTo: 77, in: all) == nil)
    }

    @Test func `a change that is under way while a state is held is on both sides of it`() throws {
        let marks = try open()
        let (before, twice, during) = ((0..<10).extent, (4096..<4100).extent, (8192..<8200).extent)
        marks.begin(before)
        let first = try marks.hold(as: "a")
        #expect(marks.dirty(in: all) == ExtentSet(0..<1))
        #expect(marks.isUnchanged(since: first.id) == false)
        marks.didChange(before)
        marks.begin(twice)
        marks.begin(twice)
        marks.begin(during)
        marks.didChange(twice)
        let second = try marks.hold(as: "b")
        #expect(marks.changes(since: first.id, upTo: second.id, in: all) == ExtentSet(0..<3))
        #expect(marks.dirty(in: all) == ExtentSet(1..<3))
        marks.didChange(twice)
        let third = try marks.hold(as: "c")
        #expect(marks.dirty(in: all) == ExtentSet(2..<3))
        marks.didChange(during)
        #expect(marks.isUnchanged(since: third.id) == false)
        let fourth = try marks.hold(as: "d")
        #expect(marks.isUnchanged(since: fourth.id) == true && marks.isUnchanged(since: third.id) == false)
        #expect(marks.isUnchanged(since: 99) == nil)
    }

    @Test func `a state that is dropped leaves its changes to the one before`() throws {
        let marks = try open()
        let first = try marks.hold(as: "a")
        change(marks, (0..<1).extent)
        _ = try marks.hold(as: "b")
        change(marks, (4096..<4097).extent)
        let third = try marks.hold(as: "c")
        change(marks, (8192..<8193).extent)
        try marks.drop("b")
        try marks.drop("nothing of that name")
        #expect(marks.held == [first, third])
        #expect(marks.changes(since: first.id, upTo: third.id, in: all) == ExtentSet(0..<2))
        try marks.drop("a")
        #expect(marks.changes(since: third.id, in: all) == ExtentSet(2..<3))
        // Its bits are another's now, and clean.
        let fourth = try marks.hold(as: "d")
        #expect(marks.changes(since: fourth.id, in: all)?.isEmpty == true)
        #expect(marks.changes(since: third.id, in: all) == ExtentSet(2..<3))
        // More states than there is room for: the oldest goes.
        _ = try marks.hold(as: "e")
        _ = try marks.hold(as: "f")
        #expect(marks.held.map(\.name) == ["d", "e", "f"])
    }

    @Test func `numbers go on from where they are told to`() throws {
        let marks = try open()
        try marks.number(after: 41)
        #expect(try marks.hold(as: "a").id == 42)
        try marks.number(after: 7)
        #expect(try marks.hold(as: "b").id == 43)
    }

    // MARK: After a process

    @Test func `what was marked outlives the process`() throws {
        var marks: Marks? = try open()
        _ = try marks?.hold(as: "a")
        marks?.begin((0..<4096).extent)
        _ = try marks?.hold(as: "b")
        clock.pass(.seconds(5))
        marks?.begin((40_960..<40_961).extent)
        let held = marks?.held
        // Killed with both under way: nobody says goodbye.
        marks = nil
        let next = try open { $0.changed = clock.now }
        #expect(next.finding == .trusted && next.held == held)
        #expect(next.dirty(in: all) == ExtentSet([(0..<1).chunks, (10..<11).chunks]))
        // What was under way then isn't any more.
        let third = try next.hold(as: "c")
        #expect(next.dirty(in: all).isEmpty && next.isUnchanged(since: third.id) == true)
    }

    @Test func `one at a time`() throws {
        let marks = try open()
        #expect { try open() } throws: { ($0 as? VolumeError)?.kind == .busy }
        try marks.remove()
        // Whoever comes after it has removed its file makes another.
        let other = try open()
        #expect(other.finding == .anew(nil))
        try other.remove()
        try other.remove()
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test(
        arguments: [
            ("identity", "another volume's"), ("size", "another size"), ("granularity", "another granularity"),
            ("boot", "started anew"), ("no boot", "started anew"), ("changed", "changed since by somebody else"),
            ("no change", "nothing tells"),
        ])
    func `marks of other circumstances aren't gone by`(what: String, reason: String) throws {
        let state: Snapshot
        do {
            let old = try open()
            state = try old.hold(as: "a")
            change(old, (4096..<4097).extent)
        }
        let marks = try open { circumstances in
            switch what {
            case "identity": circumstances.identity = "memory:two"
            case "size": circumstances.size = ByteCount(999 * 4096)
            case "granularity": circumstances.granularity = .standard
            case "boot": circumstances.boot = "b2"
            case "no boot": circumstances.boot = nil
            case "changed": circumstances.changed = clock.now + .nanoseconds(1)
            default: circumstances.changed = nil
            }
        }
        guard case .anew(let found?) = marks.finding else {
            Issue.record("they were gone by")
            return
        }
        #expect(found.contains(reason))
        #expect(marks.held.isEmpty && marks.changes(since: state.id, in: all) == nil && marks.dirty(in: all).isEmpty)
        let held = try marks.hold(as: "a")
        #expect(marks.isUnchanged(since: held.id) == true)
    }

    @Test func `a change that was under way gives a second's grace, once`() throws {
        for (isInFlight, late, isTrusted) in [
            (true, Duration.milliseconds(1000), true), (true, .milliseconds(1001), false),
            (false, .nanoseconds(1), false), (false, .zero, true),
        ] {
            var marks: Marks? = try open { $0.changed = clock.now }
            _ = try marks?.hold(as: "a")
            clock.pass(.seconds(3))
            marks?.begin((0..<1).extent)
            if !isInFlight { marks?.didChange((0..<1).extent) }
            marks = nil
            let changed = clock.now + late
            let finding = try open { $0.changed = changed }.finding
            #expect((finding == .trusted) == isTrusted)
            guard isTrusted else { continue }
            let again = try open { $0.changed = changed }.finding
            #expect(again == .trusted)
            let later = try open { $0.changed = changed + .nanoseconds(1) }.finding
            #expect(later != .trusted)
        }
    }

    @Test func `a damaged file isn't gone by, and one copy of the header is enough`() throws {
        let room = MarksHeader.room
        func damage(_ offsets: [UInt64]) throws {
            let file = try FileHandle(forUpdating: URL(filePath: path))
            for offset in offsets {
                try file.seek(toOffset: offset)
                try file.write(contentsOf: [0xFF])
            }
            try file.close()
        }
        for (offsets, reason) in [
            ([40, UInt64(room) + 40], "they are damaged"), ([0, UInt64(room)], "they are damaged"),
            ([16, UInt64(room) + 16], "they are damaged"),
        ] {
            var marks: Marks? = try open()
            _ = try marks?.hold(as: "a")
            marks = nil
            try damage(offsets)
            let finding = try open().finding
            #expect(finding == .anew(reason))
        }
        var marks: Marks? = try open()
        // The first header is in one copy, this one in the other.
        _ = try marks?.hold(as: "kept")
        let count = try #require(marks?.held.count)
        _ = try marks?.hold(as: "torn")
        marks = nil
        // A process that was killed as it wrote the newest leaves the one before.
        let copies = try [0, 1].map { copy in
            let file = try FileHandle(forReadingFrom: URL(filePath: path))
            try file.seek(toOffset: UInt64(copy * room))
            return MarksHeader(Array(try file.read(upToCount: room) ?? Data()))
        }
        let torn = copies[0]!.generation > copies[1]!.generation ? 0 : UInt64(room)
        try damage([torn + 60])
        do {
            let next = try open()
            #expect(next.finding == .trusted && next.held.count == count)
        }
        for size in [UInt64(100), UInt64(2 * room), UInt64(2 * room) + 4096 + 10] {
            let file = try FileHandle(forUpdating: URL(filePath: path))
            try file.truncate(atOffset: size)
            try file.close()
            guard case .anew(.some) = try open().finding else {
                Issue.record("gone by with \(size) bytes")
                continue
            }
        }
    }

    // MARK: Many threads

    /// How often each chunk was changed, as the disk would have it, and until when it is to be.
    private final class Disk: Sendable {
        let chunks = Mutex([Int](repeating: 0, count: 1000))
        let isOver = Mutex(false)

        func churn(_ marks: Marks, seed: UInt64) async {
            var random = SplitMix64(seed: seed)
            while !isOver.withLock({ $0 }) {
                let start = Int.random(in: 0..<1000, using: &random)
                let changed = start..<min(1000, start + Int.random(in: 1...9, using: &random))
                marks.begin(changed.chunks)
                for _ in 0..<Int.random(in: 0...3, using: &random) { await Task.yield() }
                chunks.withLock { chunks in for chunk in changed { chunks[chunk] += 1 } }
                for _ in 0..<Int.random(in: 0...3, using: &random) { await Task.yield() }
                marks.didChange(changed.chunks)
            }
        }

        /// Brings a copy up to date where something was changed.
        func read(_ changes: ExtentSet, into copy: inout [Int]) {
            let now = chunks.withLock { $0 }
            for extent in changes.extents {
                for chunk in Int(extent.offset.bytes / 4096)..<Int((extent.end.bytes + 4095) / 4096) {
                    copy[chunk] = now[chunk]
                }
            }
        }
    }

    /// What is changed between two moments at which a state is held is marked between them, whoever else marks.
    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func `threads under churn, against a model`(seed: UInt64) async throws {
        let marks = try open()
        let disk = Disk()
        let writers = (0..<3).map { number in
            // Waited for below.
            Task.detached { await disk.churn(marks, seed: seed * 10 + UInt64(number)) }
        }
        var copy = disk.chunks.withLock { $0 }
        var base = try marks.hold(as: "0")
        // What was changed before the first state is in the copy, or was under way.
        disk.read(ExtentSet([all]), into: &copy)
        for round in 1...60 {
            try? await Task.sleep(for: .microseconds(100))
            let goal = try marks.hold(as: "\(round)")
            disk.read(try #require(marks.changes(since: base.id, upTo: goal.id, in: all)), into: &copy)
            try marks.drop(base.name)
            base = goal
        }
        disk.isOver.withLock { $0 = true }
        for writer in writers { await writer.value }
        let last = try marks.hold(as: "last")
        disk.read(try #require(marks.changes(since: base.id, upTo: last.id, in: all)), into: &copy)
        #expect(copy == disk.chunks.withLock { $0 })
        #expect(marks.isUnchanged(since: last.id) == true)
    }
}
