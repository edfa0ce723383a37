internal import NIOCore

/// Before the body of every frame, in either direction (Docs/Protocol.md, "Frames").
struct RelayFrame: Equatable {
    static let length = 20
    /// "GWRQ"
    static let request: UInt32 = 0x4757_5251
    /// "GWRP"
    static let reply: UInt32 = 0x4757_5250
    /// Of a reply to nothing: the far side is still at what it was asked for.
    static let alive: UInt16 = 0xffff

    var magic: UInt32
    /// A request's kind, a reply's status.
    var code: UInt16
    var id: UInt64
    /// Bytes of the body.
    var bodyLength: Int

    init(magic: UInt32, code: UInt16, id: UInt64, bodyLength: Int) {
        (self.magic, self.code, self.id, self.bodyLength) = (magic, code, id, bodyLength)
    }

    /// - Parameter bytes: Of `length`.
    init(from bytes: inout ByteBuffer, expecting: UInt32) throws(RelayViolation) {
        guard
            let (magic, code, reserved, id, count) = bytes.readMultipleIntegers(
                as: (UInt32, UInt16, UInt16, UInt64, UInt32).self)
        else { throw .malformed("a frame's header") }
        guard magic == expecting else { throw .magic(magic) }
        guard reserved == 0 else { throw .malformed("a frame's header") }
        self.init(magic: magic, code: code, id: id, bodyLength: Int(count))
    }

    /// The frame whole, without a copy of what is long.
    static func pieces(_ magic: UInt32, _ code: UInt16, id: UInt64, body: [ByteBuffer]) -> [ByteBuffer] {
        let count = body.reduce(0) { $0 + $1.readableBytes }
        var header = ByteBuffer()
        header.reserveCapacity(length + (body.first?.readableBytes ?? 0))
        header.writeMultipleIntegers(magic, code, UInt16(0), id, UInt32(count))
        guard let first = body.first else { return [header] }
        // The first piece is a table or a few numbers, and goes with the header.
        header.writeImmutableBuffer(first)
        return [header] + body.dropFirst().filter { $0.readableBytes > 0 }
    }
}

/// Puts frames together from the pieces in which they come. Holds no more than one frame, whose length was held against
/// its bound before, and never a slice of what it was given.
struct FrameIntake {
    private var held = ByteBuffer()
    private var header: RelayFrame?

    /// Bytes of an unfinished frame.
    var count: Int { held.readableBytes }

    /// The next frame; nothing, and all of `input` held, if it isn't there yet.
    ///
    /// - Parameter check: Told each header before its body is waited for.
    mutating func take(
        from input: inout ByteBuffer, expecting magic: UInt32, _ check: (RelayFrame) throws(RelayViolation) -> Void
    ) throws(RelayViolation) -> (RelayFrame, ByteBuffer)? {
        if header == nil {
            guard var bytes = fill(RelayFrame.length, from: &input) else { return nil }
            let found = try RelayFrame(from: &bytes, expecting: magic)
            try check(found)
            header = found
        }
        guard let found = header, let body = fill(found.bodyLength, from: &input) else { return nil }
        header = nil
        return (found, body)
    }

    private mutating func fill(_ length: Int, from input: inout ByteBuffer) -> ByteBuffer? {
        let missing = length - held.readableBytes
        if held.capacity == 0 { held.reserveCapacity(length) }
        if let piece = input.readSlice(length: min(missing, input.readableBytes)) { held.writeImmutableBuffer(piece) }
        guard held.readableBytes == length else { return nil }
        defer { held = ByteBuffer() }
        return held
    }
}
