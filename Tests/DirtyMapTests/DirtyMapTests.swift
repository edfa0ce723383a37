import DirtyMap
import Testing
import Volumes

struct DirtyMapTests {
    private let smallest = Granularity(Granularity.smallest)!
    private let largest = Granularity(Granularity.largest)!

    private func extent(_ start: UInt64, _ end: UInt64) -> Extent {
        Extent(from: ByteOffset(start), to: ByteOffset(end))
    }

    @Test func `an empty volume is clean and stays so`() {
        let map = DirtyMap(size: .zero, granularity: .standard)
        map.mark(extent(0, 0))
        #expect(map.isClean)
        #expect(map.dirtyBytes == .zero)
        #expect(map.memory == .zero)
        #expect(map.take(from: .zero, limit: .mebibytes(1)) == nil)
        #expect(Array(map.runs()) == [])
    }

    @Test func `a volume of one byte has one chunk of one byte`() {
        for granularity in [smallest, largest] {
            let map = DirtyMap(size: ByteCount(1), granularity: granularity)
            map.mark(extent(0, 1))
            #expect(map.dirtyBytes == ByteCount(1))
            #expect(map.take(from: .zero, limit: granularity.size) == extent(0, 1))
            #expect(map.isClean)
        }
    }

    @Test func `an extent without bytes marks nothing`() {
        let map = DirtyMap(size: .mebibytes(1), granularity: .standard)
        map.mark(extent(0, 0))
        map.mark(extent(1 << 20, 1 << 20))
        #expect(map.isClean)
    }

    @Test func `one byte makes its whole chunk dirty and two bytes may make two`() {
        let map = DirtyMap(size: .mebibytes(1), granularity: .standard)
        map.mark(extent(65535, 65536))
        #expect(Array(map.runs()) == [extent(0, 65536)])
        map.mark(extent(131071, 131073))
        #expect(Array(map.runs()) == [extent(0, 196608)])
    }

    @Test func `the last chunk ends where the volume does`() {
        let size = (1 << 20) + 512 as UInt64
        let map = DirtyMap(size: ByteCount(size), granularity: .standard)
        map.mark(extent(size - 1, size))
        #expect(map.dirtyBytes == ByteCount(512))
        #expect(map.nextRun(from: .zero, limit: .mebibytes(4)) == extent(1 << 20, size))
        map.clear(extent(1 << 20, size))
        #expect(map.isClean)
    }

    @Test func `a run is no longer than the limit and the rest stays dirty`() {
        let map = DirtyMap(size: .mebibytes(64), granularity: .standard)
        map.mark(extent(0, 64 << 20))
        // A limit that is no whole number of chunks counts as the chunks it holds.
        #expect(map.take(from: .zero, limit: ByteCount(3 * 65536 + 1)) == extent(0, 3 * 65536))
        #expect(map.take(from: .zero, limit: .mebibytes(16)) == extent(3 * 65536, (16 << 20) + 3 * 65536))
        #expect(map.dirtyBytes == ByteCount((48 << 20) - 3 * 65536))
    }

