import Foundation

/// Which random histories are tried: 50, or what `GODWIT_SEEDS` says, a count ("500") or certain ones ("17...17").
enum Seeds {
    static let all: ClosedRange<UInt64> = {
        guard let text = ProcessInfo.processInfo.environment["GODWIT_SEEDS"] else { return 1...50 }
        let bounds = text.split(separator: ".").compactMap { UInt64($0) }
        switch bounds.count {
        case 1 where bounds[0] > 0: return 1...bounds[0]
        case 2 where bounds[0] <= bounds[1]: return bounds[0]...bounds[1]
        default: preconditionFailure("GODWIT_SEEDS is neither a count nor a range: \(text)")
        }
    }()

    /// How many of the last operations of a history that went wrong are shown: 20, or what `GODWIT_LOGGED` says.
    static let logged = ProcessInfo.processInfo.environment["GODWIT_LOGGED"].flatMap { Int($0) } ?? 20

    /// The command that tries one of them again.
    static func replay(_ seed: UInt64, _ suite: String) -> String {
        "GODWIT_SEEDS=\(seed)...\(seed) swift test --filter \(suite)"
    }
}
