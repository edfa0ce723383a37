import Conformance
import NIOCore
import Synchronization
import Testing
import Volumes

@testable import NBDProtocol
@testable import NBDVolumes

/// What a target is that has nothing but bytes.
struct TargetTests {
    static func description(_ count: Int, metadata: Metadata = [:]) -> VolumeDescription {
        VolumeDescription(identity: "made for a test", size: count.count, metadata: metadata)
    }

    static func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

    func target(_ server: FakeServer, holding: NBDTarget.Holding = .zeros) async throws -> NBDTarget {
        try await NBDTarget.connect(to: server.address, holding: holding)
    }

    @Test func `zeros are nothing, and anything else is somebody's`() async throws {
        try await withServer(Self.zeros(1 << 20)) { server in
            let target = try await target(server)
            #expect(try await target.state() == .absent)
            #expect(try await target.obstacles(to: Self.description(1 << 20), room: .zero).isEmpty)
            server.bytes.withLock { $0[(1 << 20) - 1] = 1 }
            #expect(try await target.state() == .foreign)
            let obstacles = try await target.obstacles(to: Self.description(1 << 20), room: .zero)
            #expect(obstacles.map(\.kind) == [.exists])
            #expect(obstacles.first?.remedy.contains("--overwrite") == true)
            let willing = try await self.target(server, holding: .anything)
            #expect(try await willing.state() == .absent)
            #expect(try await willing.obstacles(to: Self.description(1 << 20), room: .zero).isEmpty)
            #expect(server.bytes.withLock { $0[(1 << 20) - 1] } == 1, "looking changes nothing")
        }
    }

    @Test func `where the server can't tell, it may hold data`() async throws {
        var script = FakeServer.Script()
        script.contexts = []
        try await withServer(Self.zeros(1 << 16), script) { server in
            let (careful, willing) = (try await target(server), try await target(server, holding: .anything))
            #expect(try await careful.state() == .foreign)
            #expect(try await willing.state() == .absent)
        }
    }

    @Test func `what stands against it is found beforehand`() async throws {
        var script = FakeServer.Script()
        script.flags = [.readOnly]
        try await withServer(Self.zeros(1 << 16), script) { server in
            let target = try await target(server)
            var description = Self.description(1 << 17)
            description.snapshots = [Snapshot(id: 1, name: "monday", size: .kibibytes(64))]
            let found = try await target.obstacles(to: description, room: .zero)
            #expect(found.map(\.kind) == [.forbidden, .unsupported, .unsupported])
            #expect(found.last?.fact.contains("65536 bytes, fewer than the source's 131072") == true)
        }
    }

    @Test func `what it can't hold is said`() async throws {
        var script = FakeServer.Script()
        script.flags = []
        try await withServer(Self.zeros(1 << 16), script) { server in
            let losses = try await target(server).losses(from: Self.description(4096, metadata: ["a": "b"]))
            #expect(losses.map { $0.prefix { $0 != " " && $0 != ":" } } == ["the", "the", "certainty"])
        }
        try await withServer(Self.zeros(1 << 16)) { server in
            let target = try await target(server)
            #expect(target.losses(from: Self.description(1 << 16)).isEmpty)
        }
    }

    @Test func `all that it held is gone before anything is written`() async throws {
        for flags in [[.flush, .writeZeroes], [.flush]] as [TransmissionFlags] {
            var script = FakeServer.Script()
            script.flags = flags
            var random = SplitMix64(seed: 1)
            try await withServer(random.bytes(3 << 20), script) { server in
                let target = try await target(server, holding: .anything)
                try await target.make(as: Self.description(1 << 20), record: "r")
                #expect(server.bytes.withLock { $0.isZeros })
                guard case .flush? = server.requests.last?.command else {
                    Issue.record("it isn't durable")
                    return
                }
            }
        }
    }

    @Test func `the first bytes are on the server only once all others are, and durable`() async throws {
        var random = SplitMix64(seed: 2)
        let model = random.bytes(3 << 20)
        try await withServer(Self.zeros(4 << 20)) { server in
            let target = try await target(server)
            try await target.begin(model.count)
            try await target.write(model, at: 0)
            try await target.flush()
            let unfinished = server.bytes.withLock { $0 }
            #expect(unfinished[..<(1 << 20)].isZeros, "nobody takes it for a volume")
            #expect(unfinished[(1 << 20)..<model.count] == model[(1 << 20)...])
            #expect(try await target.open(.head).bytes(in: 0..<model.count) == model, "it can be compared before")
            let before = server.requests.count
            try await target.commit(as: Self.description(model.count))
            #expect(server.bytes.withLock { $0 } == model + Self.zeros(1 << 20))
            // Flush, all but the first block, flush, the first block, flush.
            var order = ""
            for request in server.requests[before...] {
                switch request.command {
                case .flush: order += "f"
                case .write(let extent): order += extent.offset == .zero ? "S" : "w"
                default: order += "?"
                }
            }
            #expect(order.wholeMatch(of: /fw+fSf/) != nil, "\(order)")
            #expect(server.requests.contains { $0.extent == Extent(offset: .zero, length: .kibibytes(4)) })
        }
    }

