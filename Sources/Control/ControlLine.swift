internal import Foundation

/// The longest line of either side, in bytes: ten rounds with their reasons take a tenth of it.
let longestControlLine = 64 << 10

/// The line that a move answers with: an object with one of these keys.
enum ControlReply: Codable, Sendable, Equatable {
    case status(MoveStatus)
    case accepted(String)
    case refused(String)

    private enum Key: String, CodingKey { case status, accepted, refused }

    init(_ answer: OrderAnswer) {
        switch answer {
        case .accepted(let what): self = .accepted(what)
        case .refused(let why): self = .refused(why)
        }
    }

    init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: Key.self)
        if let status = try fields.decodeIfPresent(MoveStatus.self, forKey: .status) {
            self = .status(status)
        } else if let what = try fields.decodeIfPresent(String.self, forKey: .accepted) {
            self = .accepted(what)
        } else {
            self = .refused(try fields.decode(String.self, forKey: .refused))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: Key.self)
        switch self {
        case .status(let status): try fields.encode(status.told, forKey: .status)
        case .accepted(let what): try fields.encode(what, forKey: .accepted)
        case .refused(let why): try fields.encode(why, forKey: .refused)
        }
    }
}

/// A value as one line, the newline included; nothing if it is too long.
func controlLine(_ value: some Encodable) -> [UInt8]? {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let line = try? encoder.encode(value), line.count <= longestControlLine else { return nil }
    return Array(line) + [UInt8(ascii: "\n")]
}

/// A line without its newline as a value; nothing if it is none.
func controlValue<Value: Decodable>(_ type: Value.Type, of line: [UInt8]) -> Value? {
    try? JSONDecoder().decode(type, from: Data(line))
}

/// Puts a line together from the pieces in which it comes.
struct LineCollector {
    enum Step: Equatable {
        case more
        /// Without its newline. What follows it is nobody's.
        case line([UInt8])
        case tooLong
    }

    private let limit: Int
    private var line: [UInt8] = []

    /// - Parameter limit: Bytes, the newline not counted.
    init(limit: Int = longestControlLine) { self.limit = limit }

    var isEmpty: Bool { line.isEmpty }

    mutating func take(_ piece: some Collection<UInt8>) -> Step {
        let end = piece.firstIndex(of: UInt8(ascii: "\n"))
        let rest = piece[..<(end ?? piece.endIndex)]
        guard line.count + rest.count <= limit else { return .tooLong }
        line += rest
        return end == nil ? .more : .line(line)
    }
}
