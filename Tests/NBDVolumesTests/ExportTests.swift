import Conformance
import NIOCore
import Synchronization
import Testing
import Volumes

@testable import NBDProtocol
@testable import NBDVolumes

struct ExportTests {
    func random(_ count: Int) -> [UInt8] {
        var random = SplitMix64(seed: UInt64(count))
        return random.bytes(count)
    }

    func read(_ export: NBDExport, _ range: Range<Int>) async throws -> [UInt8] {
        try await NBDReader(export).bytes(in: range)
    }

    func write(_ export: NBDExport, _ bytes: [UInt8], at offset: Int) async throws(VolumeError) {
        unsafe try await withIOBuffer(of: bytes.count.count) { buffer throws(VolumeError) in
            unsafe buffer.copyBytes(from: bytes)
            unsafe try await export.write(UnsafeRawBufferPointer(buffer), at: ByteOffset(UInt64(offset)))
        }
    }

    @Test func `several connections are made where the server says that they are one, and one otherwise`() async throws
    {
        var script = FakeServer.Script()
        try await withServer(random(4096), script) { server in
            let export = try await NBDExport.connect(to: server.address)
            #expect(export.connectionCount == 1)
        }
        script.flags.insert(.multiConn)
        try await withServer(random(1 << 16), script) { server in
            let export = try await NBDExport.connect(to: server.address)
            #expect(export.connectionCount == 4)
            for _ in 0..<8 { _ = try await read(export, 0..<4096) }
        }
        script.mostConnections = 2
        try await withServer(random(4096), script) { server in
            let export = try await NBDExport.connect(to: server.address)
            #expect(export.connectionCount == 2)
            for _ in 0..<8 { #expect(try await read(export, 0..<4096) == random(4096)) }
        }
    }

    @Test func `whoever lets go of an export takes leave of the server`() async throws {
        var script = FakeServer.Script()
        script.flags.insert(.multiConn)
        try await withServer(random(4096), script) { server in
            do {
                let export = try await NBDExport.connect(to: server.address)
                #expect(server.seen.withLock { $0.open } == export.connectionCount)
            }
            for _ in 0..<5000 where server.seen.withLock({ $0.open }) > 0 {
                try await Task.sleep(for: .milliseconds(1))
            }
            #expect(server.seen.withLock { $0.open } == 0)
            #expect(server.seen.withLock { $0.goodbyes } == 4)
        }
    }

    @Test func `more than may be in flight waits, and all of it is answered`() async throws {
        let bytes = random(1 << 20)
        var script = FakeServer.Script()
        script.act = { _ in .answerLate(.milliseconds(5)) }
        try await withServer(bytes, script) { server in
            let export = try await NBDExport.connect(to: server.address)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<200 {
                    group.addTask {
                        let range = index * 4096..<(index + 1) * 4096
                        let found = try await read(export, range)
                        #expect(found == Array(bytes[range]))
                    }
                }
                try await group.waitForAll()
            }
            #expect(server.requests.count == 200)
        }
    }

    @Test func `requests are no longer than the server takes, and in whole blocks`() async throws {
        var script = FakeServer.Script()
        script.blockSizes = BlockSizes(minimum: 4096, preferred: 4096, maximumPayload: 16_384)!
        var model = random(1 << 18)
        try await withServer(model, script) { server in
            let export = try await NBDExport.connect(to: server.address)
            #expect(try await read(export, 0..<model.count) == model)
            let bytes = random(100_001)
            try await write(export, bytes, at: 5001)
            model.replaceSubrange(5001..<5001 + bytes.count, with: bytes)
            try await export.zero(Extent(offset: ByteOffset(200_001), length: ByteCount(20_001)))
            model.replaceSubrange(200_001..<220_002, with: repeatElement(0, count: 20_001))
            #expect(try await read(export, 0..<model.count) == model)
            #expect(try await read(export, 1..<2) == [model[1]])
            #expect(server.bytes.withLock { $0 } == model)
            for request in server.requests {
                guard let extent = request.extent else { continue }
                #expect(extent.offset.bytes % 4096 == 0 && extent.length.bytes % 4096 == 0)
                switch request.command {
                case .read, .write: #expect(extent.length.bytes <= 16_384)
                default: break
                }
            }
        }
    }

