import Conformance
import Mirror
import Synchronization
import Testing
import Volumes

@testable import NBDProtocol
@testable import NBDVolumes

/// What a QEMU dirty bitmap says has changed, and moves of only that.
struct DirtyBitmapTests {
    /// No multiple of what servers make holes in.
    private static let size = (3 << 20) + 8192
    private static let bitmap = DirtyBitmap("b")!
    private static let contexts: [MetaContext] = [.allocation, .qemuDirtyBitmap("b")]

    private var whole: Extent { Extent(offset: .zero, length: Self.size.count) }

    private func script(dirty: [Range<Int>] = [], contexts: [MetaContext] = Self.contexts) -> FakeServer.Script {
        var script = FakeServer.Script()
        script.contexts = contexts
        script.dirty = dirty
        return script
    }

    private func noise(_ seed: UInt64) -> [UInt8] {
        var random = SplitMix64(seed: seed)
        return random.bytes(Self.size)
    }

    private func source(_ server: FakeServer) async throws -> NBDSource {
        try await NBDSource.connect(to: server.address, bitmap: Self.bitmap)
    }

    @Test func `a name that no server can have is none`() {
        #expect(DirtyBitmap("") == nil)
        #expect(DirtyBitmap("a\0b") == nil)
        #expect(DirtyBitmap(String(repeating: "a", count: 4096)) == nil)
        #expect(
            DirtyBitmap(String(repeating: "a", count: 1023))?.context.name.hasPrefix("qemu:dirty-bitmap:aaa") == true)
    }

    @Test func `what is dirty is what the bitmap says, zeros or not, and data what base-allocation says`() async throws
    {
        var bytes = noise(1)
        bytes.fill(65_536..<1 << 20, with: 0)
        let dirty = [4096..<8192, 1 << 19..<3 << 18, 1 << 21..<(1 << 21) + 512]
        try await withServer(bytes, script(dirty: dirty)) { server in
            let source = try await source(server)
            #expect(source.base?.name == "b")
            let reader = try await source.open(.head)
            #expect(reader.means == .dirtyBitmap)
            // In whole blocks.
            let expected = ExtentSet(
                dirty.map { $0.lowerBound..<max($0.upperBound, $0.lowerBound + 4096) }.map(\.extent))
            #expect(try await reader.extents(in: whole, since: source.base) == expected)
            #expect(
                try await reader.extents(in: whole, since: nil)
                    == ExtentSet([(0..<65_536).extent, ((1 << 20)..<Self.size).extent]))
            let part = (6000..<7000).extent
            #expect(try await reader.extents(in: part, since: source.base).extents == [part])
            let other = Snapshot(id: 0, name: "c", size: Self.size.count)
            await #expect(throws: VolumeError.self) { try await reader.extents(in: part, since: other) }
        }
        try await withServer(bytes, script(dirty: dirty)) { server in
            let plain = try await NBDSource.connect(to: server.address)
            #expect(plain.base == nil)
            let reader = try await plain.open(.head)
            #expect(reader.means == .blockStatus)
            let base = Snapshot(id: 0, name: "b", size: Self.size.count)
            await #expect(throws: VolumeError.self) { try await reader.extents(in: whole, since: base) }
        }
    }

    @Test func `a server without base-allocation still tells what is dirty`() async throws {
        try await withServer(noise(1), script(dirty: [0..<512], contexts: [.qemuDirtyBitmap("b")])) { server in
            let source = try await source(server)
            let reader = try await source.open(.head)
            #expect(try await reader.extents(in: whole, since: source.base).extents == [(0..<4096).extent])
            #expect(try await reader.extents(in: whole, since: nil).extents == [whole])
        }
    }

    @Test func `a bitmap that the server doesn't offer is missing, and nothing else is taken for it`() async throws {
        var simple = script()
        simple.policy = ServerPolicy(tls: .off, offersStructuredReplies: false, offersExtendedHeaders: false)
        for script in [
            script(contexts: []), script(contexts: [.allocation]), simple,
            script(contexts: [.allocation, .qemuDirtyBitmap("bb")]),
        ] {
            try await withServer(noise(1), script) { server in
                let title = server.address.text
                await #expect {
                    _ = try await source(server)
                } throws: {
                    guard let error = $0 as? VolumeError else { return false }
                    return error.kind == .missing && error.object == title
                        && error.reason.contains("qemu:dirty-bitmap:b") && error.advice?.contains("nbdinfo") == true
                }
            }
        }
    }

    @Test func `connections that don't all have the bitmap aren't used`() async throws {
        for (others, count) in [(Self.contexts, 4), ([.allocation], 1), ([.qemuDirtyBitmap("b")], 1)] {
            var script = script(dirty: [0..<4096])
            script.flags.insert(.multiConn)
            script.contextsOfOthers = others
            try await withServer(noise(1), script) { server in
                let source = try await source(server)
                #expect(source.export.connectionCount == count)
                let reader = try await source.open(.head)
                for _ in 0..<8 {
                    #expect(try await reader.extents(in: whole, since: source.base).extents == [(0..<4096).extent])
                }
            }
        }
    }

    /// The first blocks of 4 KiB that a server has otherwise: all bytes would be too many to be told of.
    private func differing(_ server: FakeServer, from model: [UInt8]) -> [Int] {
        let bytes = server.bytes.withLock { $0 }
        guard bytes.count == model.count else { return [bytes.count] }
        let differing = stride(from: 0, to: model.count, by: 4096).filter { start in
            let block = start..<min(start + 4096, model.count)
            return bytes[block] != model[block]
        }
        return Array(differing.prefix(3))
    }

    /// A base, and what became of it: data anew, data for zeros, zeros for data, each where a partition table would be,
    /// across pieces, and at the end.
    private func states() -> (base: [UInt8], head: [UInt8], dirty: [Range<Int>]) {
        var base = noise(1)
        base.fill(1 << 17..<1 << 18, with: 0)
        var head = base
        let new = noise(2)
        let changed = [0..<4096, (1 << 17) + 4096..<(1 << 17) + 12_288, (1 << 20) - 65_536..<(1 << 20) + 65_536]
        for range in changed { head.replaceSubrange(range, with: new[range]) }
        let zeroed = [1 << 16..<(1 << 16) + 8192, 2 << 20..<(2 << 20) + 65_536, Self.size - 8192..<Self.size]
        for range in zeroed { head.fill(range, with: 0) }
        return (base, head, changed + zeroed)
    }

    @Test func `only what is dirty is moved onto the base, and zeros with it`() async throws {
        let (base, head, dirty) = states()
        // Nothing of this is dirty: the source's differs, so that it would be seen if it were moved.
        var source = head
        source.fill(700_000..<800_000, with: 0x55)
        // What comes after the source's end isn't the move's either.
        let rest = [UInt8](repeating: 7, count: 65_536)
        try await withServer(source, script(dirty: dirty)) { from in
            try await withServer(base + rest) { to in
                let target = try await NBDTarget.connect(to: to.address, holding: .base)
                var options = MoveOptions()
                options.verifies = true
                let report = try await Move(from: try await self.source(from), to: target, options: options).run()
                #expect(differing(to, from: head + rest).isEmpty)
                let step = try #require(report.steps.first)
                #expect(step.means == .dirtyBitmap)
                #expect(step.foundBytes == UInt64(dirty.reduce(0) { $0 + $1.count }))
                #expect(step.sentBytes == 4096 + 8192 + 131_072)
                #expect(step.zeroedBytes == 8192 + 65_536 + 8192)
                #expect(report.verified == true)
                #expect(report.notCarried.contains { $0.contains("those after the source's end stay as they are") })
                guard
                    case .flush? = to.requests.last(where: { if case .read = $0.command { false } else { true } })?
                        .command
                else {
                    Issue.record("it isn't durable")
                    return
                }
            }
        }
    }

    @Test func `a move onto a base that was ended is made whole by the same again`() async throws {
        let (base, head, dirty) = states()
        try await withServer(head, script(dirty: dirty)) { from in
            try await withServer(base) { to in
                let first = try await NBDTarget.connect(to: to.address, holding: .base)
                try await first.begin(Self.size)
                try await first.write(Array(head[0..<4096]), at: 0)
                await #expect {
                    try await first.discard()
                } throws: { ($0 as? VolumeError)?.kind == .unsupported }
                #expect(
                    differing(to, from: Array(head[..<4096]) + Array(base[4096...])).isEmpty, "nothing is made zeros of"
                )
                await first.close()
                let again = try await NBDTarget.connect(to: to.address, holding: .base)
                _ = try await Move(from: try await source(from), to: again).run()
                #expect(differing(to, from: head).isEmpty)
            }
        }
    }

    @Test func `what would be moved is what is dirty`() async throws {
        let (base, head, dirty) = states()
        try await withServer(head, script(dirty: dirty)) { from in
            try await withServer(base) { to in
                let target = try await NBDTarget.connect(to: to.address, holding: .base)
                let (plan, refusal) = try await Preflight(Move(from: try await source(from), to: target)).plan()
                #expect(refusal == nil && plan.blockers.isEmpty)
                #expect(plan.dirtyBytes == UInt64(dirty.reduce(0) { $0 + $1.count }))
                #expect(differing(to, from: base).isEmpty)
            }
        }
    }

    @Test func `what is dirty is compared, and nothing else`() async throws {
        let (_, head, dirty) = states()
        try await withServer(head, script(dirty: dirty)) { from in
            for (place, differs) in [(700_000, false), ((2 << 20) + 5, true)] {
                var other = head
                other[place] ^= 1
                try await withServer(other) { to in
                    let (source, target) = (try await source(from), try await NBDSource.connect(to: to.address))
                    func differences(since base: Snapshot?) async throws -> [UInt64?] {
                        try await Verification(
                            source: source, target: target, base: base, progress: WorkProgress(), stop: StopRequest()
                        ).run().map(\.offset)
                    }
                    #expect(try await differences(since: source.base).isEmpty == !differs)
                    #expect(try await differences(since: nil).count == 1)
                }
            }
        }
    }
}

extension Range where Bound == Int {
    fileprivate var extent: Extent { Extent(offset: ByteOffset(UInt64(lowerBound)), length: count.count) }
}
