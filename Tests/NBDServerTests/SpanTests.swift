import Testing
import Volumes

@testable import NBDServer

/// How a read's answer is cut into data and holes.
struct SpanTests {
    private static let kibibyte: UInt64 = 1024

    private func extent(_ start: UInt64, _ end: UInt64) -> Extent {
        Extent(from: ByteOffset(start * Self.kibibyte), to: ByteOffset(end * Self.kibibyte))
    }

    /// "data 0-4, hole 4-64", in KiB.
    private func text(_ spans: [Span]) -> String {
        spans.map { span in
            let kind = span.isHole ? "hole" : "data"
            return "\(kind) \(span.extent.offset.bytes / Self.kibibyte)-\(span.extent.end.bytes / Self.kibibyte)"
        }.joined(separator: ", ")
    }

    @Test(
        arguments: [
            ([], "hole 100-200"), ([(100, 200)], "data 100-200"), ([(100, 150)], "data 100-150, hole 150-200"),
            ([(150, 200)], "hole 100-150, data 150-200"), ([(110, 120)], "data 100-120, hole 120-200"),
            ([(100, 110), (130, 200)], "data 100-200"),
            ([(100, 110), (142, 200)], "data 100-110, hole 110-142, data 142-200"),
            ([(132, 169)], "hole 100-132, data 132-200"),
        ] as [([(UInt64, UInt64)], String)])
    func `a hole is told where it is large enough`(data: [(UInt64, UInt64)], told: String) {
        let spans = Span.spans(of: extent(100, 200), data: ExtentSet(data.map { extent($0.0, $0.1) }))
        #expect(text(spans) == told)
    }

    @Test func `a small extent of zeros alone is a hole`() {
        #expect(text(Span.spans(of: extent(4, 8), data: ExtentSet())) == "hole 4-8")
        #expect(text(Span.spans(of: extent(4, 8), data: ExtentSet([extent(5, 6)]))) == "data 4-8")
        #expect(Span.spans(of: extent(4, 4), data: ExtentSet()).isEmpty)
    }
}
