internal import Foundation

// Sizes, rates and times for people.

extension ByteCount {
    /// "1.5 GiB".
    package var text: String {
        let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var (value, unit) = (Double(bytes), 0)
        while value >= 1024, unit + 1 < units.count {
            value /= 1024
            unit += 1
        }
        return unit == 0 ? "\(bytes) bytes" : String(format: "%.1f %@", value, units[unit])
    }
}

extension ByteRate {
    /// "1.5 MiB/s".
    package var text: String { ByteCount(bytesPerSecond).text + "/s" }
}

extension Double {
    /// A time in seconds: "0.8 s", "3 min 20 s", "2 h 5 min".
    package var timeText: String {
        if self < 60 { return String(format: "%.1f s", self) }
        let seconds = Int(self)
        if seconds < 3600 { return "\(seconds / 60) min \(seconds % 60) s" }
        return "\(seconds / 3600) h \(seconds / 60 % 60) min"
    }
}

extension Duration {
    package var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }

    /// "85 ms", "3.2 s", "3 min 20 s".
    package var text: String {
        seconds < 1 ? "\(Int((seconds * 1000 - 1e-6).rounded(.up))) ms" : seconds.timeText
    }
}
