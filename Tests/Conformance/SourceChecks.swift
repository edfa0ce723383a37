internal import Testing
internal import Volumes

/// One thing that every source must do.
package struct SourceCheck: Sendable, CustomTestStringConvertible {
    package let name: String
    package let run: @Sendable (SourceKind) async throws -> Void

    package var testDescription: String { name }

    private init(_ name: String, _ run: @escaping @Sendable (SourceKind) async throws -> Void) {
        self.name = name
        self.run = run
    }

    package static let all = [
        SourceCheck("two who look at it see the same volume", description),
        SourceCheck("what was not written is a hole", holes),
        SourceCheck("it can have any size", sizes),
        SourceCheck("its extents miss no byte", random),
        SourceCheck("a change is seen", changes),
        SourceCheck("a frozen state stays", freezing),
        SourceCheck("differences between snapshots miss no byte", differences),
    ]

    private static func withSite(
        _ kind: SourceKind, _ name: String, _ size: Int, _ body: (SourceSite) async throws -> Void
    ) async throws {
        let site = try await kind.newSite(name, ByteCount(UInt64(size)))
        do {
            try await body(site)
        } catch {
            try? await site.remove()
            throw error
        }
        try await site.remove()
    }

    @Sendable private static func description(_ kind: SourceKind) async throws {
        try await withSite(kind, "description", 70_001) { site in
            let (first, second) = (try await site.source(), try await site.source())
            let description = try await first.describe()
            #expect(description.size == ByteCount(70_001))
            #expect(description.snapshots.isEmpty)
            #expect(try await second.describe() == description)
            #expect(try await first.obstacles().isEmpty)
            try await site.write([1], .zero)
            // What can't be frozen is another source once it was changed: what was moved of it is no start.
            let isSame = try await second.describe().identity == description.identity
            #expect(isSame == (kind.holdsSnapshots || !kind.noticesChanges))
        }
    }

    @Sendable private static func holes(_ kind: SourceKind) async throws {
        let size = (4 << 20) + 1000
        try await withSite(kind, "holes", size) { site in
            let source = try await site.source()
            #expect(try await source.reading { try await $0.extents(in: 0..<size) }.isEmpty)
            var model = [UInt8](zeros: size)
            var allowed = ExtentSet()
            for place in [5, (2 << 20) - 1, size - 2] {
                try await site.write([1, 2], ByteOffset(UInt64(place)))
                model.write([1, 2], at: place)
                let range = (place..<place + 2).extent
                allowed.append(
                    Extent(
                        from: range.offset.rounded(downTo: kind.granule),
                        to: min(range.end.rounded(upTo: kind.granule), ByteOffset(UInt64(size)))))
            }
            try await source.expect(model)
            let extents = try await source.reading { try await $0.extents(in: 0..<size) }
            #expect(extents.subtracting(allowed).isEmpty, "data where nothing was written")
        }
    }

    @Sendable private static func sizes(_ kind: SourceKind) async throws {
        for size in [1, 511, 512, 513, 4095, 4097, 65_537] {
            try await withSite(kind, "sizes\(size)", size) { site in
                var random = SplitMix64(seed: UInt64(size))
                let source = try await site.source()
                try await source.expect([UInt8](zeros: size), "of \(size) bytes, made")
                let bytes = random.bytes(size)
                try await site.write(bytes, .zero)
                try await source.expect(bytes, "of \(size) bytes, written")
            }
        }
    }

    @Sendable private static func random(_ kind: SourceKind) async throws {
        for seed in 1...UInt64(4) {
            var random = SplitMix64(seed: seed)
            var model = [UInt8](zeros: Int.random(in: 1...3 << 20, using: &random))
            try await withSite(kind, "random\(seed)", model.count) { site in
                let source = try await site.source()
                for step in 1...40 {
                    try await change(site, &model, &random, resizes: kind.noticesChanges)
                    guard step.isMultiple(of: 10) else { continue }
                    let what = "at step \(step) of seed \(seed)"
                    try await source.expect(model, what)
                    let range = random.extent(in: model.count, atMost: 1 << 20)
                    try await source.reading { [model] reader in
                        expectSame(try await reader.bytes(in: range), Array(model[range]), "\(range) \(what)")
                        let extents = try await reader.extents(in: range)
                        expectCovered(model, differingFrom: nil, by: extents, within: range, "in \(range) \(what)")
                    }
                }
            }
        }
    }

    /// A write, or a discard, or another size.
    private static func change(
        _ site: SourceSite, _ model: inout [UInt8], _ random: inout SplitMix64, resizes: Bool = true
    ) async throws {
        let range = random.extent(in: model.count, atMost: 100_000)
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<12:
            let bytes = random.bytes(range.count)
            try await site.write(bytes, range.extent.offset)
            model.write(bytes, at: range.lowerBound)
        case 12..<19:
            try await site.zero(range.extent)
            model.zero(range)
        case _ where !resizes: break
        default:
            let size = Int.random(in: 1...3 << 20, using: &random)
            try await site.resize(ByteCount(UInt64(size)))
            model.resize(to: size)
        }
    }

    @Sendable private static func changes(_ kind: SourceKind) async throws {
        guard kind.noticesChanges else { return }
        try await withSite(kind, "changes", 1 << 20) { site in
            try await site.write([1], .zero)
            let source = try await site.source()
            // What can be frozen tells since then; what can't, since this value saw it first.
            let frozen = try await source.freeze(as: Snapshot.transientName(0xc4a6))
            #expect(try await source.isUnchanged(since: frozen))
            _ = try await source.describe()
            _ = try await source.reading { try await $0.bytes(in: 0..<1) }
            #expect(try await source.isUnchanged(since: frozen), "reading changes nothing")
            try await site.write([2], ByteOffset(500_000))
            #expect(try await !source.isUnchanged(since: frozen))
            if !kind.holdsSnapshots {
                #expect(try await site.source().isUnchanged(since: nil), "one who came later saw nothing else")
            }
        }
    }

    @Sendable private static func freezing(_ kind: SourceKind) async throws {
        try await withSite(kind, "freezing", 1 << 20) { site in
            let source = try await site.source()
            let name = Snapshot.transientName(0xc4ec)
            try await source.thaw(name)
            guard kind.holdsSnapshots else {
                #expect(try await source.freeze(as: name) == nil)
                return try await source.thaw(name)
            }
            var random = SplitMix64(seed: 11)
            var model = random.bytes(1 << 20)
            try await site.write(model, .zero)
            let frozen = try #require(try await source.freeze(as: name))
            #expect(frozen.name == name)
            #expect(frozen.isTransient)
            #expect(frozen.size == model.size)
            #expect(try await source.isUnchanged(since: frozen))
            let held = model
            try await site.write([1, 2, 3], ByteOffset(77_777))
            model.write([1, 2, 3], at: 77_777)
            try await site.zero((200_000..<300_000).extent)
            model.zero(200_000..<300_000)
            #expect(try await !source.isUnchanged(since: frozen))
            try await source.expect(held, at: .snapshot(frozen), "frozen")
            try await source.expect(model, "going on")
            let again = try await site.source().freeze(as: name)
            #expect(again == frozen, "the same name gives the same state again")
            try await source.expect(held, at: .snapshot(frozen), "frozen twice")
            #expect(try await source.describe().snapshots.isEmpty, "it isn't the user's")
            try await source.thaw(name)
            try await source.thaw(name)
            await expectRefusal(during: "reading a state that was let go") {
                try await source.reading(.snapshot(frozen)) { _ = try await $0.bytes(in: 0..<1) }
            }
            try await source.expect(model, "thawed")
        }
    }

    @Sendable private static func differences(_ kind: SourceKind) async throws {
        guard kind.holdsSnapshots else { return }
        for seed in 1...UInt64(3) {
            var random = SplitMix64(seed: seed)
            var model = [UInt8](zeros: Int.random(in: 1 << 20...3 << 20, using: &random))
            try await withSite(kind, "differences\(seed)", model.count) { site in
                let source = try await site.source()
                var models: [[UInt8]] = []
                for index in 0..<4 {
                    for _ in 0..<6 { try await change(site, &model, &random) }
                    try await site.takeSnapshot("s\(index)")
                    models.append(model)
                }
                // Two in a row with nothing between.
                try await site.takeSnapshot("same")
                models.append(model)
                let snapshots = try await source.describe().snapshots
                #expect(snapshots.map(\.name) == ["s0", "s1", "s2", "s3", "same"])
                guard snapshots.count == models.count else { return }
                for (index, goal) in snapshots.enumerated() {
                    let newer = models[index]
                    try await source.expect(newer, at: .snapshot(goal), "\(goal.name) of seed \(seed)")
                    for earlier in 0..<index {
                        let base = snapshots[earlier]
                        let extents = try await source.reading(.snapshot(goal)) { reader in
                            try await reader.extents(in: 0..<newer.count, since: base)
                        }
                        expectCovered(
                            newer, differingFrom: models[earlier], by: extents,
                            "from \(base.name) to \(goal.name) of seed \(seed)")
                        if goal.name == "same", base.name == "s3" {
                            #expect(extents.isEmpty, "nothing changed between, seed \(seed)")
                        }
                    }
                }
                try await change(site, &model, &random)
                let last = snapshots[snapshots.count - 1]
                let (count, now) = (model.count, model)
                let extents = try await source.reading { try await $0.extents(in: 0..<count, since: last) }
                expectCovered(now, differingFrom: models[models.count - 1], by: extents, "to the head, seed \(seed)")
            }
        }
    }
}
