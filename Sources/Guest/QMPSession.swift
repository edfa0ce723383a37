internal import Foundation
internal import NIOCore

/// What a QMP server sends, taken apart (docs/interop/qmp-spec.rst). A value: bytes in, messages out.
struct QMPSession {
    enum Message: Equatable {
        case greeting(JSONValue)
        case answer(id: Int64, Answer)
        case event(QMPEvent)
    }
    enum Answer: Equatable {
        case value(JSONValue)
        case refusal(class: String, reason: String)
    }
    /// The peer is none that speaks QMP.
    struct Junk: Error, Equatable {
        let reason: String
    }

    /// A message of QEMU is some KiB; the longest there are, the schema of all commands, are below 1 MiB.
    static let mostBytes = 16 << 20

    private var line = ByteBuffer()
    /// Bytes of `line` that were looked through for its end.
    private var searched = 0

    /// Takes what came, and nothing of it if a line of it is junk.
    mutating func received(_ bytes: inout ByteBuffer) throws(Junk) -> [Message] {
        line.writeBuffer(&bytes)
        var messages: [Message] = []
        while let length = lengthOfLine() {
            guard length <= Self.mostBytes else { throw Self.tooLong }
            let text = line.readBytes(length: length) ?? []
            line.moveReaderIndex(forwardBy: 1)
            searched = 0
            if !text.allSatisfy({ $0 == 0x20 || $0 == 0x0d || $0 == 0x09 }) { messages.append(try Self.message(text)) }
        }
        searched = line.readableBytes
        guard searched <= Self.mostBytes else { throw Self.tooLong }
        if searched == 0 { line.clear() } else { line.discardReadBytes() }
        return messages
    }

    /// Without the line's end; nothing if it hasn't come yet.
    private func lengthOfLine() -> Int? {
        unsafe line.withUnsafeReadableBytes { bytes in
            guard let begin = bytes.baseAddress, searched < bytes.count,
                let end = unsafe memchr(begin + searched, Int32(UInt8(ascii: "\n")), bytes.count - searched)
            else { return nil }
            return unsafe UnsafeRawPointer(end) - begin
        }
    }

    private static let tooLong = Junk(reason: "sent a line of more than \(mostBytes >> 20) MiB")

    private static func message(_ text: [UInt8]) throws(Junk) -> Message {
        let shown = String(decoding: text.prefix(80), as: UTF8.self).filter { !$0.isNewline }
        guard let value = try? JSONValue(parsing: Data(text)), let members = value.members else {
            throw Junk(reason: "sent what is no message of QMP: '\(shown)'")
        }
        if let greeting = members["QMP"] { return .greeting(greeting) }
        if let name = members["event"]?.text {
            return .event(QMPEvent(name: name, data: members["data"] ?? .object([:])))
        }
        if let id = members["id"]?.integer {
            if let value = members["return"] { return .answer(id: id, .value(value)) }
            if let error = members["error"] {
                let reason = error["desc"]?.text ?? "an error without a word"
                return .answer(id: id, .refusal(class: error["class"]?.text ?? "", reason: reason))
            }
        }
        throw Junk(reason: "sent a message that answers nothing: '\(shown)'")
    }
}

/// Something that QEMU tells without being asked.
package struct QMPEvent: Sendable, Equatable {
    package let name: String
    package let data: JSONValue
}
