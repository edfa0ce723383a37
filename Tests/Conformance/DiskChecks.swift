internal import Testing
package import Volumes

/// A kind of volume that can be used as a disk.
package struct DiskKind: Sendable {
    /// As for a target.
    package let granule: ByteCount
    package let holdsSnapshots: Bool
    /// A new volume of zeros.
    package let newSite: @Sendable (_ name: String, _ size: ByteCount) async throws -> DiskSite

    package init(
        granule: ByteCount, holdsSnapshots: Bool,
        newSite: @escaping @Sendable (_ name: String, _ size: ByteCount) async throws -> DiskSite
    ) {
        self.granule = granule
        self.holdsSnapshots = holdsSnapshots
        self.newSite = newSite
    }
}

/// One volume, to be attached.
package struct DiskSite: Sendable {
    /// Another value for the same volume at each call.
    package let volume: @Sendable () async throws -> any DiskVolume
    /// Never called for a kind that holds none.
    package let takeSnapshot: @Sendable (_ name: String) async throws -> Void
    package let remove: @Sendable () async throws -> Void

    package init(
        volume: @escaping @Sendable () async throws -> any DiskVolume,
        takeSnapshot: @escaping @Sendable (_ name: String) async throws -> Void = { _ in },
        remove: @escaping @Sendable () async throws -> Void = {}
    ) {
        self.volume = volume
        self.takeSnapshot = takeSnapshot
        self.remove = remove
    }

    func withDisk(
        _ revision: Revision = .head, isWritable: Bool = true, _ body: (any Disk) async throws -> Void
    ) async throws {
        let disk = try await volume().attach(revision, isWritable: isWritable)
        do {
            try await body(disk)
            await disk.close()
        } catch {
            await disk.close()
            throw error
        }
    }
}

/// All checks of a disk, one after another.
package func checkConformance(ofDisk kind: DiskKind) async throws {
    for check in DiskCheck.all { try await check.run(kind) }
}

