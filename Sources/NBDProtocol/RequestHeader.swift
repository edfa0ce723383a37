internal import NIOCore

/// A request as it stands on the wire, not yet looked at. NBD protocol, "Request message".
struct RequestHeader: Equatable {
    /// Bytes of a header, `NBD_REQUEST_MAGIC`; with extended headers.
    static let compactLength = 28
    static let extendedLength = 32

    var flags: CommandFlags
    var type: UInt16
    var cookie: UInt64
    /// Bytes from the start of the export.
    var offset: UInt64
    /// Bytes: of the export, or of the payload.
    var length: UInt64

    init(flags: CommandFlags, type: UInt16, cookie: UInt64, offset: UInt64, length: UInt64) {
        (self.flags, self.type, self.cookie, self.offset, self.length) = (flags, type, cookie, offset, length)
    }

    static func length(in style: ReplyStyle) -> Int { style == .extended ? extendedLength : compactLength }

    init(from bytes: inout ByteBuffer, in style: ReplyStyle) throws(Violation) {
        let expected = style == .extended ? Magic.extendedRequest : Magic.request
        guard let (magic, flags, type) = bytes.readMultipleIntegers(as: (UInt32, UInt16, UInt16).self),
            let (cookie, offset) = bytes.readMultipleIntegers(as: (UInt64, UInt64).self),
            let length = style == .extended ? bytes.readInteger() : bytes.readInteger(as: UInt32.self).map(UInt64.init)
        else { throw .malformed("a request's header is 28 or 32 bytes") }
        guard magic == expected else { throw .magic(found: UInt64(magic)) }
        self.init(
            flags: CommandFlags(rawValue: flags), type: type, cookie: cookie, offset: offset, length: length)
    }

    func write(to bytes: inout ByteBuffer, in style: ReplyStyle) {
        let magic = style == .extended ? Magic.extendedRequest : Magic.request
        bytes.writeMultipleIntegers(magic, flags.rawValue, type, cookie, offset)
        if style == .extended { bytes.writeInteger(length) } else { bytes.writeInteger(UInt32(length)) }
    }

    /// Bytes that follow the header, whatever becomes of the request.
    func payloadLength(in style: ReplyStyle) -> UInt64 {
        let follows = style == .extended ? flags.contains(.payloadLen) : type == CommandType.write.rawValue
        return follows ? length : 0
    }
}
