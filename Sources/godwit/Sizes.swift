internal import ArgumentParser
internal import Foundation
internal import Volumes

/// A number of bytes on the command line: plain, or with K, M, G or T, which count in 1024s as `rbd` does.
struct SizeArgument: ExpressibleByArgument, Sendable, Equatable {
    let count: ByteCount

    init?(argument: String) {
        guard let match = argument.wholeMatch(of: /([0-9]+)([KMGT]?)(i?B)?/.ignoresCase()) else { return nil }
        let shift: UInt64 =
            switch match.2.uppercased() {
            case "K": 10
            case "M": 20
            case "G": 30
            case "T": 40
            default: 0
            }
        guard let number = UInt64(match.1), number <= UInt64(Int64.max) >> shift else { return nil }
        count = ByteCount(number << shift)
    }

    var defaultValueDescription: String { count.exactText }
}

extension ByteCount {
    /// As it can be typed: "64K".
    var exactText: String {
        for (shift, suffix) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
        where bytes > 0 && bytes.trailingZeroBitCount >= shift {
            return "\(bytes >> UInt64(shift))\(suffix)"
        }
        return "\(bytes)"
    }
}
