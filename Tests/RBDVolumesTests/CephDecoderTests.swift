import RBDVolumes
import Testing

/// What Ceph encodes is read, and what isn't that is refused without harm.
struct CephDecoderTests {
    private typealias Malformed = CephDecoder.Malformed

    @Test func `integers are little-endian`() throws {
        var decoder = CephDecoder([0x01, 0x02, 0xFF, 0x04, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
        #expect(try decoder.integer(UInt16.self) == 0x0201)
        #expect(try decoder.integer(UInt8.self) == 0xFF)
        #expect(try decoder.integer(UInt32.self) == 4)
        #expect(try decoder.integer(Int64.self) == -2)
        #expect(throws: Malformed.self) { _ = try decoder.integer(UInt8.self) }
    }

    @Test func `strings, lists and what may be missing`() throws {
        var bytes = CephEncoder.integer(UInt32(2)) + CephEncoder.string("a") + CephEncoder.string("…")
        bytes += [0, 1] + CephEncoder.integer(UInt64(7))
        var decoder = CephDecoder(bytes)
        #expect(try decoder.list { decoder throws(CephDecoder.Malformed) in try decoder.string() } == ["a", "…"])
        let none = try decoder.optional { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt64.self) }
        let some = try decoder.optional { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt64.self) }
        #expect(none == nil)
        #expect(some == 7)
    }

    @Test func `what a newer version added is skipped`() throws {
        var decoder = CephDecoder([2, 1] + CephEncoder.integer(UInt32(5)) + [9, 1, 2, 3, 4] + [42])
        #expect(try decoder.structure { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt8.self) } == 9)
        #expect(try decoder.integer(UInt8.self) == 42)
    }

    @Test func `a length beyond the end is refused`() {
        var string = CephDecoder(CephEncoder.integer(UInt32.max) + [1, 2])
        #expect(throws: Malformed.self) { _ = try string.string() }
        var list = CephDecoder(CephEncoder.integer(UInt32.max) + [1, 2])
        #expect(throws: Malformed.self) {
            _ = try list.list { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt8.self) }
        }
        var structure = CephDecoder([1, 1] + CephEncoder.integer(UInt32(9)) + [0])
        #expect(throws: Malformed.self) {
            _ = try structure.structure { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt8.self) }
        }
    }

    /// Fields of a structure end with it, though more bytes follow.
    @Test func `a field beyond its structure is refused`() {
        var decoder = CephDecoder([1, 1] + CephEncoder.integer(UInt32(1)) + [7, 8, 9, 10])
        #expect(throws: Malformed.self) {
            _ = try decoder.structure { decoder throws(CephDecoder.Malformed) in try decoder.integer(UInt32.self) }
        }
    }
}
