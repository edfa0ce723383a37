import Mirror
import Testing
import Volumes

/// Moves that end before their end, and the same command again.
struct MoveInterruptionTests {
    private func error(_ body: () async throws(MoveError) -> Void) async -> MoveError? {
        do throws(MoveError) {
            try await body()
            return nil
        } catch {
            return error
        }
    }

    // MARK: Asked to stop

    @Test func `a stopped move goes on where it was`() async throws {
        let site = Site()
        site.source.make(8 << 20)
        for piece in 0..<4 { site.source.write(UInt8(piece + 1), 1 << 20, at: piece * 2 << 20) }
        site.source.takeSnapshot("s")
        site.source.write(9, 8 << 20, at: 0)
        let holdings = Holdings(of: site.source)
        let stop = StopRequest()
        // In the middle of the head, the second step.
        let stopped = await error { () throws(MoveError) in
            try await site.move(targetFault: before("write", number: 4 + 5) { stop.ask() }, stop: stop)
        }
        #expect(stopped?.kind == .resumable)
        #expect(stopped?.lines == ["stopped at head"])
        #expect(try await site.unrecordedTransients() == [])
        // And then its host goes down: what was noted as done was durable before.
        site.target.crash { _ in false }

        let report = try await site.move()
        #expect(holdings.differences(at: site) == [])
        #expect(report.resumed && report.snapshotsFoundFinished == 1)
        #expect(report.steps.map(\.snapshot) == [nil])
        // Five of the eight pieces stood there already.
        #expect(report.sentBytes == 3 << 20)
    }

    @Test func `where the state that a target was brought to is gone, only what differs is sent`() async throws {
        let site = Site()
        site.source.make(8 << 20)
        site.source.write(1, 3 << 20, at: 0)
        site.source.write(2, 1 << 20, at: 5 << 20)
        #expect(await error { () throws(MoveError) in try await site.move(targetFault: dying(at: "commit")) } != nil)
        site.target.crash()
        for name in site.transients { site.source.removeSnapshot(name) }
        // What has become data, a hole, other data, and what stays.
        site.source.write(3, 4096, at: 7 << 20)
        site.source.zero(1 << 20, at: 1 << 20)
        site.source.write(4, 100, at: 5 << 20)
        let holdings = Holdings(of: site.source)
        let report = try await site.move()
        #expect(holdings.differences(at: site) == [])
        #expect(report.sentBytes == 2 * 4096 && report.steps.map(\.zeroedBytes) == [1 << 20])
    }

    @Test func `a move that is asked to stop before it begins stops, and goes on`() async throws {
        let site = Site(source: MoveTests.sourceWithHistory())
        let holdings = Holdings(of: site.source)
        let stop = StopRequest()
        stop.ask()
        #expect(await error { () throws(MoveError) in try await site.move(stop: stop) }?.kind == .resumable)
        try await site.move()
        #expect(holdings.differences(at: site) == [])
    }

    @Test func `a stop while comparing does not finish the target`() async throws {
        let site = Site(source: MoveTests.sourceWithHistory())
        let holdings = Holdings(of: site.source)
        var options = Site.options
        options.verifies = true
        let (stop, lastStep) = (StopRequest(), Counter())
        let stopped = await error { () throws(MoveError) in
            try await site.move(
                options,
                targetFault: { (operation, _) throws(VolumeError) in
                    // Only comparing reads the target.
                    if operation == "open", lastStep.next() == 1 { stop.ask() }
                }, stop: stop)
        }
        #expect(stopped?.kind == .resumable)
        #expect(!site.target.names.contains("finished"))
        try await site.move(options)
        #expect(holdings.differences(at: site) == [])
    }

    // MARK: Ended anywhere

    @Test(arguments: Mishap.Kind.allCases, [false, true])
    func `ended at any operation, the same move again ends the same`(kind: Mishap.Kind, verifies: Bool) async throws {
        var options = Site.options
        options.verifies = verifies
        var place = 1
        while place < 1000 {
            let site = Site(source: MoveTests.sourceWithHistory())
            let holdings = Holdings(of: site.source)
            let mishap = Mishap(kind, at: place)
            let failure = await error { () throws(MoveError) in try await site.move(options, mishap) }
            guard mishap.hasHappened else {
                #expect(failure == nil)
                break
            }
            // What was not flushed may be lost or not, block by block: with the process, or with its host a little later.
            site.target.crash { $0.bytes / zeroBlock.bytes % 3 == UInt64(place % 3) }
            #expect(try await site.unrecordedTransients() == [], "\(kind) at operation \(place)")
            // Of the very last operation only the answer was lost.
            if failure != nil, site.target.names != ["finished"] {
                if let again = await error({ () throws(MoveError) in try await site.move(options) }) {
                    Issue.record("\(kind) at operation \(place): \(again)")
                }
            }
            #expect(holdings.differences(at: site) == [], "\(kind) at operation \(place)")
            place += 1
        }
        // So many operations a move has at the least: it was ended at each.
        #expect(place > 80 && place < 1000)
    }

    @Test(arguments: Mishap.Kind.allCases)
    func `ended at any operation, the move can be given up`(kind: Mishap.Kind) async throws {
        var place = 1
        while place < 1000 {
            let site = Site(source: MoveTests.sourceWithHistory())
            let mishap = Mishap(kind, at: place)
            _ = await error { () throws(MoveError) in try await site.move(Site.options, mishap) }
            guard mishap.hasHappened else { break }
            if kind == .death { site.target.crash() }
            switch try await Site.targetVolume(at: site.target).state() {
            case .unfinished:
                if let refusal = await error({ () throws(MoveError) in _ = try await site.abort() }) {
                    Issue.record("\(kind) at operation \(place): \(refusal)")
                }
                #expect(site.target.names.isEmpty && site.transients.isEmpty, "\(kind) at operation \(place)")
            case .absent: #expect(site.transients.isEmpty, "\(kind) at operation \(place)")
            case .committed, .foreign: #expect(site.target.names.contains("finished"))
            }
            place += 1
        }
        #expect(place > 80 && place < 1000)
    }

