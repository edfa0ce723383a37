internal import Testing
internal import Volumes

/// One thing that every target must do.
package struct TargetCheck: Sendable, CustomTestStringConvertible {
    package let name: String
    /// Whether it is about what one process leaves for another, and not for a kind that holds no record.
    package let needsRecord: Bool
    package let run: @Sendable (TargetKind) async throws -> Void

    package var testDescription: String { name }

    private init(
        _ name: String, needsRecord: Bool = false, _ run: @escaping @Sendable (TargetKind) async throws -> Void
    ) {
        self.name = name
        self.needsRecord = needsRecord
        self.run = run
    }

    package static let all = [
        TargetCheck("it is absent, unfinished, committed, finished", needsRecord: true, states),
        TargetCheck("commit done again changes nothing", needsRecord: true, commitsOnce),
        TargetCheck("the record is read back by another", needsRecord: true, record),
        TargetCheck("only one can own it", needsRecord: true, ownership),
        TargetCheck("nobody writes who doesn't own it", writesNeedOwnership),
        TargetCheck("a foreign volume is never touched", foreign),
        TargetCheck("a foreign volume made meanwhile is never replaced", needsRecord: true, foreignMeanwhile),
        TargetCheck("discard leaves nothing", needsRecord: true, discard),
        TargetCheck("another of the same name has another identity", needsRecord: true, identity),
        TargetCheck("what was not written is a hole", holes),
        TargetCheck("zero makes zeros, and holes", zero),
        TargetCheck("it can have any size", sizes),
        TargetCheck("writes at the edges stay within them", edges),
        TargetCheck("many writes at once all arrive", concurrentWrites),
        TargetCheck("what grows or comes back reads as zeros", resize),
        TargetCheck("snapshots keep what was written", snapshots),
        TargetCheck("any sequence of changes leaves what an array of bytes would hold", random),
    ]

    private static func withSite(
        _ kind: TargetKind, _ name: String, _ body: (TargetSite) async throws -> Void
    ) async throws {
        let site = try await kind.newSite(name)
        do {
            try await body(site)
        } catch {
            try? await site.remove()
            throw error
        }
        try await site.remove()
    }

    private static func description(_ count: Int) -> VolumeDescription {
        VolumeDescription(identity: "made for a check", size: ByteCount(UInt64(count)))
    }

    // MARK: States

    @Sendable private static func states(_ kind: TargetKind) async throws {
        try await withSite(kind, "states") { site in
            let (first, second) = (try await site.target(), try await site.target())
            var random = SplitMix64(seed: 1)
            let bytes = random.bytes(10_000)
            #expect(try await first.state() == .absent)
            #expect(try await first.obstacles(to: description(bytes.count), room: bytes.size).isEmpty)
            #expect(try await first.state() == .absent, "asking for obstacles changes nothing")
            try await first.make(as: description(bytes.count), record: "begun")
            #expect(try await first.state() == .unfinished(record: "begun"))
            #expect(try await second.state() == .unfinished(record: "begun"))
            await expectRefusal(during: "making it twice") {
                try await second.make(as: description(bytes.count), record: "again")
            }
            #expect(try await second.state() == .unfinished(record: "begun"))
            try await first.own()
            try await first.write(bytes, at: 0)
            try await first.flush()
            try await first.save(record: "whole")
            #expect(try await second.state() == .unfinished(record: "whole"))
            try await second.expect(bytes, "while unfinished")
            try await first.commit(as: description(bytes.count))
            #expect(try await first.state() == .committed(record: "whole"))
            #expect(try await second.state() == .committed(record: "whole"))
            try await second.expect(bytes, "when committed")
            try await first.forget()
            #expect(try await first.state() == .foreign)
            #expect(try await second.state() == .foreign)
            try await second.expect(bytes, "when finished")
            #expect(try await site.leftovers().count == 1, "nothing is left beside the finished volume")
            await first.close()
            await second.close()
        }
    }

    @Sendable private static func commitsOnce(_ kind: TargetKind) async throws {
        try await withSite(kind, "commitsOnce") { site in
            let (first, second) = (try await site.target(), try await site.target())
            var random = SplitMix64(seed: 2)
            let bytes = random.bytes(70_000)
            try await first.begin(bytes.count)
            try await first.write(bytes, at: 0)
            try await first.commit(as: description(bytes.count))
            try await first.commit(as: description(bytes.count))
            await first.close()
            try await second.commit(as: description(bytes.count))
            #expect(try await second.state() == .committed(record: "r"))
            try await second.forget()
            #expect(try await second.state() == .foreign)
            try await second.expect(bytes)
            await second.close()
        }
    }

    @Sendable private static func record(_ kind: TargetKind) async throws {
        try await withSite(kind, "record") { site in
            let first = try await site.target()
            let long =
                "{\"text\": \"ä€𝄞 \\\" \n\t\", \"digits\": \"" + String(repeating: "0123456789", count: 1600) + "\"}"
            try await first.make(as: description(4096), record: long)
            let second = try await site.target()
            #expect(try await second.state() == .unfinished(record: long))
            try await first.own()
            // A shorter one leaves nothing of a longer one.
            for text in ["short", long, "{}"] {
                try await first.save(record: text)
                #expect(try await second.state() == .unfinished(record: text))
            }
            await first.close()
            try await second.own()
            try await second.save(record: "by another")
            let third = try await site.target()
            #expect(try await third.state() == .unfinished(record: "by another"))
            await second.close()
            await third.close()
        }
    }

    @Sendable private static func ownership(_ kind: TargetKind) async throws {
        try await withSite(kind, "ownership") { site in
            let (first, second) = (try await site.target(), try await site.target())
            try await first.make(as: description(8192), record: "r")
            #expect(try await !first.own(), "nobody owned it before")
            #expect(try await !first.own(), "owning it twice is owning it")
            try await first.write([1], at: 0)
            await expectRefusal(.busy, during: "a second owner") { try await second.own() }
            await expectRefusal(.busy, during: "a discard under the owner's hands") { try await second.discard() }
            try await first.write([2], at: 1)
            try await first.flush()
            await first.close()
            #expect(try await !second.own(), "the owner let go of it")
            await expectRefusal(during: "a write by the owner that was") { try await first.write([3], at: 0) }
            try await second.write([4], at: 2)
            try await second.flush()
            try await second.expect([1, 2, 4] + [UInt8](zeros: 8189))
            await second.close()
        }
    }

    @Sendable private static func writesNeedOwnership(_ kind: TargetKind) async throws {
        try await withSite(kind, "writesNeedOwnership") { site in
            let target = try await site.target()
            try await target.make(as: description(8192), record: "r")
            await expectRefusal(during: "writing") { try await target.write([1], at: 0) }
            await expectRefusal(during: "zeroing") { try await target.zero(0..<1) }
            await expectRefusal(during: "resizing") { try await target.resize(to: 4096) }
            await expectRefusal(during: "committing") { try await target.commit(as: description(8192)) }
            #expect(try await target.state() == .unfinished(record: "r"))
            try await target.expect([UInt8](zeros: 8192))
            await target.close()
        }
    }

    @Sendable private static func foreign(_ kind: TargetKind) async throws {
        try await withSite(kind, "foreign") { site in
            var random = SplitMix64(seed: 3)
            // In whole blocks: some can't have been made in any size.
            let bytes = random.bytes(20_480)
            try await site.plant(bytes)
            let target = try await site.target()
            #expect(try await target.state() == .foreign)
            let obstacles = try await target.obstacles(to: description(4096), room: .zero)
            #expect(obstacles.contains { $0.kind == .exists })
            await expectRefusal(during: "making it") { try await target.make(as: description(4096), record: "r") }
            await expectRefusal(during: "owning it") { try await target.own() }
            await expectRefusal(during: "writing to it") { try await target.write([1], at: 0) }
            await expectRefusal(during: "committing it") { try await target.commit(as: description(4096)) }
            try? await target.discard()
            #expect(try await target.state() == .foreign)
            try await target.expect(bytes)
            #expect(try await site.leftovers().count == 1, "nothing was left beside it")
            await target.close()
        }
    }

    @Sendable private static func foreignMeanwhile(_ kind: TargetKind) async throws {
        try await withSite(kind, "foreignMeanwhile") { site in
            var random = SplitMix64(seed: 4)
            let (ours, theirs) = (random.bytes(20_000), random.bytes(30_000))
            let target = try await site.target()
            try await target.begin(ours.count)
            try await target.write(ours, at: 0)
            try await site.plant(theirs)
            let other = try await site.target()
            #expect(try await other.state() == .foreign)
            await expectRefusal(during: "committing over it") { try await target.commit(as: description(ours.count)) }
            try await other.expect(theirs)
            #expect(try await other.state() == .foreign)
            await target.close()
            await other.close()
        }
    }

    @Sendable private static func discard(_ kind: TargetKind) async throws {
        try await withSite(kind, "discard") { site in
            for byOwner in [true, false] {
                let first = try await site.target()
                try await first.begin(1 << 20)
                try await first.write([1, 2, 3], at: 4095)
                if kind.holdsSnapshots {
                    try await first.keep(Snapshot(id: 1, name: "a", size: .mebibytes(1)))
                    try await first.keep(Snapshot(id: 2, name: "b", size: .mebibytes(1), isProtected: true))
                }
                try await first.save(record: "more")
                if byOwner {
                    try await first.discard()
                    await first.close()
                } else {
                    await first.close()
                    let second = try await site.target()
                    try await second.discard()
                    await second.close()
                }
                #expect(try await site.target().state() == .absent)
                #expect(try await site.leftovers().isEmpty, "discarded by its owner: \(byOwner)")
            }
            let again = try await site.target()
            try await again.begin(8192)
            try await again.expect([UInt8](zeros: 8192), "made again")
            await again.close()
        }
    }

    @Sendable private static func identity(_ kind: TargetKind) async throws {
        try await withSite(kind, "identity") { site in
            let (first, second) = (try await site.target(), try await site.target())
            try await first.begin(8192)
            let identity = try await first.describe().identity
            #expect(try await second.describe().identity == identity)
            #expect(try await second.describe().size == ByteCount(8192))
            try await first.discard()
            try await second.begin(8192)
            #expect(try await second.describe().identity != identity)
            await first.close()
            await second.close()
        }
    }

    // MARK: Bytes

    /// What was written, in whole granules.
    private static func expectThin(
        _ extents: ExtentSet, _ written: [Range<Int>], _ kind: TargetKind, size: Int, _ what: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let allowed = ExtentSet(
            written.map {
                Extent(
                    from: $0.extent.offset.rounded(downTo: kind.granule),
                    to: min($0.extent.end.rounded(upTo: kind.granule), ByteOffset(UInt64(size))))
            })
        #expect(
            extents.subtracting(allowed).isEmpty, "\(what): data where nothing was written",
            sourceLocation: sourceLocation)
    }

    @Sendable private static func holes(_ kind: TargetKind) async throws {
        try await withSite(kind, "holes") { site in
            let size = (4 << 20) + 1000
            let target = try await site.target()
            try await target.begin(size)
            var model = [UInt8](zeros: size)
            try await target.expect(model, "made")
            #expect(try await target.reading { try await $0.extents(in: 0..<size) }.isEmpty)
            var written: [Range<Int>] = []
            var random = SplitMix64(seed: 5)
            for place in [0, 777_777, (2 << 20) - 5, size - 100] {
                let bytes = random.bytes(100)
                try await target.write(bytes, at: place)
                model.write(bytes, at: place)
                written.append(place..<place + 100)
            }
            try await target.flush()
            try await target.expect(model, "written")
            let extents = try await target.reading { try await $0.extents(in: 0..<size) }
            expectThin(extents, written, kind, size: size, "written")
            await target.close()
            // Nor does finishing fill the holes.
            try await target.own()
            try await target.commit(as: description(size))
            let finished = try await target.reading { try await $0.extents(in: 0..<size) }
            expectThin(finished, written, kind, size: size, "finished")
            try await target.expect(model, "finished")
            await target.close()
        }
    }

    @Sendable private static func zero(_ kind: TargetKind) async throws {
        try await withSite(kind, "zero") { site in
            let size = (3 << 20) + 700
            let target = try await site.target()
            try await target.begin(size)
            var random = SplitMix64(seed: 6)
            var model = random.bytes(size)
            try await target.write(model, at: 0)
            for range in [0..<1, 4096..<8192, 10_000..<10_003, 12_287..<20_481, size - 1..<size, 99..<99] {
                try await target.zero(range)
                model.zero(range)
            }
            try await target.flush()
            try await target.expect(model, "in small pieces")
            let granule = Int(kind.granule.bytes)
            let wide = 2 * granule..<min(size, 4 * granule)
            if kind.makesHoles, !wide.isEmpty {
                try await target.zero(wide)
                model.zero(wide)
                try await target.flush()
                try await target.expect(model, "in whole granules")
                #expect(
                    try await target.reading { try await $0.extents(in: wide) }.isEmpty, "zeroed granules are holes")
            }
            // What was zeroed takes bytes again; what was a hole already stays zeros.
            try await target.write([7, 8, 9], at: 5000)
            model.write([7, 8, 9], at: 5000)
            try await target.expect(model, "written once more")
            try await target.zero(0..<size)
            try await target.zero(0..<size)
            try await target.flush()
            try await target.expect([UInt8](zeros: size), "all of it, twice")
            if kind.makesHoles {
                #expect(try await target.reading { try await $0.extents(in: 0..<size) }.isEmpty)
            }
            await target.close()
        }
    }

    @Sendable private static func sizes(_ kind: TargetKind) async throws {
        for size in [1, 511, 512, 513, 4095, 4097, 65_537, (1 << 20) + 1] {
            try await withSite(kind, "sizes\(size)") { site in
                var random = SplitMix64(seed: UInt64(size))
                let bytes = random.bytes(size)
                let target = try await site.target()
                try await target.begin(size)
                #expect(try await target.describe().size == bytes.size)
                try await target.expect([UInt8](zeros: size), "of \(size) bytes, made")
                try await target.write(bytes, at: 0)
                try await target.expect(bytes, "of \(size) bytes, written")
                try await target.zero(size - 1..<size)
                try await target.expect(bytes.dropLast() + [0], "of \(size) bytes, the last one zeroed")
                try await target.write([bytes[size - 1]], at: size - 1)
                try await target.commit(as: description(size))
                try await target.expect(bytes, "of \(size) bytes, finished")
                await target.close()
            }
        }
    }

    @Sendable private static func edges(_ kind: TargetKind) async throws {
        try await withSite(kind, "edges") { site in
            let size = (4 << 20) + 5000
            let target = try await site.target()
            try await target.begin(size)
            var random = SplitMix64(seed: 7)
            var model = [UInt8](zeros: size)
            // Around the blocks of 4 KiB, a common object's end, and the volume's.
            let places = [0, 1, 4095, 4096, 65_535, (1 << 20) - 1, (4 << 20) - 1, 4 << 20, size - 3]
            for place in places {
                for count in [1, 2, 3] {
                    let bytes = random.bytes(count)
                    try await target.write(bytes, at: place)
                    model.write(bytes, at: place)
                }
            }
            try await target.write([], at: 12_345)
            let across = random.bytes(9000)
            try await target.write(across, at: (4 << 20) - 4500)
            model.write(across, at: (4 << 20) - 4500)
            try await target.expect(model)
            try await target.reading { reader in
                for place in places {
                    let end = min(size, place + 4097)
                    expectSame(try await reader.bytes(in: place..<end), Array(model[place..<end]), "read from \(place)")
                    expectSame(try await reader.bytes(in: end - 1..<end), [model[end - 1]], "one byte before \(end)")
                }
            }
            await target.close()
        }
    }

    @Sendable private static func concurrentWrites(_ kind: TargetKind) async throws {
        try await withSite(kind, "concurrentWrites") { site in
            let target = try await site.target()
            // Pieces of 1,500 bytes: neighbours share a block.
            let (piece, count) = (1500, 64)
            try await target.begin(piece * count)
            var random = SplitMix64(seed: 8)
            let model = random.bytes(piece * count)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in (0..<count).shuffled(using: &random) {
                    let bytes = Array(model[index * piece..<(index + 1) * piece])
                    group.addTask { try await target.write(bytes, at: index * piece) }
                }
                try await group.waitForAll()
            }
            try await target.expect(model)
            await target.close()
        }
    }

    @Sendable private static func resize(_ kind: TargetKind) async throws {
        try await withSite(kind, "resize") { site in
            var random = SplitMix64(seed: 9)
            let target = try await site.target()
            var model = random.bytes(100_000)
            try await target.begin(model.count)
            try await target.write(model, at: 0)
            for size in [100_000, 300_001, 50_000, 100_000, 4096, 4097, 1, 2 << 20, 65_536, 100, 5 << 20] {
                try await target.resize(to: size)
                model.resize(to: size)
                #expect(try await target.describe().size == model.size)
                try await target.expect(model, "resized to \(size)")
                // What the next shrinking cuts off must not come back.
                let bytes = random.bytes(min(1000, size))
                try await target.write(bytes, at: size - bytes.count)
                model.write(bytes, at: size - bytes.count)
                try await target.expect(model, "written up to \(size)")
            }
            await target.close()
        }
    }

    @Sendable private static func snapshots(_ kind: TargetKind) async throws {
        guard kind.holdsSnapshots else {
            return try await withSite(kind, "noSnapshots") { site in
                let target = try await site.target()
                let snapshot = Snapshot(id: 7, name: "monday", size: ByteCount(8192))
                let with = VolumeDescription(identity: "x", size: ByteCount(8192), snapshots: [snapshot])
                #expect(try await target.obstacles(to: with, room: .zero).contains { $0.kind == .unsupported })
                try await target.begin(8192)
                #expect(try await target.kept().isEmpty)
                await expectRefusal(.unsupported, during: "keeping a snapshot") { try await target.keep(snapshot) }
                await target.close()
            }
        }
        try await withSite(kind, "snapshots") { site in
            let target = try await site.target()
            var random = SplitMix64(seed: 10)
            var model = [UInt8](zeros: 300_000)
            var models: [String: [UInt8]] = [:]
            try await target.begin(model.count)
            for (index, name) in ["monday", "two words", "ümlaut", "empty step"].enumerated() {
                if index < 3 {
                    let bytes = random.bytes(5000)
                    try await target.write(bytes, at: 70_000 * index)
                    model.write(bytes, at: 70_000 * index)
                    try await target.zero(1000..<1000 + 100 * index)
                    model.zero(1000..<1000 + 100 * index)
                }
                if index == 1 {
                    try await target.resize(to: 200_000)
                    model.resize(to: 200_000)
                }
                let snapshot = Snapshot(id: 100 + UInt64(index), name: name, size: model.size, isProtected: index == 2)
                try await target.keep(snapshot)
                try await target.keep(snapshot)
                models[name] = model
            }
            let bytes = random.bytes(7000)
            try await target.write(bytes, at: 0)
            model.write(bytes, at: 0)
            let kept = try await target.kept()
            #expect(kept.map(\.name) == ["monday", "two words", "ümlaut", "empty step"])
            #expect(kept.map(\.isProtected) == [false, false, true, false])
            #expect(kept.map(\.id) == kept.map(\.id).sorted())
            try await target.flush()
            try await target.expect(model, "the head")
            for snapshot in kept {
                let older = models[snapshot.name] ?? []
                #expect(snapshot.size == older.size)
                try await target.expect(older, at: .snapshot(snapshot), snapshot.name)
            }
            for (base, goal) in zip(kept, kept.dropFirst()) {
                let (older, newer) = (models[base.name] ?? [], models[goal.name] ?? [])
                let extents = try await target.reading(.snapshot(goal)) { reader in
                    try await reader.extents(in: 0..<newer.count, since: base)
                }
                expectCovered(newer, differingFrom: older, by: extents, "from \(base.name) to \(goal.name)")
            }
            try await target.commit(as: description(model.count))
            #expect(try await target.describe().snapshots.map(\.name) == kept.map(\.name))
            for snapshot in try await target.describe().snapshots {
                try await target.expect(
                    models[snapshot.name] ?? [], at: .snapshot(snapshot), "\(snapshot.name), finished")
            }
            await target.close()
        }
    }

    @Sendable private static func random(_ kind: TargetKind) async throws {
        for seed in 1...UInt64(4) {
            try await withSite(kind, "random\(seed)") { site in
                var random = SplitMix64(seed: seed)
                var target = try await site.target()
                var model = [UInt8](zeros: Int.random(in: 1...2 << 20, using: &random))
                var models: [String: [UInt8]] = [:]
                try await target.begin(model.count)
                for step in 1...60 {
                    let what = "at step \(step) of seed \(seed)"
                    let range = random.extent(in: model.count, atMost: 100_000)
                    switch Int.random(in: 0..<16, using: &random) {
                    case 0..<7:
                        var bytes = random.bytes(range.count)
                        // Zeros that are written count as little as holes.
                        if Bool.random(using: &random) { bytes.zero(random.extent(in: bytes.count, atMost: 20_000)) }
                        try await target.write(bytes, at: range.lowerBound)
                        model.write(bytes, at: range.lowerBound)
                    case 7..<11:
                        try await target.zero(range)
                        model.zero(range)
                    case 11:
                        let size = Int.random(in: 1...3 << 20, using: &random)
                        try await target.resize(to: size)
                        model.resize(to: size)
                    case 12:
                        try await target.flush()
                    case 13 where kind.holdsRecord:
                        try await target.flush()
                        await target.close()
                        target = try await site.target()
                        try await target.own()
                    case 14 where kind.holdsSnapshots && models.count < 4:
                        try await target.keep(Snapshot(id: 0, name: "s\(step)", size: model.size))
                        models["s\(step)"] = model
                    default:
                        try await target.expect(model, what)
                    }
                }
                try await target.flush()
                try await target.expect(model, "at the end of seed \(seed)")
                for snapshot in try await target.kept() {
                    try await target.expect(
                        models[snapshot.name] ?? [], at: .snapshot(snapshot), "\(snapshot.name) of seed \(seed)")
                }
                await target.close()
            }
        }
    }
}
