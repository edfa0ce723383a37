import Cutover
import Foundation
import Guest
import Volumes

/// Lets a test in another language drive a hold, one call at a time.
///
///     HoldDriver qmp:SOCKET|exec:COMMAND SOURCE TARGET SECONDS
///
/// Reads the names of the protocol's calls from stdin, one to a line, and answers each with a line of JSON:
/// {"milliseconds": N}, and "error" with its parts if it failed.
@main
struct HoldDriver {
    struct Answer: Encodable {
        var milliseconds: Double
        var error: Failure?
    }
    struct Failure: Encodable {
        let kind, operation, object, reason: String
        let advice: String?
    }

    static func main() async throws {
        let words = CommandLine.arguments
        let seconds = Duration.seconds(Double(words[4]) ?? 30)
        let hold: any WriterHold
        if words[1].hasPrefix("qmp:") {
            hold = QMPHold(
                socket: String(words[1].dropFirst("qmp:".count)), source: try RBDAddress(words[2]),
                target: try RBDAddress(words[3]), limit: seconds)
        } else {
            hold = CommandHold(
                command: String(words[1].dropFirst("exec:".count)), source: words[2], target: words[3], limit: seconds)
        }
        while let line = readLine() {
            let begin = ContinuousClock.now
            var answer = Answer(milliseconds: 0)
            do throws(VolumeError) {
                switch line {
                case "prepare": try await hold.prepare()
                case "adopt": try await hold.adopt()
                case "freeze": try await hold.freeze()
                case "switch":
                    try await hold.switchOver()
                    try await hold.leaveSource()
                case "thaw": try await hold.thaw()
                default: throw VolumeError(.unsupported, line, on: hold.title, reason: "no such call")
                }
            } catch {
                answer.error = Failure(
                    kind: "\(error.kind)", operation: error.operation, object: error.object, reason: error.reason,
                    advice: error.advice)
            }
            answer.milliseconds = (ContinuousClock.now - begin) / .milliseconds(1)
            FileHandle.standardOutput.write(try JSONEncoder().encode(answer) + Data("\n".utf8))
        }
    }
}
