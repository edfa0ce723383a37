import Conformance
import Testing
import Volumes

@Suite struct MemoryVolumeTests {
    private static let description = VolumeDescription(identity: "made for a test", size: ByteCount(20_000))

    @Test func `a planted error fails the operation before it takes effect, or loses its answer after`() async throws {
        let lost = VolumeError(.unreachable, "commit", on: "memory:volume", reason: "planted")
        let place = MemoryVolume.Place()
        let early = MemoryVolume(at: place) { operation, _ throws(VolumeError) in
            if operation == "commit" { throw lost }
        }
        try await early.make(as: Self.description, record: "r")
        try await early.own()
        await #expect(throws: lost) { try await early.commit(as: Self.description) }
        #expect(try await early.state() == .unfinished(record: "r"))
        await early.close()

        let late = MemoryVolume(at: place) { operation, _ throws(VolumeError) in
            if operation == "commit, done" { throw lost }
        }
        try await late.own()
        await #expect(throws: lost) { try await late.commit(as: Self.description) }
        #expect(try await late.state() == .committed(record: "r"))
    }

    @Test func `a planted error is told the extent`() async throws {
        let place = MemoryVolume.Place()
        place.make(size: ByteCount(20_000))
        let bad = VolumeError(.damaged, "read", on: "memory:volume", reason: "planted")
        let volume = MemoryVolume(at: place) { operation, extent throws(VolumeError) in
            if operation == "read", let extent, extent.offset <= ByteOffset(5000), ByteOffset(5000) < extent.end {
                throw bad
            }
        }
        let reader = try await volume.open(.head)
        #expect(try await reader.bytes(in: 0..<5000) == [UInt8](repeating: 0, count: 5000))
        await #expect(throws: bad) { _ = try await reader.bytes(in: 4000..<6000) }
        await reader.close()
    }

    @Test func `a crash loses what was not flushed, block by block, and the owner`() async throws {
        let place = MemoryVolume.Place()
        let first = MemoryVolume(at: place)
        try await first.make(as: Self.description, record: "r")
        try await first.own()
        try await first.write([UInt8](repeating: 1, count: 12_288), at: 0)
        try await first.flush()
        try await first.write([UInt8](repeating: 2, count: 12_288), at: 0)
        try await first.write([3], at: 16_384)
        place.crash { $0 == ByteOffset(4096) }
        let bytes = place.bytes()
        #expect([bytes[0], bytes[4096], bytes[8192], bytes[16_384]] == [1, 2, 1, 0])
        #expect(place.allocated == ByteCount(12_288))
        await #expect(
            performing: { try await first.write([4], at: 0) }, throws: { ($0 as? VolumeError)?.kind == .failed })
        let second = MemoryVolume(at: place)
        #expect(try await second.own(), "its owner has died")
        await second.close()
        #expect(try await !first.own(), "its owner let go of it")
        await first.close()
    }

    @Test func `differences are exact to a block`() async throws {
        let place = MemoryVolume.Place()
        place.make(size: .mebibytes(1))
        place.write([1, 2, 3], at: ByteOffset(100_000))
        let older = place.takeSnapshot("older")
        // The same bytes again are no difference.
        place.write([1, 2, 3], at: ByteOffset(100_000))
        place.write([9], at: ByteOffset(8191))
        let reader = try await MemoryVolume(at: place).open(.head)
        let all = Extent(offset: .zero, length: .mebibytes(1))
        let block = ByteCount(4096)
        #expect(
            try await reader.extents(in: all, since: older)
                == ExtentSet([Extent(offset: ByteOffset(4096), length: block)]))
        #expect(
            try await reader.extents(in: all, since: nil)
                == ExtentSet([
                    Extent(offset: ByteOffset(4096), length: block), Extent(offset: ByteOffset(98_304), length: block),
                ]))
        await reader.close()
    }
}
