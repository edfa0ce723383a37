import NIOCore
import Testing

@testable import Guest

struct QMPSessionTests {
    @Test func `a stream is taken apart the same, however it is cut`() throws {
        let text =
            FakeQMP.greeting + "\r\n\r\n" + #"{"event": "STOP", "data": {"a": "é"}}"# + "\n"
            + #"{"return": 5, "id": 3}"# + "\n{"
        let expected: [QMPSession.Message] = [
            .greeting([
                "version": ["qemu": ["micro": 22, "minor": 2, "major": 7], "package": ""], "capabilities": ["oob"],
            ]),
            .event(QMPEvent(name: "STOP", data: ["a": "é"])), .answer(id: 3, .value(5)),
        ]
        for length in 1...40 {
            var session = QMPSession()
            var rest = ByteBuffer(string: text)
            var messages: [QMPSession.Message] = []
            while rest.readableBytes > 0 {
                var piece = rest.readSlice(length: min(length, rest.readableBytes)) ?? ByteBuffer()
                messages += try session.received(&piece)
            }
            #expect(messages == expected)
        }
    }

    @Test func `a value reads as it was written`() throws {
        let value: JSONValue = [
            "a": [1, .number(0.5), true, .null, "x\n\"/\u{1}"], "b": ["c": .integer(.min)], "d": [:],
        ]
        let line = try value.encoded()
        #expect(!line.contains(UInt8(ascii: "\n")))
        #expect(try JSONValue(parsing: line) == value)
    }
}
