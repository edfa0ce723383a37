import NIOCore
import Testing

@testable import NBDServer

/// Memory that goes from one request to the next.
@Suite(.serialized) struct SpareMemoryTests {
    @Test(arguments: [1, 511, 4096, 65_535, 65_536, 65_537, 1 << 20, 1 << 25])
    func `it holds what was put there, as bytes and as a buffer`(count: Int) throws {
        let memory = try #require(RequestMemory(count: count))
        #expect(memory.count == count)
        #expect(unsafe memory.bytes.count == count)
        memory.copy(ByteBuffer(repeating: 7, count: count), at: 0)
        memory.copy(ByteBuffer(repeating: 8, count: 1), at: count - 1)
        let buffer = memory.intoBuffer()
        #expect(buffer.readableBytes == count)
        #expect(buffer.readableBytesView.last == 8 && buffer.readableBytesView.dropLast().allSatisfy { $0 == 7 })
    }

    @Test func `two at a time are never the same`() throws {
        var held: [RequestMemory] = []
        for turn in 0..<200 {
            let memory = try #require(RequestMemory(count: 100_000))
            memory.copy(ByteBuffer(repeating: UInt8(turn), count: 100_000), at: 0)
            held.append(memory)
            if turn % 3 == 0 { held.removeFirst() }
        }
        let marks = held.map { memory in
            let buffer = memory.intoBuffer()
            return Set(buffer.readableBytesView)
        }
        #expect(marks.allSatisfy { $0.count == 1 } && Set(marks).count == held.count)
    }

    @Test func `what is given back is taken again`() throws {
        guard let first = unsafe SpareMemory.take(70_000), let second = unsafe SpareMemory.take(70_000) else {
            Issue.record("there is no memory")
            return
        }
        #expect(unsafe first != second)
        unsafe SpareMemory.giveBack(first)
        guard let third = unsafe SpareMemory.take(131_072) else {
            Issue.record("there is no memory")
            return
        }
        #expect(unsafe third == first, "the same size, 128 KiB, and the last that was used")
        unsafe SpareMemory.giveBack(third)
        unsafe SpareMemory.giveBack(second)
    }
}
