import CLZ4
import Checksums
import Foundation
import Glibc
import Relay

/// Measures what the relay's payloads cost, against LZ4 by itself over the same chunks. For Tests/Benchmarks/packing.py.
///
///     PackDriver FILE CHUNK auto|lz4|none ROUNDS
///
/// Prints the CPU seconds of each round, all in turn: {"godwit": [...], "bare": [...], "checksums": [...]}. The first two
/// pack every chunk and unpack it again; Godwit's part has its checksums at both ends, which are there without LZ4 as well
/// and are measured by themselves, and its choice of what isn't worth packing.
@main
struct PackDriver {
    struct Answer: Encodable {
        var godwit: [Double] = []
        var bare: [Double] = []
        var checksums: [Double] = []
    }

    static func main() throws {
        let words = CommandLine.arguments
        guard words.count == 5, let chunk = Int(words[2]), let mode = Compression.Mode(rawValue: words[3]),
            let rounds = Int(words[4]), chunk > 0, chunk <= RelayBounds.payload
        else { fatalError("PackDriver FILE CHUNK auto|lz4|none ROUNDS") }
        let data = try Data(contentsOf: URL(filePath: words[1]))
        var answer = Answer()
        var buffer = [UInt8](repeating: 0, count: chunk)
        var block = [CChar](repeating: 0, count: Int(LZ4_compressBound(Int32(chunk))))
        unsafe data.withUnsafeBytes { data in
            for _ in 0..<rounds {
                answer.godwit.append(
                    timed {
                        var compression = Compression(mode)
                        unsafe forEachChunk(of: data, chunk) { bytes in
                            let tries = compression.tries(bytes.count)
                            let payload = unsafe Payload(bytes, acceleration: tries ? compression.acceleration : nil)
                            if tries { compression.note(isShorter: payload.encoding == .lz4) }
                            let isRight = unsafe buffer.withUnsafeMutableBytes { buffer in
                                unsafe payload.unpack(
                                    into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<bytes.count]))
                            }
                            precondition(isRight, "a payload came out otherwise than it went in")
                        }
                    })
                answer.bare.append(
                    timed {
                        unsafe forEachChunk(of: data, chunk) { bytes in
                            let source = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
                            let stored = unsafe LZ4_compress_fast(
                                source, &block, Int32(bytes.count), Int32(block.count), 1)
                            let plain = unsafe buffer.withUnsafeMutableBytes { buffer in
                                unsafe LZ4_decompress_safe(
                                    block, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), stored,
                                    Int32(buffer.count))
                            }
                            precondition(plain == bytes.count, "a block came out otherwise than it went in")
                        }
                    })
                answer.checksums.append(
                    timed {
                        unsafe forEachChunk(of: data, chunk) { bytes in
                            let ends = unsafe (standardCRC32C(bytes), standardCRC32C(bytes))
                            precondition(ends.0 == ends.1, "the same bytes have another checksum")
                        }
                    })
            }
        }
        print(String(decoding: try JSONEncoder().encode(answer), as: UTF8.self))
    }

    private static func forEachChunk(
        of data: UnsafeRawBufferPointer, _ chunk: Int, _ body: (UnsafeRawBufferPointer) -> Void
    ) {
        for start in stride(from: 0, to: data.count, by: chunk) {
            unsafe body(UnsafeRawBufferPointer(rebasing: data[start..<min(start + chunk, data.count)]))
        }
    }

    /// CPU seconds of this process.
    private static func timed(_ body: () -> Void) -> Double {
        func now() -> Double {
            var time = timespec()
            unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        let begin = now()
        body()
        return now() - begin
    }
}
