import Conformance
import NBDProtocol
import NBDServer
import Testing
import Volumes

/// What clients that keep to the protocol get.
struct ServingTests {
    private static func bytes(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
        var random = SplitMix64(seed: seed)
        return random.bytes(count)
    }

    @Test(arguments: ReplyStyle.allCases)
    func `what one connection wrote is read on another`(style: ReplyStyle) async throws {
        let site = try Site(try await TestDisk())
        try await site.serve { socket throws in
            let (one, other) = (try Client(socket, "disk", style), try Client(socket, "", style))
            #expect(one.agreement.style == style)
            #expect(one.agreement.flags.contains([.multiConn, .flush, .fua, .trim, .writeZeroes, .fastZero, .cache]))
            let written = Self.bytes(300_001)
            #expect(try one.write(written, at: 12_345) == nil)
            #expect(try one.done(.flush).failure == nil)
            #expect(try other.read(12_345..<312_346).bytes == written)
            #expect(try one.done(.writeZeroes((20_000..<30_000).extent, noHole: false, fast: true)).failure == nil)
            #expect(try one.done(.trim((8192..<12_288).extent)).failure == nil)
            #expect(try one.done(.cache((0..<4096).extent)).failure == nil)
            let zeroed = try other.read(19_999..<30_001).bytes
            #expect(zeroed.first == written[19_999 - 12_345] && zeroed.last == written[30_000 - 12_345])
            #expect(zeroed.dropFirst().dropLast().allSatisfy { $0 == 0 })
        }
    }

    @Test func `a read tells holes, unless it may not be cut`() async throws {
        let site = try Site(try await TestDisk())
        try await site.serve { socket throws in
            let client = try Client(socket)
            let data = Self.bytes(65_536)
            _ = try client.write(data, at: 1 << 20)
            let read = try client.read(0..<3 << 20)
            #expect(read.holes == [(0..<1 << 20).extent, ((1 << 20) + 65_536..<3 << 20).extent])
            #expect(read.chunks > 0 && Array(read.bytes[1 << 20..<(1 << 20) + 65_536]) == data)
            let whole = try client.read(0..<3 << 20, .df)
            #expect(whole.holes.isEmpty && whole.bytes == read.bytes)
            // Zeros that were written are told as a hole, too; a few of them aren't worth it.
            _ = try client.write([UInt8](repeating: 0, count: 65_536), at: (1 << 20) + 65_536)
            #expect(try client.read(1 << 20..<(1 << 20) + 131_072).holes.count == 1)
            #expect(try client.read(1 << 20..<(1 << 20) + 65_536 + 4096).holes.isEmpty)
        }
    }