    @Test func `a commit that fails can be made again, and one that was made changes nothing`() async throws {
        let isBroken = Mutex(true)
        var script = FakeServer.Script()
        script.act = { request in
            if case .write(let extent) = request.command, extent.offset == .zero, isBroken.withLock({ $0 }) {
                return .fail(.noSpace, "")
            }
            return .obey
        }
        try await withServer(Self.zeros(1 << 20), script) { server in
            let target = try await target(server)
            try await target.begin(8192)
            try await target.write([1, 2, 3], at: 0)
            await #expect {
                try await target.commit(as: Self.description(8192))
            } throws: { ($0 as? VolumeError)?.kind == .full }
            #expect(try await target.state() == .unfinished(record: "r"))
            #expect(server.bytes.withLock { $0[0] } == 0)
            isBroken.withLock { $0 = false }
            try await target.commit(as: Self.description(8192))
            #expect(try await target.state() == .committed(record: "r"))
            #expect(server.bytes.withLock { Array($0[..<4]) } == [1, 2, 3, 0])
            let requests = server.requests.count
            try await target.commit(as: Self.description(8192))
            #expect(server.requests.count == requests)
            try await target.save(record: "after")
            #expect(try await target.state() == .committed(record: "after"))
            await #expect(throws: VolumeError.self) { try await target.discard() }
            try await target.forget()
            #expect(try await target.state() == .foreign)
        }
    }

    @Test func `a move that is given up leaves zeros`() async throws {
        try await withServer(Self.zeros(2 << 20)) { server in
            let target = try await target(server)
            try await target.begin(2 << 20)
            try await target.write([1, 2, 3], at: 1_500_000)
            await #expect(throws: VolumeError.self) { try await target.forget() }
            try await target.discard()
            #expect(server.bytes.withLock { $0.isZeros })
            #expect(try await target.state() == .absent)
            #expect(try await target.describe().size == .mebibytes(2))
        }
    }

    @Test func `what another process had begun is somebody's data`() async throws {
        try await withServer(Self.zeros(2 << 20)) { server in
            let first = try await target(server)
            try await first.begin(2 << 20)
            try await first.write([1, 2, 3], at: 1_500_000)
            try await first.flush()
            await first.close()
            #expect(try await target(server).state() == .foreign)
        }
    }

    @Test func `being stopped while it is made leaves it unmade`() async throws {
        try await withServer([UInt8](repeating: 7, count: 1 << 20)) { server in
            let target = try await NBDTarget.connect(to: server.address, holding: .anything, isStopped: { true })
            await #expect {
                try await target.make(as: Self.description(4096), record: "r")
            } throws: { ($0 as? VolumeError)?.kind == .busy }
            #expect(try await target.state() == .absent)
            #expect(server.bytes.withLock { $0.allSatisfy { $0 == 7 } })
        }
    }

    @Test(arguments: 1...60 as ClosedRange<UInt64>)
    func `what is kept back is what an array would hold`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let size = Int.random(in: 1...3 << 20, using: &random)
        var withheld = Withheld(ofExport: size.count)
        let held = min(size, 1 << 20)
        var model = Self.zeros(size)
        for _ in 0..<20 {
            let start = Int.random(in: 0..<size, using: &random)
            let range = start..<min(size, start + Int.random(in: 0...200_000, using: &random))
            let extent = Extent(from: ByteOffset(UInt64(range.lowerBound)), to: ByteOffset(UInt64(range.upperBound)))
            let rest: Extent
            if Bool.random(using: &random) {
                let bytes = random.bytes(range.count)
                model.replaceSubrange(range, with: bytes)
                rest = unsafe bytes.withUnsafeBytes { unsafe withheld.write($0, at: extent.offset) }
            } else {
                model.replaceSubrange(range, with: Self.zeros(range.count))
                rest = withheld.zero(extent)
            }
            let beyond = range.clamped(to: held..<max(held, size))
            #expect(rest.length.bytes == UInt64(beyond.count))
            if !beyond.isEmpty { #expect(rest.offset.bytes == UInt64(beyond.lowerBound)) }
        }
        var found = [UInt8](repeating: 0xA5, count: size)
        let rest = unsafe found.withUnsafeMutableBytes { unsafe withheld.read(into: $0, at: .zero) }
        #expect(rest.length.bytes == UInt64(size - held))
        #expect(found[..<held] == model[..<held])
        #expect(found[held...].allSatisfy { $0 == 0xA5 })
        let releases = withheld.releases.flatMap(\.self)
        #expect(ExtentSet(releases) == withheld.data)
        #expect(withheld.releases[1].allSatisfy { $0.offset == .zero && $0.length <= zeroBlock })
    }
}
