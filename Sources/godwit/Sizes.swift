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
    /// For people: "1.5 GiB".
    var text: String {
        let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var (value, unit) = (Double(bytes), 0)
        while value >= 1024, unit + 1 < units.count {
            value /= 1024
            unit += 1
        }
        return unit == 0 ? "\(bytes) bytes" : String(format: "%.1f %@", value, units[unit])
    }

    /// As it can be typed: "64K".
    var exactText: String {
        for (shift, suffix) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
        where bytes > 0 && bytes.trailingZeroBitCount >= shift {
            return "\(bytes >> UInt64(shift))\(suffix)"
        }
        return "\(bytes)"
    }
}

extension Double {
    /// A time in seconds for people: "0.8 s", "3 min 20 s", "2 h 5 min".
    var timeText: String {
        if self < 60 { return String(format: "%.1f s", self) }
        let seconds = Int(self)
        if seconds < 3600 { return "\(seconds / 60) min \(seconds % 60) s" }
        return "\(seconds / 3600) h \(seconds / 60 % 60) min"
    }
}