    @Test(arguments: [ReplyStyle.structured, .extended])
    func `block status tells what is allocated`(style: ReplyStyle) async throws {
        let site = try Site(try await TestDisk(size: .gibibytes(8)))
        try await site.serve { socket throws in
            let client = try Client(socket, "", style)
            _ = try client.write(Self.bytes(8192), at: 1 << 21)
            let contexts = client.agreement.contexts
            #expect(contexts.map(\.context) == [.allocation])
            let whole = try client.done(.blockStatus((0..<3 << 30).extent, contexts: contexts))
            let hole = BlockStatus.hole | BlockStatus.zero
            #expect(
                whole.statuses.prefix(2) == [
                    BlockStatus(length: ByteCount(1 << 21), flags: hole),
                    BlockStatus(length: ByteCount(8192), flags: 0),
                ])
            #expect(whole.statuses.count == 3 && whole.statuses[2].flags == hole)
            let one = try client.done(.blockStatus(((1 << 21) + 100..<1 << 30).extent, contexts: contexts), .reqOne)
            #expect(one.statuses == [BlockStatus(length: ByteCount(8092), flags: 0)])
        }
    }

    /// Every second chunk of the first 64 MiB.
    private struct Stripes: ChangeWatch {
        static let chunk = ByteCount.kibibytes(64)

        func willChange(_ extent: Extent) async throws(VolumeError) {}
        func didChange(_ extent: Extent) {}
        func dirty(in range: Extent) -> ExtentSet {
            let end = min(range.end, ByteOffset(64 << 20))
            var changed = ExtentSet()
            var place = range.offset.rounded(downTo: Self.chunk)
            while place < end {
                if place.bytes / Self.chunk.bytes % 2 == 1 { changed.append(Extent(offset: place, length: Self.chunk)) }
                place = place + Self.chunk
            }
            return changed
        }
    }

    @Test(arguments: [ReplyStyle.structured, .extended])
    func `block status tells what was changed, where it is watched`(style: ReplyStyle) async throws {
        let disk = try await TestDisk(size: .gibibytes(300))
        let site = try Site([
            Export(name: "watched", disk: disk, watch: Stripes()), Export(name: "plain", disk: disk),
        ])
        try await site.serve { socket throws in
            let both: [MetaContext] = [.dirty, .allocation]
            #expect(
                try Client(socket, "plain", style, contexts: both).agreement.contexts.map(\.context) == [.allocation])
            let told = try Client(socket, "watched", style, contexts: both).agreement.contexts
            #expect(told.map(\.context) == [.allocation, .dirty])
            let client = try Client(socket, "watched", style, contexts: [.dirty])
            let contexts = client.agreement.contexts
            func runs(_ range: Range<UInt64>, _ flags: CommandFlags = []) throws -> [BlockStatus] {
                try client.done(.blockStatus(range.extent, contexts: contexts), flags).statuses
            }
            #expect(
                try runs(1000..<150_000) == [
                    BlockStatus(length: ByteCount(64_536), flags: 0),
                    BlockStatus(length: .kibibytes(64), flags: BlockStatus.dirty),
                    BlockStatus(length: ByteCount(150_000 - 131_072), flags: 0),
                ])
            #expect(
                try runs(65_537..<1 << 30, .reqOne)
                    == [BlockStatus(length: ByteCount(65_535), flags: BlockStatus.dirty)])
            let end = UInt64(style == .extended ? 300 << 30 : 3 << 30)
            let whole = try runs(0..<end)
            #expect(whole.count == 1025 && whole.last?.flags == 0)
            #expect(whole.reduce(0) { $0 + $1.length.bytes } == end)
            #expect(try runs(1 << 30..<end) == [BlockStatus(length: ByteCount(end - (1 << 30)), flags: 0)])
            // What is allocated is another question.
            let other = try Client(socket, "watched", style)
            let allocated = try other.done(.blockStatus((0..<1 << 20).extent, contexts: other.agreement.contexts))
            #expect(allocated.statuses.map(\.flags) == [BlockStatus.hole | BlockStatus.zero])
        }
    }

    @Test func `replies come as they are ready`() async throws {
        let disk = try await TestDisk()
        let site = try Site(disk)
        try await site.serve { socket throws in
            let client = try Client(socket)
            disk.hold()
            let held = try client.ask(.read((0..<4096).extent))
            try waitUntil { disk.running == 1 }
            let refused = try client.ask(.writeZeroes((0..<4096).extent, noHole: true, fast: true))
            #expect(try client.reply(to: refused).failure?.error == .notSupported)
            disk.release()
            #expect(try client.reply(to: held).failure == nil)
            #expect(client.order == [refused, held])
        }
    }

    @Test func `FUA is a write and then a flush, before the reply`() async throws {
        let disk = try await TestDisk()
        let site = try Site(disk)
        let log = try await site.serve { socket throws in
            let client = try Client(socket)
            _ = try client.write(Self.bytes(4096), at: 0, .fua)
            try client.done(.writeZeroes((0..<4096).extent, noHole: true, fast: false), .fua)
            try client.done(.trim((4096..<8192).extent), .fua)
            return disk.log
        }
        #expect(
            log == ["write 0+4096", "flush", "zero with room 0+4096", "flush", "discard 4096+4096", "flush"])
        #expect(disk.log.last == "flush" && disk.log.count == 7, "the end of the server flushes once more")
    }

    @Test func `zeroing that isn't fast is refused to who wants it fast`() async throws {
        let disk = try await TestDisk(zeroesFast: false)
        let site = try Site(disk)
        try await site.serve { socket throws in
            let client = try Client(socket)
            let fast = try client.done(.writeZeroes((0..<4096).extent, noHole: false, fast: true))
            #expect(fast.failure?.error == .notSupported)
            #expect(try client.done(.writeZeroes((0..<4096).extent, noHole: false, fast: false)).failure == nil)
            #expect(disk.log == ["zero 0+4096"])
        }
    }

    @Test(
        arguments: [
            (.forbidden, .notPermitted), (.full, .noSpace), (.unsupported, .invalid), (.damaged, .io), (.failed, .io),
            (.unreachable, .io), (.busy, .io),
        ] as [(VolumeError.Kind, ErrorValue)])
    func `a disk's failure is the request's, and no more`(kind: VolumeError.Kind, error: ErrorValue) async throws {
        let disk = try await TestDisk()
        let site = try Site(disk)
        try await site.serve { socket throws in
            let client = try Client(socket)
            disk.fail(kind)
            #expect(try client.write(Self.bytes(512), at: 0)?.error == error)
            #expect(try client.read(0..<512).failure?.message == "test: planted")
            #expect(try client.done(.flush).failure?.error == error)
            disk.fail(nil)
            #expect(try client.read(0..<512).failure == nil)
        }
    }

    @Test func `a disk that is only read is exported as such`() async throws {
        let site = try Site(try await TestDisk(isWritable: false))
        try await site.serve { socket throws in
            var client = try Client(socket)
            #expect(client.agreement.flags.contains([.readOnly, .multiConn]))
            #expect(!client.agreement.flags.contains(.writeZeroes))
            #expect(throws: Refusal.self) { try client.ask(.write((0..<512).extent)) }
            // One that asks all the same.
            client = try Client(socket, "", .simple)
            try client.raw.send(hex("25609513 0000 0001 0000000000000001 0000000000000000 00000004 01020304"))
            #expect(try client.raw.receive() == hex("67446698 00000001 0000000000000001"))
            #expect(try client.read(0..<4).bytes == [0, 0, 0, 0])
        }
    }

    @Test func `several exports have their names, and one needs none`() async throws {
        let (small, large) = (try await TestDisk(size: .mebibytes(1)), try await TestDisk(size: .mebibytes(2)))
        let site = try Site([Export(name: "small", disk: small), Export(name: "large", disk: large)])
        try await site.serve { socket throws in
            #expect(try Client.list(socket) == ["small", "large"])
            #expect(try Client(socket, "small").agreement.size == .mebibytes(1))
            #expect(try Client(socket, "large").agreement.size == .mebibytes(2))
            #expect(throws: Client.Refused.self) { try Client(socket, "") }
            #expect(throws: Client.Refused.self) { try Client(socket, "smal") }
        }
        try await Site([Export(name: "small", disk: small)]).serve { socket throws in
            let client = try Client(socket, "")
            #expect(client.agreement.size == .mebibytes(1))
        }
    }

    @Test func `who sends no more still gets its replies`() async throws {
        let disk = try await TestDisk()
        let site = try Site(disk)
        try await site.serve { socket throws in
            let client = try Client(socket)
            disk.hold()
            let cookies = try (0..<300).map { try client.ask(.read((0..<UInt64($0 + 1)).extent)) }
            client.raw.endOutput()
            disk.release()
            for cookie in cookies { #expect(try client.reply(to: cookie).failure == nil) }
            try client.raw.waitForEnd()
        }
    }
}