    @Test func `what was settled of one step says nothing of the next`() async throws {
        let site = Site()
        site.source.make(4 << 20)
        for value in 1...2 as ClosedRange<UInt8> {
            for place in 0..<3 { site.source.write(value, 10_000, at: place * 3 << 19) }
            if value == 1 { site.source.takeSnapshot("s") }
        }
        let holdings = Holdings(of: site.source)
        let stop = StopRequest()
        let ends: [(fault: MemoryVolume.Fault, where: String)] = [
            (before("write", number: 2) { stop.ask() }, "in the middle of the snapshot"),
            (failing(at: "keep, done"), "between keeping the snapshot and noting it"),
            (dying(at: "write"), "at the beginning of the head"),
        ]
        for (number, end) in ends.enumerated() {
            let failure = await error { () throws(MoveError) in
                try await site.move(targetFault: end.fault, stop: number == 0 ? stop : StopRequest())
            }
            #expect(failure?.kind == .resumable, "\(end.where)")
        }
        site.target.crash()
        try await site.move()
        #expect(holdings.differences(at: site) == [])
    }

    @Test func `a snapshot that was made and not protected yet is protected in the end`() async throws {
        let site = Site(source: MoveTests.sourceWithHistory())
        let holdings = Holdings(of: site.source)
        let failure = await error { () throws(MoveError) in
            try await site.move(throughTarget: { FaultyTarget($0, endsBeforeProtecting: true) })
        }
        #expect(failure?.kind == .resumable)
        try await site.move()
        #expect(holdings.differences(at: site) == [])
    }

    // MARK: Finished, and not tidied up after

    @Test(arguments: ["thaw", "thaw, done", "forget", "commit, done"])
    func `a committed move is tidied up after by the next run`(operation: String) async throws {
        let site = Site(source: MoveTests.sourceWithHistory())
        let holdings = Holdings(of: site.source)
        let failure = await error { () throws(MoveError) in
            try await site.move(sourceFault: failing(at: operation), targetFault: failing(at: operation))
        }
        #expect(failure?.kind == .resumable)
        #expect(site.target.names == ["finished", "record"])
        // The target is in use by now, and stays as it is.
        site.source.write(9, 100, at: 0)
        let report = try await site.move()
        #expect(report.outcome == .tidied && report.steps.isEmpty)
        #expect(holdings.differences(at: site) == [])
    }

    // MARK: Changed between two runs

    @Test func `a snapshot taken after a head that was half there goes before the next head`() async throws {
        let site = Site()
        site.source.make(100_000)
        site.source.write(1, 10_000, at: 0)
        site.source.write(1, 10_000, at: 50_000)
        let stop = StopRequest()
        let stopped = await error { () throws(MoveError) in
            try await site.move(targetFault: before("write") { stop.ask() }, stop: stop)
        }
        #expect(stopped?.kind == .resumable)
        // What the snapshot shows is gone again in the head.
        site.source.write(2, 10_000, at: 0)
        site.source.takeSnapshot("between")
        site.source.write(1, 10_000, at: 0)
        let holdings = Holdings(of: site.source)
        try await site.move()
        #expect(holdings.differences(at: site) == [])
    }

    @Test func `a head that is a snapshot taken meanwhile is compared with that`() async throws {
        let site = Site()
        site.source.make(100_000)
        site.source.write(1, 10_000, at: 0)
        site.source.write(1, 10_000, at: 50_000)
        var options = Site.options
        options.verifies = true
        let stop = StopRequest()
        let stopped = await error { () throws(MoveError) in
            try await site.move(options, targetFault: before("write") { stop.ask() }, stop: stop)
        }
        #expect(stopped?.kind == .resumable)
        site.source.write(2, 10_000, at: 0)
        site.source.takeSnapshot("last")
        let holdings = Holdings(of: site.source)
        try await site.move(options)
        #expect(holdings.differences(at: site) == [])
    }

    // MARK: Found different

    @Test func `a difference keeps the target from being finished, and is named`() async throws {
        let site = Site(source: MoveTests.sourceWithHistory())
        var options = Site.options
        options.verifies = true
        let failure = await error { () throws(MoveError) in
            try await site.move(options, throughTarget: { FaultyTarget($0, .dropsAWrite) })
        }
        #expect(failure?.kind == .differs)
        // The second write is the second step's first.
        #expect(failure?.lines.contains { $0.contains("dienstag ☃ größe: differs first at bytes 1000 to ") } == true)
        #expect(failure?.advice?.contains("godwit abort memory:target") == true)
        #expect(!site.target.names.contains("finished"))
        _ = try await site.abort()
        #expect(site.transients.isEmpty && site.target.names.isEmpty)
    }

    @Test func `without comparing, the same fault goes unnoticed`() async throws {
        let site = Site(source: MoveTests.sourceWithHistory())
        let holdings = Holdings(of: site.source)
        try await site.move(throughTarget: { FaultyTarget($0, .dropsAWrite) })
        #expect(!holdings.differences(at: site).isEmpty)
    }

    // MARK: Stops

    @Test func `what ends a move itself ends nothing wider`() {
        let wider = StopRequest()
        let (own, other) = (StopRequest(within: wider), StopRequest(within: wider))
        own.ask()
        #expect(own.isAsked && !wider.isAsked && !other.isAsked)
        wider.ask()
        #expect(other.isAsked)
    }
}
