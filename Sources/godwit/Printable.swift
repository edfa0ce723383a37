extension String {
    /// What turns the direction of a line.
    private static let turning: [ClosedRange<UInt32>] = [0x202A...0x202E, 0x2066...0x2069]

    /// Without control characters; those are shown as JSON would write them, so that no name is a command to the
    /// terminal.
    var printable: String {
        var text = ""
        for scalar in unicodeScalars {
            if scalar.properties.generalCategory == .control
                || Self.turning.contains(where: { $0.contains(scalar.value) })
            {
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            } else {
                text.unicodeScalars.append(scalar)
            }
        }
        return text
    }

    /// How many columns of a terminal it takes: the wide letters of Unicode's annex 11 take two, marks none.
    var columns: Int { unicodeScalars.reduce(0) { $0 + $1.columns } }

    /// Filled up with spaces, or cut in the middle.
    func fitted(to width: Int) -> String {
        let text = cut(to: width)
        return text + String(repeating: " ", count: width - text.columns)
    }

    /// Cut in the middle, where it is longer.
    func cut(to width: Int) -> String {
        guard columns > width else { return self }
        func some(_ characters: some Sequence<Character>, to width: Int) -> [Character] {
            var (kept, taken): ([Character], Int) = ([], 0)
            for character in characters {
                taken += String(character).columns
                guard taken <= width else { break }
                kept.append(character)
            }
            return kept
        }
        let end = some(reversed(), to: (width - 1) / 2).reversed()
        let begin = some(self, to: width - 1 - String(end).columns)
        return String(begin) + "…" + String(end)
    }

    /// Broken between words, and printable; what is no line is none.
    func folded(to width: Int) -> [String] {
        var lines: [String] = []
        for word in printable.split(separator: " ") {
            if let last = lines.last, last.columns + 1 + String(word).columns <= width {
                lines[lines.count - 1] += " " + word
            } else {
                lines.append(String(word))
            }
        }
        return lines
    }
}

extension Unicode.Scalar {
    private static let wide: [ClosedRange<UInt32>] = [
        0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xA960...0xA97F, 0xAC00...0xD7A3, 0xF900...0xFAFF,
        0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F900...0x1FAFF, 0x20000...0x3FFFD,
    ]

    fileprivate var columns: Int {
        switch properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: 0
        default: Self.wide.contains { $0.contains(value) } ? 2 : 1
        }
    }
}
