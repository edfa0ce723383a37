internal import NIOCore

/// Puts together what has a known length from the pieces in which it comes. Holds no more than that length, and never
/// a slice of what it was given: so the network's buffers can be used again.
struct Intake {
    private var held = ByteBuffer()

    /// Bytes of an unfinished message.
    var count: Int { held.readableBytes }

    /// The next `length` bytes; nothing, and all of `input` held, if they aren't there yet.
    ///
    /// - Parameter length: Has been checked against a bound, and is asked for again until it is there.
    mutating func take(_ length: Int, from input: inout ByteBuffer) -> ByteBuffer? {
        if held.readableBytes == 0, let whole = input.readSlice(length: length) { return whole }
        let missing = length - held.readableBytes
        if let piece = input.readSlice(length: min(missing, input.readableBytes)) {
            if held.capacity == 0 { held.reserveCapacity(min(length, 4096)) }
            held.writeImmutableBuffer(piece)
        }
        guard held.readableBytes == length else { return nil }
        defer { held = ByteBuffer() }
        return held
    }
}

extension ByteBuffer {
    /// A string of the protocol: UTF-8 without NUL, at most 4096 bytes. NBD protocol, "Conventions".
    mutating func readText(length: Int) -> String? {
        guard length >= 0, length <= Bounds.string, let bytes = readBytes(length: length), !bytes.contains(0) else {
            return nil
        }
        return String(validating: bytes, as: UTF8.self)
    }

    /// A string after its length in 32 bits.
    mutating func readCountedText() -> String? {
        guard let length = readInteger(as: UInt32.self), length <= Bounds.string else { return nil }
        return readText(length: Int(length))
    }

    mutating func writeCountedText(_ text: String) {
        writeInteger(UInt32(text.utf8.count))
        writeString(text)
    }
}

extension String {
    /// The same without NUL and cut where it gets longer than the protocol allows, between two characters.
    var asMessage: String {
        let text = filter { $0 != "\0" }
        guard text.utf8.count > Bounds.string else { return text }
        var end = text.startIndex
        var length = 0
        for index in text.indices {
            length += text[index].utf8.count
            if length > Bounds.string { break }
            end = text.index(after: index)
        }
        return String(text[..<end])
    }

    /// Whether it can be sent as a name.
    package var isNBDString: Bool { utf8.count <= Bounds.string && !utf8.contains(0) }
}