    @Test func `two who write parts of one block both do`() async throws {
        var script = FakeServer.Script()
        script.flags.insert(.multiConn)
        script.blockSizes = BlockSizes(minimum: 4096, preferred: 4096, maximumPayload: 1 << 20)!
        script.act = { _ in .answerLate(.milliseconds(2)) }
        let model = random(8192)
        try await withServer([UInt8](repeating: 0, count: 8192), script) { server in
            let export = try await NBDExport.connect(to: server.address)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for place in stride(from: 0, to: 8192, by: 512) {
                    group.addTask { try await write(export, Array(model[place..<place + 512]), at: place) }
                }
                try await group.waitForAll()
            }
            #expect(server.bytes.withLock { $0 } == model)
        }
    }

    @Test func `zeros are made by the server where it can, written where it can't, and never by TRIM`() async throws {
        for flags in [[.trim, .writeZeroes], [.trim], []] as [TransmissionFlags] {
            var script = FakeServer.Script()
            script.flags = flags
            try await withServer(random(3 << 20), script) { server in
                let export = try await NBDExport.connect(to: server.address)
                try await export.zero(Extent(offset: .zero, length: .mebibytes(3)))
                #expect(server.bytes.withLock { $0.isZeros })
                for request in server.requests {
                    switch request.command {
                    case .writeZeroes: #expect(flags.contains(.writeZeroes))
                    case .write: #expect(!flags.contains(.writeZeroes))
                    default: Issue.record("\(request)")
                    }
                }
            }
        }
    }

    @Test func `the status of many runs is asked for until all of it is there`() async throws {
        var script = FakeServer.Script()
        // One descriptor in each answer.
        script.act = { request in
            guard case .blockStatus(let extent, let contexts) = request.command else { return .obey }
            return .say { request, encoder in
                let flags = extent.offset.bytes / 8192 % 2 == 0 ? BlockStatus.zero : BlockStatus.hole
                let status = BlockStatus(length: ByteCount(8192), flags: flags)
                return encoder.status(request, [contexts[0].id: [status]])
            }
        }
        try await withServer(random(1 << 16), script) { server in
            let export = try await NBDExport.connect(to: server.address)
            let data = try await export.data(in: Extent(offset: .zero, length: .kibibytes(64)))
            // A hole that isn't said to be zeros counts as data.
            let expected = stride(from: UInt64(8192), to: 65_536, by: 16_384).map {
                Extent(offset: ByteOffset($0), length: ByteCount(8192))
            }
            #expect(data.extents == expected)
            let part = try await export.data(in: Extent(from: ByteOffset(9000), to: ByteOffset(9001)))
            #expect(part.extents == [Extent(from: ByteOffset(9000), to: ByteOffset(9001))])
        }
    }

    @Test func `a server without block status may hold data anywhere`() async throws {
        var script = FakeServer.Script()
        script.contexts = []
        try await withServer([UInt8](repeating: 0, count: 1 << 16), script) { server in
            let reader = try await NBDSource.connect(to: server.address).open(.head)
            #expect(reader.means == .everything)
            #expect(
                try await reader.extents(in: Extent(offset: .zero, length: .kibibytes(64)), since: nil).total
                    == .kibibytes(64))
        }
        try await withServer([UInt8](repeating: 0, count: 1 << 16)) { server in
            let reader = try await NBDSource.connect(to: server.address).open(.head)
            #expect(reader.means == .blockStatus)
            #expect(try await reader.extents(in: Extent(offset: .zero, length: .kibibytes(64)), since: nil).isEmpty)
        }
    }

    @Test func `what reaches beyond the end is refused before it is sent`() async throws {
        try await withServer(random(4096)) { server in
            let export = try await NBDExport.connect(to: server.address)
            await #expect { try await self.write(export, [1, 2], at: 4095) } throws: { error in
                (error as? VolumeError)?.kind == .full
            }
            #expect(server.requests.isEmpty)
        }
    }

    @Test func `older styles of replies do as well`() async throws {
        for (structured, extended) in [(false, false), (true, false), (true, true)] {
            var script = FakeServer.Script()
            script.policy = ServerPolicy(
                tls: .off, offersStructuredReplies: structured, offersExtendedHeaders: extended)
            let model = random(1 << 18)
            try await withServer(model, script) { server in
                let export = try await NBDExport.connect(to: server.address)
                #expect(export.knowsZeros == (structured || extended))
                #expect(try await read(export, 0..<model.count) == model)
                try await write(export, [1, 2, 3], at: 1000)
                try await export.flush()
                #expect(try await read(export, 999..<1004) == [model[999], 1, 2, 3, model[1003]])
            }
        }
    }
}
