internal import NIOCore

/// Before what is replied to a request. NBD protocol, "Simple reply message", "Structured reply chunk message";
/// extension EXTENDED_HEADERS, "Extended reply chunk message".
enum ReplyHeader: Equatable {
    /// - Parameter error: Zero if the request was carried out.
    case simple(error: UInt32, cookie: UInt64)
    /// - Parameter offset: Of the request; only in extended headers.
    case chunk(flags: ReplyFlags, type: ChunkType, cookie: UInt64, offset: UInt64?, length: UInt64)

    /// Every header begins with a magic of so many bytes.
    static let magicLength = 4

    var cookie: UInt64 {
        switch self {
        case .simple(_, let cookie), .chunk(_, _, let cookie, _, _): cookie
        }
    }

    /// How long the header is that begins with `magic`; nothing if it may not be there in this style.
    static func length(after magic: UInt32, in style: ReplyStyle) -> Int? {
        switch (magic, style) {
        case (Magic.simpleReply, .simple), (Magic.simpleReply, .structured): 16
        case (Magic.structuredReply, .structured): 20
        case (Magic.extendedReply, .extended): 32
        default: nil
        }
    }

    /// - Parameters:
    ///   - magic: What the header begins with.
    ///   - bytes: Its rest, as long as `length(after:in:)` says.
    init?(_ magic: UInt32, from bytes: inout ByteBuffer) {
        switch magic {
        case Magic.simpleReply:
            guard let (error, cookie) = bytes.readMultipleIntegers(as: (UInt32, UInt64).self) else { return nil }
            self = .simple(error: error, cookie: cookie)
        case Magic.structuredReply, Magic.extendedReply:
            let isExtended = magic == Magic.extendedReply
            guard let (flags, type, cookie) = bytes.readMultipleIntegers(as: (UInt16, UInt16, UInt64).self),
                let offset = isExtended ? bytes.readInteger(as: UInt64.self) : 0,
                let length = isExtended ? bytes.readInteger() : bytes.readInteger(as: UInt32.self).map(UInt64.init)
            else { return nil }
            self = .chunk(
                flags: ReplyFlags(rawValue: flags), type: ChunkType(rawValue: type), cookie: cookie,
                offset: isExtended ? offset : nil, length: length)
        default: return nil
        }
    }

    func write(to bytes: inout ByteBuffer) {
        switch self {
        case .simple(let error, let cookie): bytes.writeMultipleIntegers(Magic.simpleReply, error, cookie)
        case .chunk(let flags, let type, let cookie, nil, let length):
            bytes.writeMultipleIntegers(
                Magic.structuredReply, flags.rawValue, type.rawValue, cookie, UInt32(length))
        case .chunk(let flags, let type, let cookie, let offset?, let length):
            bytes.writeMultipleIntegers(
                Magic.extendedReply, flags.rawValue, type.rawValue, cookie, offset, length)
        }
    }
}
