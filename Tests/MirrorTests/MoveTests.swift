import Mirror
import Testing
import Volumes

/// Whole moves in memory that nothing befalls.
struct MoveTests {
    private func expect(
        _ site: Site, holds holdings: Holdings, snapshots: MoveOptions.Snapshots = .all,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(holdings.differences(at: site, snapshots: snapshots) == [], sourceLocation: sourceLocation)
    }

    /// A volume with a past: snapshots, one of them protected, growth, a shrink, a hole, written zeros, an odd size.
    static func sourceWithHistory() -> Place {
        let place = Place()
        place.make(150_000)
        place.write(1, 70_000, at: 5_000)
        place.takeSnapshot("monday")
        place.write(2, 9_000, at: 1_000)
        place.zero(20_000, at: 30_000)
        place.takeSnapshot("dienstag ☃ größe", isProtected: true)
        place.resize(60_000)
        place.write(3, 100, at: 59_900)
        place.takeSnapshot("small")
        place.resize(200_512)
        place.write(0, 8_192, at: 4_096)
        place.write(4, 512, at: 200_000)
        return place
    }

    @Test func `a volume arrives with all its snapshots, sizes, protection and holes`() async throws {
        let site = Site(source: Self.sourceWithHistory())
        let holdings = Holdings(of: site.source)
        let report = try await site.move()
        expect(site, holds: holdings)
        #expect(report.outcome == .moved)
        #expect(!report.resumed && report.verified == nil && report.route == .stream)
        #expect(report.sizeBytes == 200_512)
        #expect(report.steps.map(\.snapshot) == ["monday", "dienstag ☃ größe", "small", nil])
        #expect(report.steps.allSatisfy { $0.means == .objectExtents && $0.copiedBytes == 0 })
        // The blocks of 70,000 bytes from 5,000 on.
        #expect(report.steps[0].sentBytes == 19 * 4096 - 4096 && report.steps[0].zeroedBytes == 0)
    }

    @Test func `it arrives as well through many workers and whole pieces, and is found equal`() async throws {
        let site = Site(source: Self.sourceWithHistory())
        site.source.resize(3 << 20)
        site.source.write(9, 1 << 20, at: (1 << 20) - 2048)
        let holdings = Holdings(of: site.source)
        var options = MoveOptions()
        options.verifies = true
        let report = try await site.move(options)
        expect(site, holds: holdings)
        #expect(report.verified == true)
    }

    @Test func `a volume that can't tell its extents arrives thin all the same`() async throws {
        let site = Site(source: Place(means: .everything))
        site.source.make(300_000)
        site.source.write(1, 5_000, at: 100_000)
        site.source.takeSnapshot("s")
        site.source.zero(5_000, at: 100_000)
        let holdings = Holdings(of: site.source)
        let report = try await site.move()
        expect(site, holds: holdings)
        #expect(report.steps.allSatisfy { $0.means == .everything })
    }

    @Test(arguments: [0, 1, 511, 512, 4096, 4097])
    func `any size arrives`(size: Int) async throws {
        let site = Site()
        site.source.make(size)
        site.source.takeSnapshot("s")
        if size > 0 { site.source.write(1, 1, at: size - 1) }
        let holdings = Holdings(of: site.source)
        var options = Site.options
        options.verifies = true
        try await site.move(options)
        expect(site, holds: holdings)
    }

    @Test func `without snapshots the head arrives alone`() async throws {
        let site = Site(source: Self.sourceWithHistory(), target: Place(holdsSnapshots: false))
        let holdings = Holdings(of: site.source)
        var options = Site.options
        (options.snapshots, options.verifies) = (.none, true)
        let report = try await site.move(options)
        expect(site, holds: holdings, snapshots: .none)
        #expect(report.steps.map(\.snapshot) == [nil])
    }

    @Test func `metadata and layout come along`() async throws {
        let site = Site()
        let layout = Layout(
            objectSize: .mebibytes(4), stripeUnit: .mebibytes(4), stripeCount: 1, dataPool: "ec", features: ["layering"]
        )
        site.source.make(size: ByteCount(10_000), layout: layout, metadata: ["conf_rbd_cache": "false", "größe": ""])
        try await site.move()
        let description = try await Site.targetVolume(at: site.target).describe()
        #expect(description.metadata == ["conf_rbd_cache": "false", "größe": ""])
        #expect(description.layout == layout)
    }

    @Test func `two spellings of a name that Swift holds equal are two snapshots`() async throws {
        let site = Site()
        site.source.make(50_000)
        for (value, name) in [(1, "gr\u{F6}ße"), (2, "gro\u{308}ße")] as [(UInt8, String)] {
            site.source.write(value, 100, at: 0)
            site.source.takeSnapshot(name)
        }
        try #require(site.source.snapshots.count == 2)
        let holdings = Holdings(of: site.source)
        var options = Site.options
        options.verifies = true
        try await site.move(options)
        expect(site, holds: holdings)
    }

