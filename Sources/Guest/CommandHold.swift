internal import Cutover
internal import Foundation
internal import Glibc
package import Volumes

/// A writer that is held by a command of the operator's, called as "COMMAND freeze", "COMMAND switch TARGET" and
/// "COMMAND thaw", with GODWIT_SOURCE and GODWIT_TARGET in its environment.
///
/// The command ends with status 0 when it has done what it was asked for, and it may be asked again for what it has done
/// already.
package struct CommandHold: WriterHold {
    package let title: String
    /// Whoever is held so has closed the source when "freeze" returns: nothing is known of it that could be counted on.
    package var clientsAtSource: Int { 0 }

    private let command: String
    private let source: String
    private let target: String
    private let limit: Duration

    /// - Parameters:
    ///   - source: The source's address, for the command's environment.
    ///   - limit: What each call of the command may take. One that takes longer is ended, with all that it has started.
    package init(command: String, source: String, target: String, limit: Duration = .seconds(30)) {
        title = "exec:" + command
        (self.command, self.source, self.target, self.limit) = (command, source, target, limit)
    }

    package func prepare() async throws(VolumeError) {
        let words = command.split { $0 == " " || $0 == "\t" || $0 == "\n" }
        guard let first = words.first.map(String.init) else {
            throw error(.missing, "prepare", "there is no command", "Write --freeze exec:COMMAND.")
        }
        // A path, as the shell will take it; one with quotes or variables is the shell's to find.
        guard first.contains("/"), !first.contains(where: { "\"'\\$`*?[~=(&|;<>".contains($0) }) else { return }
        let files = FileManager.default
        var isFolder: ObjCBool = false
        guard unsafe files.fileExists(atPath: first, isDirectory: &isFolder) else {
            throw error(
                .missing, "prepare", "there is no file \(first)", "Give the path of the command that holds the writer.")
        }
        guard !isFolder.boolValue, unsafe access(first, X_OK) == 0 else {
            throw error(.forbidden, "prepare", "\(first) can't be executed", "Make it executable: chmod +x \(first)")
        }
    }

    package func adopt() async throws(VolumeError) {
        // "thaw" is for the command to do in any case.
    }

    package func freeze() async throws(VolumeError) { try await run("freeze") }
    package func switchOver() async throws(VolumeError) { try await run("switch", target) }
    package func thaw() async throws(VolumeError) { try await run("thaw") }

    private func run(_ arguments: String...) async throws(VolumeError) {
        let hook = Hook(
            command: command, arguments: arguments, environment: ["GODWIT_SOURCE": source, "GODWIT_TARGET": target],
            limit: limit)
        let (end, output) = await hook.run()
        let asked = arguments[0]
        switch end {
        case .exited(0): return
        case .exited(127):
            throw error(
                .missing, asked, "the shell found no such command (exit status 127)" + Self.lastLines(output),
                "Give its whole path; it is found by the PATH that Godwit itself was started with.")
        case .exited(126):
            throw error(
                .forbidden, asked, "the shell can't execute the command (exit status 126)" + Self.lastLines(output),
                "Make it executable, and see whether its first line names an interpreter that is there.")
        case .exited(let status):
            throw error(.failed, asked, "the command ended with exit status \(status)" + Self.lastLines(output))
        case .killed(let signal):
            throw error(.failed, asked, "the command was ended by \(Self.name(signal))" + Self.lastLines(output))
        case .overdue:
            throw error(
                .unreachable, asked,
                "the command had not ended after \(Self.seconds(limit)) s,"
                    + " and was killed" + Self.lastLines(output))
        case .unstarted(let reason):
            throw error(.failed, asked, "/bin/sh can't be started: \(reason)")
        }
    }

    private func error(
        _ kind: VolumeError.Kind, _ operation: String, _ reason: String, _ advice: String? = nil
    ) -> VolumeError {
        VolumeError(kind, operation, on: title, reason: reason, advice: advice)
    }

    /// "30", "0.5".
    private static func seconds(_ duration: Duration) -> String {
        let seconds = duration / .seconds(1)
        return seconds == seconds.rounded() ? "\(Int64(seconds))" : "\(seconds)"
    }

    private static func name(_ signal: Int32) -> String {
        // "KILL"; glibc has no shorter way from a number to a name that every version knows.
        let names: [Int32: String] = [
            SIGHUP: "SIGHUP", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGILL: "SIGILL", SIGABRT: "SIGABRT",
            SIGFPE: "SIGFPE", SIGKILL: "SIGKILL", SIGSEGV: "SIGSEGV", SIGPIPE: "SIGPIPE", SIGALRM: "SIGALRM",
            SIGTERM: "SIGTERM", SIGBUS: "SIGBUS",
        ]
        return names[signal] ?? "signal \(signal)"
    }

    /// The end of what it printed, short enough for a message, and without what would move a terminal's cursor.
    private static func lastLines(_ output: String, most: Int = 5, longest: Int = 200) -> String {
        let lines = output.split(whereSeparator: \.isNewline).suffix(most).map { line in
            String(line.prefix(longest).unicodeScalars.filter { $0.properties.generalCategory != .control })
        }
        return lines.isEmpty ? "" : "; it said:\n" + lines.map { "    " + $0 }.joined(separator: "\n")
    }
}
