import Conformance
import NIOCore
import Volumes

@testable import NBDProtocol

/// Spoils messages that were in order: bits, numbers, places, lengths; or leaves them as they are.
struct Mutation {
    /// What programs get wrong.
    static let numbers: [[UInt8]] = [
        [0], [0xff], [0, 0], [0xff, 0xff], [0, 0, 0, 0], [0, 0, 0, 1], [0x7f, 0xff, 0xff, 0xff], [0x80, 0, 0, 0],
        [0xff, 0xff, 0xff, 0xff], [2, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0],
        [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ]

    static func spoil(_ messages: [ByteBuffer], _ random: inout SplitMix64) -> [UInt8] {
        var messages = messages.map { Array($0.readableBytesView) }
        if messages.count > 1, Int.random(in: 0..<8, using: &random) == 0 {
            switch Int.random(in: 0..<3, using: &random) {
            case 0: messages.remove(at: messages.indices.randomElement(using: &random)!)
            case 1: messages.append(messages.randomElement(using: &random)!)
            default: messages.shuffle(using: &random)
            }
        }
        var bytes = messages.flatMap { $0 }
        guard !bytes.isEmpty else { return noise(&random) }
        switch Int.random(in: 0..<8, using: &random) {
        case 0...1:
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[bytes.indices.randomElement(using: &random)!] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            }
        case 2...3:
            let number = numbers.randomElement(using: &random)!
            let place = bytes.indices.randomElement(using: &random)!
            bytes.replaceSubrange(place..<min(bytes.count, place + number.count), with: number)
        case 4: bytes.removeLast(.random(in: 0..<bytes.count, using: &random))
        case 5: bytes.insert(contentsOf: noise(&random), at: bytes.indices.randomElement(using: &random)!)
        case 6: bytes.remove(at: bytes.indices.randomElement(using: &random)!)
        default: break
        }
        return bytes
    }

    static func noise(_ random: inout SplitMix64) -> [UInt8] {
        (0..<Int.random(in: 1...80, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    /// The next bytes that arrive together.
    static func piece(_ bytes: inout ArraySlice<UInt8>, _ random: inout SplitMix64) -> ByteBuffer {
        let count = min(bytes.count, [1, 5, 40, 400, 1 << 20].randomElement(using: &random)!)
        defer { bytes = bytes.dropFirst(count) }
        return ByteBuffer(bytes: bytes.prefix(count))
    }
}
