internal import NIOCore

/// Before the data of a reply to an option. NBD protocol, "Fixed newstyle negotiation".
struct OptionReplyHeader: Equatable {
    static let length = 20

    var option: UInt32
    var type: OptionReplyType
    /// Bytes of data that follow.
    var length: UInt32

    init(option: UInt32, type: OptionReplyType, length: UInt32) {
        (self.option, self.type, self.length) = (option, type, length)
    }

    init(from bytes: inout ByteBuffer) throws(Violation) {
        guard
            let (magic, option, type, length) = bytes.readMultipleIntegers(
                as: (UInt64, UInt32, UInt32, UInt32).self)
        else { throw .malformed("the header of a reply to an option is 20 bytes") }
        guard magic == Magic.optionReply else { throw .magic(found: magic) }
        self.init(option: option, type: OptionReplyType(rawValue: type), length: length)
    }
}

extension ByteBuffer {
    mutating func writeOptionReply(to option: UInt32, _ type: OptionReplyType, data: ByteBuffer = ByteBuffer()) {
        writeMultipleIntegers(Magic.optionReply, option, type.rawValue, UInt32(data.readableBytes))
        writeImmutableBuffer(data)
    }

    /// An error, with words for a person.
    mutating func writeOptionError(to option: UInt32, _ type: OptionReplyType, _ message: String) {
        writeOptionReply(to: option, type, data: ByteBuffer(string: message.asMessage))
    }
}

/// A line of `NBD_OPT_LIST`: the data of `NBD_REP_SERVER`.
package struct ListedExport: Sendable, Equatable {
    package var name: String
    /// For people; empty if there is none.
    package var description: String

    package init(name: String, description: String = "") { (self.name, self.description) = (name, description) }

    /// Nothing if the data contradicts itself.
    init?(from data: inout ByteBuffer) {
        guard let name = data.readCountedText(), let description = data.readText(length: data.readableBytes) else {
            return nil
        }
        self.init(name: name, description: description)
    }

    var data: ByteBuffer {
        var data = ByteBuffer()
        data.writeCountedText(name)
        data.writeString(description.asMessage)
        return data
    }
}

/// The data of `NBD_REP_INFO`.
enum Information: Equatable {
    case export(size: UInt64, TransmissionFlags)
    case name(String)
    case description(String)
    case blockSize(BlockSizes)
    /// To be ignored.
    case other

    /// Nothing if the data contradicts itself.
    init?(from data: inout ByteBuffer) {
        guard let type = data.readInteger(as: UInt16.self) else { return nil }
        switch InformationType(rawValue: type) {
        case .export:
            guard data.readableBytes == 10, let (size, flags) = data.readMultipleIntegers(as: (UInt64, UInt16).self)
            else { return nil }
            self = .export(size: size, TransmissionFlags(rawValue: flags))
        case .name:
            guard let name = data.readText(length: data.readableBytes) else { return nil }
            self = .name(name)
        case .description:
            guard let text = data.readText(length: data.readableBytes) else { return nil }
            self = .description(text)
        case .blockSize:
            guard data.readableBytes == 12,
                let (minimum, preferred, maximum) = data.readMultipleIntegers(as: (UInt32, UInt32, UInt32).self),
                let sizes = BlockSizes(minimum: minimum, preferred: preferred, maximumPayload: maximum)
            else { return nil }
            self = .blockSize(sizes)
        case nil: self = .other
        }
    }

    var data: ByteBuffer {
        var data = ByteBuffer()
        switch self {
        case .export(let size, let flags):
            data.writeMultipleIntegers(InformationType.export.rawValue, size, flags.rawValue)
        case .name(let name):
            data.writeInteger(InformationType.name.rawValue)
            data.writeString(name)
        case .description(let text):
            data.writeInteger(InformationType.description.rawValue)
            data.writeString(text.asMessage)
        case .blockSize(let sizes):
            data.writeMultipleIntegers(
                InformationType.blockSize.rawValue, sizes.minimum, sizes.preferred, sizes.maximumPayload)
        case .other: preconditionFailure("only known information is sent")
        }
        return data
    }
}
