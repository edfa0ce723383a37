import Testing
import Volumes

struct UnitsTests {
    @Test func `counts are named in powers of two`() {
        #expect(ByteCount.kibibytes(3).bytes == 3 * 1024)
        #expect(ByteCount.mebibytes(3).bytes == 3 * 1024 * 1024)
        #expect(ByteCount.gibibytes(3).bytes == 3 * 1024 * 1024 * 1024)
    }

    @Test func `counts and offsets add up`() {
        var count = ByteCount(5)
        count += ByteCount(7)
        count -= ByteCount(2)
        #expect(count == ByteCount(10))
        #expect(ByteOffset(3) + ByteCount(4) == ByteOffset(7))
        #expect(ByteOffset(7) - ByteOffset(3) == ByteCount(4))
        #expect(ByteCount(1) < ByteCount(2) && ByteOffset(1) < ByteOffset(2))
        #expect(ByteRate(bytesPerSecond: 1) < ByteRate(bytesPerSecond: 2))
    }

    @Test func `a count below zero is a bug in the caller`() async {
        await #expect(processExitsWith: .failure) { _ = ByteCount(1) - ByteCount(2) }
        await #expect(processExitsWith: .failure) { _ = ByteOffset(1) - ByteOffset(2) }
    }

    @Test(arguments: [(0, 0), (1, 1), (511, 1), (512, 1), (513, 2), (1024, 2), (1025, 3)] as [(UInt64, Int)])
    func `a part of a piece is a piece`(count: UInt64, pieces: Int) {
        #expect(ByteCount(count).pieces(of: ByteCount(512)) == pieces)
    }

    @Test(arguments: [1, 3, 512, 4096] as [UInt64])
    func `rounding goes to the nearest multiple on its side`(unit: UInt64) {
        for offset in 0...4 * unit where offset < 4 || offset % unit < 3 || offset % unit > unit - 3 {
            let (down, up) = (
                ByteOffset(offset).rounded(downTo: ByteCount(unit)).bytes,
                ByteOffset(offset).rounded(upTo: ByteCount(unit)).bytes
            )
            #expect(down % unit == 0 && down <= offset && offset - down < unit)
            #expect(up % unit == 0 && up >= offset && up - offset < unit)
        }
    }

    @Test func `a granularity is a power of two from 4 KiB to 32 MiB`() {
        let allowed = (12...25).map { UInt64(1) << $0 }
        for size in allowed { #expect(Granularity(ByteCount(size))?.size == ByteCount(size)) }
        for size in [0, 1, 2048, 4095, 4097, 12288, (1 << 25) + 1, 1 << 26, .max] as [UInt64] {
            #expect(Granularity(ByteCount(size)) == nil, "\(size)")
        }
        #expect(Granularity.standard.size == .kibibytes(64))
    }
}
