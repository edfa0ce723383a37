package import Volumes

/// What an operator can ask of a live move.
package enum MoveOrder: Sendable, Equatable {
    package enum Throttle: Sendable, Equatable {
        /// As the move itself works out.
        case auto
        /// The writer is not slowed, and won't be.
        case off
        /// Above zero.
        case limit(ByteRate)
    }

    case status
    /// Nothing is read or written any more; writes go on being noticed.
    case pause
    case resume
    /// Hand over as soon as that can be done, whatever pause is predicted.
    case cutover
    case throttle(Throttle)
    /// How fast the move itself may go; nothing for as fast as it can.
    case bandwidth(ByteRate?)
    case cancel
}

/// What a move says to an order.
package enum OrderAnswer: Sendable, Equatable {
    /// What happens now.
    case accepted(String)
    /// Why not, and what now.
    case refused(String)
}

/// A move that can be asked and told while it runs.
///
/// Both may be called at any time, from several tasks at once, and are given up on after `ControlServer.Limits.answer`:
/// they should return as soon as the order is noted, not when it is carried out.
package protocol MoveControl: Sendable {
    func status() async -> MoveStatus
    /// - Parameter order: Never `.status`.
    func take(_ order: MoveOrder) async -> OrderAnswer
}

// MARK: On the wire

extension MoveOrder: Codable {
    private enum Key: String, CodingKey { case order, mode, bytesPerSecond }
    private enum Name: String, Codable { case status, pause, resume, cutover, throttle, bandwidth, cancel }
    private enum Mode: String, Codable { case auto, off, limit }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: Key.self)
        func rate() throws -> ByteRate {
            ByteRate(bytesPerSecond: try fields.decode(UInt64.self, forKey: .bytesPerSecond))
        }
        switch try fields.decode(Name.self, forKey: .order) {
        case .status: self = .status
        case .pause: self = .pause
        case .resume: self = .resume
        case .cutover: self = .cutover
        case .cancel: self = .cancel
        case .bandwidth:
            let rate = try rate()
            self = .bandwidth(rate.bytesPerSecond == 0 ? nil : rate)
        case .throttle:
            switch try fields.decode(Mode.self, forKey: .mode) {
            case .auto: self = .throttle(.auto)
            case .off: self = .throttle(.off)
            case .limit:
                let rate = try rate()
                guard rate.bytesPerSecond > 0 else {
                    throw DecodingError.dataCorruptedError(
                        forKey: .bytesPerSecond, in: fields, debugDescription: "a limit is above zero")
                }
                self = .throttle(.limit(rate))
            }
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: Key.self)
        switch self {
        case .status: try fields.encode(Name.status, forKey: .order)
        case .pause: try fields.encode(Name.pause, forKey: .order)
        case .resume: try fields.encode(Name.resume, forKey: .order)
        case .cutover: try fields.encode(Name.cutover, forKey: .order)
        case .cancel: try fields.encode(Name.cancel, forKey: .order)
        case .bandwidth(let rate):
            try fields.encode(Name.bandwidth, forKey: .order)
            try fields.encode(rate?.bytesPerSecond ?? 0, forKey: .bytesPerSecond)
        case .throttle(let throttle):
            try fields.encode(Name.throttle, forKey: .order)
            switch throttle {
            case .auto: try fields.encode(Mode.auto, forKey: .mode)
            case .off: try fields.encode(Mode.off, forKey: .mode)
            case .limit(let rate):
                try fields.encode(Mode.limit, forKey: .mode)
                try fields.encode(rate.bytesPerSecond, forKey: .bytesPerSecond)
            }
        }
    }
}
