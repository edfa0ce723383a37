internal import NIOCore
internal import Volumes

// Numbers are unsigned and big-endian, as in NBD; a text is UTF-8 without NUL after its length in 32 bits.
extension ByteBuffer {
    mutating func readText() -> String? {
        guard let bytes = readCountedBytes(), !bytes.contains(0) else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }

    mutating func writeText(_ text: String) {
        writeInteger(UInt32(text.utf8.count))
        writeString(text)
    }

    mutating func readCountedBytes() -> [UInt8]? {
        guard let length = readInteger(as: UInt32.self), Int(length) <= readableBytes else { return nil }
        return readBytes(length: Int(length))
    }

    mutating func writeCountedBytes(_ bytes: [UInt8]) {
        writeInteger(UInt32(bytes.count))
        writeBytes(bytes)
    }

    /// 0 or 1.
    mutating func readFlag() -> Bool? {
        guard let byte = readInteger(as: UInt8.self), byte <= 1 else { return nil }
        return byte == 1
    }

    mutating func writeFlag(_ flag: Bool) { writeInteger(UInt8(flag ? 1 : 0)) }

    /// A flag that says whether it is there, then the value.
    ///
    /// - Returns: Nothing if it has no shape; `.some(nil)` if it isn't there.
    mutating func readOptional<Value>(_ body: (inout ByteBuffer) -> Value?) -> Value?? {
        guard let isThere = readFlag() else { return nil }
        guard isThere else { return .some(nil) }
        return body(&self).map { .some($0) }
    }

    mutating func writeOptional<Value>(_ value: Value?, _ body: (inout ByteBuffer, Value) -> Void) {
        writeFlag(value != nil)
        if let value { body(&self, value) }
    }

    /// A count in 32 bits, then as many values. Each takes a byte at least, so a count that the rest can't hold has no
    /// shape.
    mutating func readList<Value>(_ body: (inout ByteBuffer) -> Value?) -> [Value]? {
        guard let count = readInteger(as: UInt32.self), Int(count) <= readableBytes else { return nil }
        var list: [Value] = []
        for _ in 0..<count {
            guard let value = body(&self) else { return nil }
            list.append(value)
        }
        return list
    }

    mutating func writeList<Value>(_ list: some Collection<Value>, _ body: (inout ByteBuffer, Value) -> Void) {
        writeInteger(UInt32(list.count))
        for value in list { body(&self, value) }
    }

    // MARK: Units

    /// No volume has 2^63 bytes: so no sum of two of these overflows.
    mutating func readCount() -> ByteCount? {
        guard let bytes = readInteger(as: UInt64.self), bytes <= UInt64(Int64.max) else { return nil }
        return ByteCount(bytes)
    }

    mutating func writeCount(_ count: ByteCount) { writeInteger(count.bytes) }

    mutating func readExtent() -> Extent? {
        guard let offset = readCount(), let length = readCount(), length.bytes <= UInt64(Int64.max) - offset.bytes
        else { return nil }
        return Extent(offset: ByteOffset(offset.bytes), length: length)
    }

    mutating func writeExtent(_ extent: Extent) { writeMultipleIntegers(extent.offset.bytes, extent.length.bytes) }
}
