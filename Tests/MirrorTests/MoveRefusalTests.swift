import Mirror
import Testing
import Volumes

/// What a move doesn't touch, and what it says then.
struct MoveRefusalTests {
    private func kind(_ body: () async throws(MoveError) -> Void) async -> MoveError.Kind? {
        do throws(MoveError) {
            try await body()
            return nil
        } catch {
            return error.kind
        }
    }

    /// A move that was stopped in the middle.
    private func stopped(_ options: MoveOptions = Site.options) async throws -> Site {
        let site = Site(source: MoveTests.sourceWithHistory())
        let stop = StopRequest()
        let outcome = await kind { () throws(MoveError) in
            try await site.move(options, targetFault: before("keep", number: 2) { stop.ask() }, stop: stop)
        }
        try #require(outcome == .resumable)
        return site
    }

    @Test func `a volume that Godwit did not begin is never touched`() async {
        let site = Site(source: MoveTests.sourceWithHistory())
        site.target.make(5_000)
        site.target.write(9, 5_000, at: 0)
        let before = Holdings(of: site.target)
        #expect(await kind { () throws(MoveError) in try await site.move() } == .noTarget)
        #expect(await kind { () throws(MoveError) in _ = try await site.abort() } == .noTarget)
        #expect(site.target.names == ["finished"])
        #expect(Holdings(of: site.target).head == before.head)
        #expect(site.transients.isEmpty)
    }

    @Test func `a finished target is not moved into again`() async throws {
        let site = Site(source: MoveTests.sourceWithHistory())
        try await site.move()
        let holdings = Holdings(of: site.source)
        site.source.write(9, 100, at: 0)
        #expect(await kind { () throws(MoveError) in try await site.move() } == .noTarget)
        #expect(await kind { () throws(MoveError) in _ = try await site.abort() } == .noTarget)
        #expect(holdings.differences(at: site) == [])
    }

    @Test func `another source does not go on with an unfinished target`() async throws {
        let site = try await stopped()
        let before = Holdings(of: site.target)
        let other = Place()
        other.make(150_000)
        let outcome = await kind { () throws(MoveError) in
            _ = try await Move(
                from: MemoryVolume(at: other, address: "memory:other"), to: Site.targetVolume(at: site.target),
                options: Site.options
            ).run()
        }
        #expect(outcome == .noTarget)
        #expect(Holdings(of: site.target).head == before.head && site.target.names.contains("unfinished"))
        #expect(other.snapshots.isEmpty)
    }

    @Test func `another volume of the source's name does not go on with it either`() async throws {
        let site = try await stopped()
        site.source.remove()
        site.source.make(150_000)
        #expect(await kind { () throws(MoveError) in try await site.move() } == .noTarget)
        #expect(site.transients.isEmpty)
    }

    @Test func `a move goes on with the choice of snapshots that it began with`() async throws {
        let site = try await stopped()
        var options = Site.options
        options.snapshots = .none
        #expect(await kind { () throws(MoveError) in try await site.move(options) } == .usage)
        try await site.move()
        #expect(Holdings(of: site.source).differences(at: site) == [])
    }

    @Test func `a record that can't be read is left alone`() async throws {
        for record in ["rubbish", #"{"version":2}"#] {
            let site = try await stopped()
            try await Site.targetVolume(at: site.target).save(record: record)
            #expect(await kind { () throws(MoveError) in try await site.move() } == .noTarget)
            #expect(await kind { () throws(MoveError) in _ = try await site.abort() } == .noTarget)
            #expect(site.target.names.contains("unfinished"))
        }
    }

    @Test func `two runs of one move do not disturb each other`() async throws {
        let site = try await stopped()
        let first = Site.targetVolume(at: site.target)
        try await first.own()
        #expect(await kind { () throws(MoveError) in try await site.move() } == .resumable)
        await first.close()
        try await site.move()
        #expect(Holdings(of: site.source).differences(at: site) == [])
    }

    @Test func `no source is no source, and nothing is made`() async {
        let site = Site()
        #expect(await kind { () throws(MoveError) in try await site.move() } == .noSource)
        #expect(site.target.names.isEmpty)
    }

    @Test func `a snapshot that was kept, and is gone from the source, goes from the target`() async throws {
        let site = try await stopped()
        site.source.removeSnapshot("monday")
        try await site.move()
        #expect(Holdings(of: site.source).differences(at: site) == [])
    }

    @Test func `a snapshot of the unfinished target that isn't the move's is never touched`() async throws {
        let site = try await stopped()
        site.target.takeSnapshotOfUnfinished("mine")
        #expect(await kind { () throws(MoveError) in try await site.move() } == .resumable)
        #expect(site.target.names.contains("unfinished"))
    }

    @Test func `a changed volume that can't hold a state is not gone on with blindly`() async throws {
        let site = Site(source: Place(holdsSnapshots: false))
        site.source.make(100_000)
        site.source.write(1, 10_000, at: 20_000)
        site.source.write(1, 10_000, at: 60_000)
        let stop = StopRequest()
        let outcome = await kind { () throws(MoveError) in
            try await site.move(targetFault: before("write") { stop.ask() }, stop: stop)
        }
        try #require(outcome == .resumable)
        site.source.zero(10_000, at: 20_000)
        site.source.write(3, 100, at: 95_000)
        // Either it is refused, or all of it is looked at again.
        do throws(MoveError) {
            try await site.move()
            #expect(Holdings(of: site.source).differences(at: site) == [])
        } catch {
            #expect(error.kind == .noTarget)
            #expect(!site.target.names.contains("finished"))
        }
    }

    // MARK: Giving a move up

    @Test func `aborting removes the target and what was left on the source`() async throws {
        let site = try await stopped()
        try #require(!site.transients.isEmpty)
        let holdings = Holdings(of: site.source)
        #expect(try await site.abort().source == "memory:source")
        #expect(site.target.names.isEmpty && site.transients.isEmpty)
        #expect(await kind { () throws(MoveError) in _ = try await site.abort() } == .noSource)
        // And it can begin anew.
        try await site.move()
        #expect(holdings.differences(at: site) == [])
    }

    @Test func `aborting when the source is gone removes the target`() async throws {
        let site = try await stopped()
        let outcome = await kind { () throws(MoveError) in
            _ = try await Abort(of: Site.targetVolume(at: site.target)) { address throws(VolumeError) in
                throw VolumeError(.missing, "rbd_open", on: address, reason: "No such file or directory")
            }.run()
        }
        #expect(outcome == nil)
        #expect(site.target.names.isEmpty)
    }

    @Test func `aborting when the source doesn't answer keeps the record of what to remove there`() async throws {
        let site = try await stopped()
        let outcome = await kind { () throws(MoveError) in
            _ = try await Abort(of: Site.targetVolume(at: site.target)) { address throws(VolumeError) in
                throw VolumeError(.unreachable, "rados_connect", on: address, reason: "Connection timed out")
            }.run()
        }
        #expect(outcome == .resumable)
        #expect(try await site.unrecordedTransients() == [])
        _ = try await site.abort()
        #expect(site.target.names.isEmpty && site.transients.isEmpty)
    }

    @Test func `a move that is running is not aborted from under itself`() async throws {
        let site = try await stopped()
        let running = Site.targetVolume(at: site.target)
        try await running.own()
        #expect(await kind { () throws(MoveError) in _ = try await site.abort() } == .resumable)
        #expect(!site.transients.isEmpty && site.target.names.contains("unfinished"))
    }
}