/// One thing that every disk must do.
package struct DiskCheck: Sendable, CustomTestStringConvertible {
    private static let size = 3 << 20

    package let name: String
    private let needsSnapshots: Bool
    private let check: @Sendable (DiskKind, DiskSite) async throws -> Void

    package var testDescription: String { name }

    private init(
        _ name: String, needsSnapshots: Bool = false,
        _ check: @escaping @Sendable (DiskKind, DiskSite) async throws -> Void
    ) {
        (self.name, self.needsSnapshots, self.check) = (name, needsSnapshots, check)
    }

    package func run(_ kind: DiskKind) async throws {
        guard !needsSnapshots || kind.holdsSnapshots else { return }
        let site = try await kind.newSite(name, ByteCount(UInt64(Self.size)))
        do {
            try await check(kind, site)
        } catch {
            try? await site.remove()
            throw error
        }
        try await site.remove()
    }

    package static let all = [
        DiskCheck("what was written is read, whatever else was done", changes),
        DiskCheck("what was flushed is there for others", flushed),
        DiskCheck("requests at the same time don't disturb each other", together),
        DiskCheck("zeros read as zeros, with and without their room", zeros),
        DiskCheck("a disk that is only read refuses every change", reading),
        DiskCheck("nothing reaches past the end", ends),
        DiskCheck("what is done at once is done as well", atOnce),
        DiskCheck("a snapshot stays as it was, and is only read", needsSnapshots: true, snapshots),
    ]

    // MARK: The checks

    @Sendable private static func changes(_ kind: DiskKind, _ site: DiskSite) async throws {
        var random = SplitMix64(seed: 11)
        var model = [UInt8](zeros: size)
        try await site.withDisk { disk in
            #expect(disk.size == model.size)
            for turn in 0..<120 {
                let range = random.extent(in: size, atMost: 200_000)
                switch Int.random(in: 0..<5, using: &random) {
                case 0, 1:
                    let bytes = random.bytes(range.count)
                    try await disk.write(bytes, at: range.lowerBound)
                    model.write(bytes, at: range.lowerBound)
                case 2:
                    try await disk.zero(range.extent, keepsRoom: Bool.random(using: &random))
                    model.zero(range)
                case 3:
                    try await disk.discard(range.extent)
                    // Whatever is there now, it is for good, and what is around it is as it was.
                    model.write(try await disk.bytes(in: range), at: range.lowerBound)
                default: try await disk.cache(range.extent)
                }
                let read = random.extent(in: size, atMost: 300_000)
                expectSame(try await disk.bytes(in: read), Array(model[read]), "turn \(turn), \(read)")
            }
            expectSame(try await disk.bytes(in: 0..<size), model, "in the end")
            try await disk.flush()
            let extents = try await disk.extents(in: 0..<size)
            expectCovered(model, differingFrom: nil, by: extents)
        }
    }

    @Sendable private static func flushed(_ kind: DiskKind, _ site: DiskSite) async throws {
        var random = SplitMix64(seed: 12)
        var model = [UInt8](zeros: size)
        try await site.withDisk { disk in
            for start in [0, 5000, 1 << 20, size - 3] {
                let bytes = random.bytes(min(70_000, size - start))
                try await disk.write(bytes, at: start)
                model.write(bytes, at: start)
            }
            try await disk.flush()
            try await site.withDisk(isWritable: false) { other in
                expectSame(try await other.bytes(in: 0..<size), model, "seen by another")
            }
        }
        try await site.volume().expect(model, "when it was closed")
    }

    @Sendable private static func together(_ kind: DiskKind, _ site: DiskSite) async throws {
        let piece = size / 48
        let pieces = (0..<48).map { index in SplitMix64.bytes(piece, seed: UInt64(index)) }
        try await site.withDisk { disk in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (index, bytes) in pieces.enumerated() {
                    group.addTask {
                        try await disk.write(bytes, at: index * piece)
                        if index % 7 == 0 { try await disk.flush() }
                        let found = try await disk.bytes(in: index * piece..<(index + 1) * piece)
                        expectSame(found, bytes, "piece \(index)")
                    }
                }
                try await group.waitForAll()
            }
            expectSame(try await disk.bytes(in: 0..<48 * piece), pieces.flatMap { $0 }, "all of them")
        }
    }

    @Sendable private static func zeros(_ kind: DiskKind, _ site: DiskSite) async throws {
        try await site.withDisk { disk in
            var model = SplitMix64.bytes(size, seed: 13)
            try await disk.write(model, at: 0)
            let granule = Int(kind.granule.bytes)
            for range in [0..<granule * 2, granule * 3..<granule * 5, 4097 + granule * 6..<granule * 8 - 1] {
                for keepsRoom in [false, true] {
                    let range = keepsRoom ? range.lowerBound + size / 2..<range.upperBound + size / 2 : range
                    try await disk.zero(range.extent, keepsRoom: keepsRoom)
                    model.zero(range)
                }
            }
            try await disk.zero((size - 5000..<size).extent, keepsRoom: false)
            model.zero(size - 5000..<size)
            try await disk.flush()
            expectSame(try await disk.bytes(in: 0..<size), model)
            guard disk.means != .everything else { return }
            let extents = try await disk.extents(in: 0..<size)
            expectCovered(model, differingFrom: nil, by: extents)
            if disk.zeroesFast {
                #expect(extents.intersection((0..<granule * 2).extent).isEmpty, "a hole was wanted, and is none")
            }
        }
    }

    @Sendable private static func reading(_ kind: DiskKind, _ site: DiskSite) async throws {
        let bytes = SplitMix64.bytes(8192, seed: 14)
        try await site.withDisk { disk in
            #expect(disk.isWritable)
            try await disk.write(bytes, at: 4096)
        }
        try await site.withDisk(isWritable: false) { disk in
            #expect(!disk.isWritable)
            await expectRefusal(.forbidden, during: "write") { try await disk.write(bytes, at: 0) }
            await expectRefusal(.forbidden, during: "zero") {
                try await disk.zero((0..<4096).extent, keepsRoom: false)
            }
            await expectRefusal(.forbidden, during: "discard") { try await disk.discard((0..<4096).extent) }
            try await disk.flush()
            expectSame(try await disk.bytes(in: 4096..<12_288), bytes)
        }
    }

    @Sendable private static func ends(_ kind: DiskKind, _ site: DiskSite) async throws {
        try await site.withDisk { disk in
            let bytes = SplitMix64.bytes(8192, seed: 15)
            await expectRefusal(during: "write past the end") { try await disk.write(bytes, at: size - 4096) }
            let past = (size - 4096..<size + 4096).extent
            await expectRefusal(during: "zero past the end") { try await disk.zero(past, keepsRoom: true) }
            await expectRefusal(during: "discard past the end") { try await disk.discard(past) }
            await expectRefusal(during: "read past the end") {
                _ = try await disk.bytes(in: size - 4096..<size + 4096)
            }
            let last = try await disk.bytes(in: size - 8192..<size)
            #expect(isAllZero(last))
        }
        #expect(try await site.volume().describe().size == ByteCount(UInt64(size)))
    }

    @Sendable private static func atOnce(_ kind: DiskKind, _ site: DiskSite) async throws {
        try await site.withDisk { disk in
            let (first, second) = (SplitMix64.bytes(100_000, seed: 16), SplitMix64.bytes(100_000, seed: 17))
            try await disk.write(first, at: 1000)
            unsafe try await withIOBuffer(of: ByteCount(100_000)) { buffer throws(VolumeError) in
                // What was written just now may have come from the same memory.
                _ = unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
                if unsafe try disk.readAtOnce(into: buffer, at: ByteOffset(1000)) {
                    expectSame(unsafe Array(buffer), first, "read at once")
                }
            }
            if try await disk.writeAtOnce(second, at: 500_000) {
                expectSame(try await disk.bytes(in: 500_000..<600_000), second, "written at once")
            }
        }
        try await site.withDisk(isWritable: false) { disk in
            let isWritten = (try? await disk.writeAtOnce([UInt8](repeating: 1, count: 512), at: 0)) ?? false
            #expect(!isWritten, "written to a disk that is only read")
            let first = try await disk.bytes(in: 0..<512)
            #expect(isAllZero(first))
        }
    }

    @Sendable private static func snapshots(_ kind: DiskKind, _ site: DiskSite) async throws {
        let (before, after) = (SplitMix64.bytes(50_000, seed: 18), SplitMix64.bytes(50_000, seed: 19))
        try await site.withDisk { disk in
            try await disk.write(before, at: 0)
            try await disk.flush()
            try await site.takeSnapshot("monday")
            try await disk.write(after, at: 0)
            try await disk.flush()
            let volume = try await site.volume()
            let snapshot = try #require(try await volume.describe().snapshots.first)
            try await site.withDisk(.snapshot(snapshot), isWritable: false) { old in
                expectSame(try await old.bytes(in: 0..<50_000), before, "the snapshot")
            }
            await expectRefusal(.forbidden, during: "attach a snapshot for writing") {
                await (try volume.attach(.snapshot(snapshot), isWritable: true)).close()
            }
            expectSame(try await disk.bytes(in: 0..<50_000), after, "the head")
        }
    }
}

private func isAllZero(_ bytes: [UInt8]) -> Bool { unsafe bytes.withUnsafeBytes { unsafe isZero($0) } }

extension SplitMix64 {
    fileprivate static func bytes(_ count: Int, seed: UInt64) -> [UInt8] {
        var random = SplitMix64(seed: seed)
        return random.bytes(count)
    }
}

extension Disk {
    package func write(_ bytes: [UInt8], at offset: Int) async throws(VolumeError) {
        unsafe try await withIOBuffer(of: bytes.size) { buffer throws(VolumeError) in
            unsafe buffer.copyBytes(from: bytes)
            unsafe try await self.write(UnsafeRawBufferPointer(buffer), at: ByteOffset(UInt64(offset)))
        }
    }

    fileprivate func writeAtOnce(_ bytes: [UInt8], at offset: Int) async throws(VolumeError) -> Bool {
        unsafe try await withIOBuffer(of: bytes.size) { buffer throws(VolumeError) in
            unsafe buffer.copyBytes(from: bytes)
            return unsafe try self.writeAtOnce(UnsafeRawBufferPointer(buffer), at: ByteOffset(UInt64(offset)))
        }
    }
}
