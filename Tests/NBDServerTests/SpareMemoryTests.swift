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
        var expected = ByteBuffer(repeating: 7, count: count - 1)
        expected.writeInteger(UInt8(8))
        #expect(memory.intoBuffer() == expected)
    }

    @Test func `two at a time are never the same`() throws {
        var held: [(memory: RequestMemory, content: ByteBuffer)] = []
        for turn in 0..<200 {
            let memory = try #require(RequestMemory(count: 100_000))
            let content = ByteBuffer(repeating: UInt8(turn), count: 100_000)
            memory.copy(content, at: 0)
            held.append((memory, content))
            if turn % 3 == 0 { held.removeFirst() }
        }
        #expect(held.count(where: { $0.memory.intoBuffer() != $0.content }) == 0)
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