    @Test func `a volume that can't hold a state is read as it is`() async throws {
        let site = Site(source: Place(holdsSnapshots: false))
        site.source.make(100_000)
        site.source.write(1, 50_000, at: 20_000)
        let holdings = Holdings(of: site.source)
        var options = Site.options
        options.verifies = true
        try await site.move(options)
        expect(site, holds: holdings)
    }

    @Test func `a dry run shows what a move would do, and leaves nothing`() async throws {
        let site = Site(source: Self.sourceWithHistory())
        let (plan, refusal) = try await Preflight(
            Move(from: Site.sourceVolume(at: site.source), to: Site.targetVolume(at: site.target))
        ).plan()
        #expect(refusal == nil && plan.blockers.isEmpty)
        #expect(plan.steps.map(\.snapshot) == ["monday", "dienstag ☃ größe", "small", nil])
        #expect(plan.steps.map(\.sizeBytes) == [150_000, 150_000, 60_000, 200_512])
        #expect(plan.steps[0].dirtyBytes == 18 * 4096)
        #expect(site.transients.isEmpty && site.target.names.isEmpty)
    }

    @Test func `a dry run names what stands against a move`() async throws {
        let site = Site(source: Self.sourceWithHistory(), target: Place(holdsSnapshots: false))
        let (plan, refusal) = try await Preflight(
            Move(from: Site.sourceVolume(at: site.source), to: Site.targetVolume(at: site.target))
        ).plan()
        #expect(plan.blockers.map(\.fact) == ["memory:target can't hold snapshots"])
        #expect(refusal?.kind == .noTarget)
        // The same stops a real run before anything is made.
        await #expect { try await site.move() } throws: { ($0 as? MoveError)?.kind == .noTarget }
        #expect(site.transients.isEmpty && site.target.names.isEmpty)
    }

    // MARK: While somebody writes

    @Test func `what is written meanwhile becomes one more step`() async throws {
        let site = Site(source: Self.sourceWithHistory())
        let report = try await site.move(
            targetFault: before("write", number: 5) {
                site.source.write(7, 3_000, at: 100_000)
                site.source.zero(70_000, at: 0)
            })
        expect(site, holds: Holdings(of: site.source))
        #expect(report.steps.map(\.snapshot) == ["monday", "dienstag ☃ größe", "small", nil, nil])
    }

    @Test func `a size that changes meanwhile is caught up`() async throws {
        for size in [30_000, 500_000] {
            let site = Site(source: Self.sourceWithHistory())
            try await site.move(targetFault: before("write", number: 5) { site.source.resize(size) })
            expect(site, holds: Holdings(of: site.source))
        }
    }

    @Test func `a snapshot that is taken meanwhile is carried`() async throws {
        for writes in [false, true] {
            let site = Site(source: Self.sourceWithHistory())
            try await site.move(
                targetFault: before("write", number: 5) {
                    if writes { site.source.write(7, 3_000, at: 100_000) }
                    site.source.takeSnapshot("meanwhile")
                    if writes { site.source.write(8, 3_000, at: 50_000) }
                })
            expect(site, holds: Holdings(of: site.source))
            #expect(Holdings(of: site.target).snapshots.count == 4)
        }
    }

    @Test func `a snapshot that is taken just before the source is frozen is carried`() async throws {
        for number in 1...2 {
            let site = Site(source: Self.sourceWithHistory())
            try await site.move(
                sourceFault: before("freeze", number: number) { site.source.takeSnapshot("just before") },
                // So that it is frozen once more.
                targetFault: before("write", number: 5) { site.source.write(7, 3_000, at: 100_000) })
            expect(site, holds: Holdings(of: site.source))
            #expect(Holdings(of: site.target).snapshots.count == 4, "before freeze \(number)")
        }
    }

    @Test func `a volume that can't hold a state and was written meanwhile is not finished`() async throws {
        let site = Site(source: Place(holdsSnapshots: false))
        site.source.make(100_000)
        site.source.write(1, 50_000, at: 20_000)
        await #expect {
            try await site.move(targetFault: before("write") { site.source.write(2, 10, at: 0) })
        } throws: {
            ($0 as? MoveError)?.kind == .noTarget
        }
        #expect(site.target.names == ["record", "unfinished"] || site.target.names == ["unfinished", "record"])
    }

    // MARK: The pace

    @Test func `a bandwidth is kept`() async throws {
        let site = Site()
        site.source.make(4 << 20)
        site.source.write(1, 4 << 20, at: 0)
        let holdings = Holdings(of: site.source)
        var options = MoveOptions()
        options.bandwidth = ByteRate(bytesPerSecond: 8 << 20)
        let report = try await site.move(options)
        expect(site, holds: holdings)
        // Half a second; a busy machine may take much longer.
        #expect(report.seconds > 0.35 && report.seconds < 60)
    }
}
