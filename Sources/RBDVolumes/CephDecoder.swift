/// Reads what Ceph encodes (include/encoding.h): integers are little-endian, strings and lists begin with their
/// number (le32), and a versioned structure with two version bytes and its length (le32).
package struct CephDecoder {
    /// What was read isn't what it should be, or ends too early.
    package struct Malformed: Error {}

    private var bytes: ArraySlice<UInt8>

    package init(_ bytes: some Collection<UInt8>) { self.bytes = ArraySlice(bytes) }

    /// Bytes that weren't read yet.
    package var count: Int { bytes.count }

    package mutating func bytes(_ count: Int) throws(Malformed) -> [UInt8] { Array(try take(count)) }

    package mutating func integer<Value: FixedWidthInteger>(_: Value.Type = Value.self) throws(Malformed) -> Value {
        let taken = try take(MemoryLayout<Value>.size)
        return taken.reversed().reduce(0) { $0 << 8 | Value(truncatingIfNeeded: $1) }
    }

    package mutating func string() throws(Malformed) -> String {
        String(decoding: try byteString(), as: UTF8.self)
    }

    /// A string as it is: not every name that Ceph knows is UTF-8.
    package mutating func byteString() throws(Malformed) -> [UInt8] { try bytes(Int(try integer(UInt32.self))) }

    package mutating func list<Element>(
        _ element: (inout CephDecoder) throws(Malformed) -> Element
    ) throws(Malformed) -> [Element] {
        let count = Int(try integer(UInt32.self))
        // No element takes less than a byte: a count beyond that is a lie, not a reason to ask for memory.
        guard count <= bytes.count else { throw Malformed() }
        var elements: [Element] = []
        for _ in 0..<count { elements.append(try element(&self)) }
        return elements
    }

    package mutating func optional<Value>(
        _ value: (inout CephDecoder) throws(Malformed) -> Value
    ) throws(Malformed) -> Value? {
        try integer(UInt8.self) != 0 ? try value(&self) : nil
    }

    /// A versioned structure: what a newer version has added at its end is skipped.
    /// - Parameter known: The newest version that is understood; one that isn't compatible with it is refused.
    package mutating func structure<Value>(
        known: UInt8 = 1,
        _ fields: (inout CephDecoder) throws(Malformed) -> Value
    ) throws(Malformed) -> Value {
        _ = try integer(UInt8.self)
        guard try integer(UInt8.self) <= known else { throw Malformed() }
        var inner = CephDecoder(try take(Int(try integer(UInt32.self))))
        return try fields(&inner)
    }

    private mutating func take(_ count: Int) throws(Malformed) -> ArraySlice<UInt8> {
        guard count <= bytes.count else { throw Malformed() }
        defer { bytes = bytes.dropFirst(count) }
        return bytes.prefix(count)
    }
}

/// What a method takes: the same form, as far as methods of cls_rbd need it.
package enum CephEncoder {
    package static func integer(_ value: some FixedWidthInteger) -> [UInt8] {
        (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    package static func string(_ text: String) -> [UInt8] { byteString(Array(text.utf8)) }
    package static func byteString(_ bytes: [UInt8]) -> [UInt8] { integer(UInt32(bytes.count)) + bytes }
}
