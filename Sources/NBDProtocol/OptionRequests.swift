internal import NIOCore

/// Before an option's data. NBD protocol, "Newstyle negotiation".
struct OptionHeader: Equatable {
    static let length = 16

    var type: UInt32
    /// Bytes of data that follow.
    var length: UInt32

    init(type: UInt32, length: UInt32) { (self.type, self.length) = (type, length) }

    init(from bytes: inout ByteBuffer) throws(Violation) {
        guard let (magic, type, length) = bytes.readMultipleIntegers(as: (UInt64, UInt32, UInt32).self) else {
            throw .malformed("an option's header is 16 bytes")
        }
        guard magic == Magic.option else { throw .magic(found: magic) }
        self.init(type: type, length: length)
    }

    func write(to bytes: inout ByteBuffer) { bytes.writeMultipleIntegers(Magic.option, type, length) }

    /// An option whole, header and data.
    static func option(_ type: OptionType, data: ByteBuffer = ByteBuffer()) -> ByteBuffer {
        var bytes = ByteBuffer()
        OptionHeader(type: type.rawValue, length: UInt32(data.readableBytes)).write(to: &bytes)
        bytes.writeImmutableBuffer(data)
        return bytes
    }
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
struct ExportRequest: Equatable {
    var name: String
    /// `NBD_INFO` types that are asked for; unknown ones are left out, as the specification has it.
    var wishes: Set<InformationType>

    init(name: String, wishes: Set<InformationType>) { (self.name, self.wishes) = (name, wishes) }

    /// Nothing if the data isn't exactly a request.
    init?(from data: inout ByteBuffer) {
        guard let name = data.readCountedText(), let count = data.readInteger(as: UInt16.self),
            data.readableBytes == Int(count) * 2
        else { return nil }
        self.init(name: name, wishes: [])
        while let type = data.readInteger(as: UInt16.self) {
            if let type = InformationType(rawValue: type) { wishes.insert(type) }
        }
    }

    var data: ByteBuffer {
        var data = ByteBuffer()
        data.writeCountedText(name)
        data.writeInteger(UInt16(wishes.count))
        for wish in wishes.sorted(by: { $0.rawValue < $1.rawValue }) { data.writeInteger(wish.rawValue) }
        return data
    }
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
struct MetaContextRequest: Equatable {
    enum Flaw: Error, Equatable {
        case invalid
        case tooBig
    }

    var name: String
    var queries: [String]

    init(name: String, queries: [String]) { (self.name, self.queries) = (name, queries) }

    init(from data: inout ByteBuffer) throws(Flaw) {
        guard let name = data.readCountedText(), let count = data.readInteger(as: UInt32.self) else { throw .invalid }
        // Each query has at least its length: a count that the data can't hold is a contradiction, not a size.
        guard UInt64(count) * 4 <= UInt64(data.readableBytes) else { throw .invalid }
        guard count <= Bounds.queries else { throw .tooBig }
        self.init(name: name, queries: [])
        for _ in 0..<count {
            guard let query = data.readCountedText(), let colon = query.firstIndex(of: ":"), colon != query.startIndex
            else { throw .invalid }
            queries.append(query)
        }
        guard data.readableBytes == 0 else { throw .invalid }
    }

    var data: ByteBuffer {
        var data = ByteBuffer()
        data.writeCountedText(name)
        data.writeInteger(UInt32(queries.count))
        for query in queries { data.writeCountedText(query) }
        return data
    }
}