    @Test func `a run crosses no boundary, also one that is no power of two`() {
        let map = DirtyMap(size: .mebibytes(64), granularity: .standard)
        map.mark(extent(2 << 20, 11 << 20))
        let boundary = ByteCount.mebibytes(4)
        #expect(map.take(from: .zero, limit: .mebibytes(64), boundary: boundary) == extent(2 << 20, 4 << 20))
        #expect(map.take(from: .zero, limit: .mebibytes(64), boundary: boundary) == extent(4 << 20, 8 << 20))
        #expect(map.take(from: .zero, limit: .mebibytes(64), boundary: boundary) == extent(8 << 20, 11 << 20))
        map.mark(extent(0, 10 * 65536))
        #expect(
            map.nextRun(from: ByteOffset(2 * 65536), limit: .mebibytes(64), boundary: ByteCount(3 * 65536))
                == extent(2 * 65536, 3 * 65536))
    }

    @Test func `a take starts at the offset even inside a run`() {
        let map = DirtyMap(size: .mebibytes(64), granularity: .standard)
        map.mark(extent(0, 64 << 20))
        #expect(map.take(from: ByteOffset(32 << 20), limit: .mebibytes(4)) == extent(32 << 20, 36 << 20))
        #expect(map.nextRun(from: ByteOffset(32 << 20), limit: .mebibytes(4)) == extent(36 << 20, 40 << 20))
        #expect(map.take(from: ByteOffset(64 << 20), limit: .mebibytes(4)) == nil)
        #expect(map.take(from: ByteOffset(.max), limit: .mebibytes(4)) == nil)
    }

    @Test func `a run that was not copied goes back by marking it`() {
        let map = DirtyMap(size: .mebibytes(64), granularity: .standard)
        map.mark(extent(5 << 20, 9 << 20))
        let run = map.take(from: .zero, limit: .mebibytes(64))!
        #expect(map.isClean)
        map.mark(run)
        #expect(Array(map.runs()) == [run])
    }

    @Test func `runs of a full map are one run over all words`() {
        for chunks in [63, 64, 65, 4095, 4096, 4097, 262143, 262145] as [UInt64] {
            let size = chunks * 4096 - 1
            let map = DirtyMap(size: ByteCount(size), granularity: smallest)
            map.mark(extent(0, size))
            #expect(Array(map.runs()) == [extent(0, size)])
            #expect(map.dirtyBytes == ByteCount(size))
        }
    }

    @Test func `one dirty chunk is found wherever it is, and again after it was taken`() {
        let map = DirtyMap(size: .gibibytes(8), granularity: smallest)
        for chunk in [0, 63, 64, 4095, 4096, 262143, 262144, 262145, 1 << 20, (2 << 20) - 1] as [UInt64] {
            let dirty = extent(chunk << 12, (chunk + 1) << 12)
            for _ in 0..<3 {
                map.mark(dirty)
                #expect(map.take(from: .zero, limit: .mebibytes(4)) == dirty)
                #expect(map.take(from: .zero, limit: .mebibytes(4)) == nil)
            }
        }
    }

    @Test func `memory is two mebibytes and a bit for a tebibyte by 64 KiB`() {
        let map = DirtyMap(size: .gibibytes(1024), granularity: .standard)
        #expect(map.memory == ByteCount((2 << 20) + (32 << 10) + 512))
    }

    @Test func `marking past the end is a bug in the caller`() async {
        await #expect(processExitsWith: .failure) {
            let map = DirtyMap(size: .mebibytes(1), granularity: .standard)
            map.mark(Extent(offset: ByteOffset(1 << 20), length: ByteCount(1)))
        }
    }

    @Test func `clearing a part of a chunk is a bug in the caller`() async {
        await #expect(processExitsWith: .failure) {
            let map = DirtyMap(size: .mebibytes(1), granularity: .standard)
            map.clear(Extent(offset: .zero, length: ByteCount(65535)))
        }
    }

    @Test func `taking less than a chunk is a bug in the caller`() async {
        await #expect(processExitsWith: .failure) {
            let map = DirtyMap(size: .mebibytes(1), granularity: .standard)
            map.mark(Extent(offset: .zero, length: ByteCount(1)))
            _ = map.take(from: .zero, limit: ByteCount(4096))
        }
    }

    /// A search reads a word for each 262144 chunks and a few more, which is 4000 times less than every word. Compared
    /// with reading them all, and not with the clock, so that it holds on a slow machine and in any build.
    @Test(arguments: [
        (ByteCount.gibibytes(16 << 10), Granularity.standard), (.gibibytes(1 << 20), Granularity(Granularity.largest)!),
    ])
    func `finding one dirty chunk does not cost by the size of the map`(size: ByteCount, granularity: Granularity) {
        let map = DirtyMap(size: size, granularity: granularity)
        let last = Extent(from: ByteOffset(size.bytes - granularity.size.bytes), to: ByteOffset(size.bytes))
        let searches = (0..<20).map { _ in
            map.mark(last)
            return ContinuousClock().measure {
                #expect(map.take(from: .zero, limit: granularity.size) == last)
                #expect(map.take(from: .zero, limit: granularity.size) == nil)
            }
        }
        let everyWord = ContinuousClock().measure { #expect(map.isClean) }
        #expect(searches.min()! * 20 < everyWord)
    }
}
