internal import ArgumentParser
internal import Glibc
internal import Mirror
internal import Synchronization
internal import Volumes

/// The exit statuses (Docs/CLI.md), as sysexits.h numbers them.
enum Status {
    static let differs = ExitCode(65)
    static let noSource = ExitCode(66)
    static let unreachable = ExitCode(69)
    static let noTarget = ExitCode(73)
    static let resumable = ExitCode(75)
    static let forbidden = ExitCode(77)

    static func of(_ kind: MoveError.Kind) -> ExitCode {
        switch kind {
        case .usage: .validationFailure
        case .noSource: noSource
        case .unreachable: unreachable
        case .noTarget: noTarget
        case .resumable: resumable
        case .differs: differs
        case .forbidden: forbidden
        }
    }
}

/// Runs a command's body; what it throws is told on stderr and becomes the exit status.
func reporting(_ body: () async throws(MoveError) -> Void) async throws {
    do throws(MoveError) {
        try await body()
    } catch {
        tell(error)
        throw Status.of(error.kind)
    }
}

/// The same, for a command that isn't over with that.
func reported(_ body: () async throws(MoveError) -> Void) async -> Result<Void, any Error> {
    do {
        try await reporting(body)
        return .success(())
    } catch {
        return .failure(error)
    }
}

func tell(_ error: MoveError) {
    for (index, line) in error.lines.enumerated() { tell(index == 0 ? "godwit: \(line)" : "  \(line)") }
    if let advice = error.advice { tell("  \(advice)") }
}

/// A line on stderr; it takes the place of a bar that stands there.
func tell(_ line: String) {
    ProgressBar.isShown.withLock { isShown in
        emit((isShown ? ProgressBar.clearing : "") + line + "\n", to: STDERR_FILENO)
        isShown = false
    }
}

/// Text to a file descriptor, all of it unless the reader went away.
func emit(_ text: String, to descriptor: Int32) {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
        let written = unsafe bytes.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
        if written < 0, errno == EINTR { continue }
        guard written > 0 else { return }
        bytes = bytes.dropFirst(written)
    }
}
