internal import ArgumentParser
internal import Foundation
internal import Glibc
internal import Mirror
internal import RBDVolumes
internal import Volumes

/// A second process that outlives a live move which is ended by force, by just so long as it takes to let its writer go
/// on: nobody stays slowed or held still because of a kill -9.
final class Guardian: Sendable {
    private let lifeline: Pipe
    private let process: Process

    /// - Returns: Nothing if it can't be started: the move goes on without.
    init?(source: String, target: String) {
        lifeline = Pipe()
        process = Process()
        process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["guard", source, target, "--process", "\(getpid())"]
        process.standardInput = lifeline
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        do {
            try process.run()
        } catch {
            return nil
        }
        // Ours to write to alone: a hook that inherited it would keep it open.
        _ = fcntl(lifeline.fileHandleForWriting.fileDescriptor, F_SETFD, FD_CLOEXEC)
        try? lifeline.fileHandleForReading.close()
    }

    /// The move is over, or ended in order: there is nothing to be done.
    func dismiss() {
        try? lifeline.fileHandleForWriting.write(contentsOf: Data("done".utf8))
        try? lifeline.fileHandleForWriting.close()
    }
}

struct Guard: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Lets the writer of a live move go on if the move is ended by force; started by 'godwit migrate'.",
        shouldDisplay: false)

    @Argument var source: String
    @Argument var target: String
    @Option(help: "The move's process.") var process: Int32

    /// What the dead process had sent is carried out or lost by then.
    private static let grace = Duration.milliseconds(500)

    func run() async throws {
        // Whatever ends the move's whole group isn't meant for this one.
        for number in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] { signal(number, SIG_IGN) }
        setsid()
        guard await !isDismissed() else { return }
        try? await Task.sleep(for: Self.grace)
        let (from, to) = (try AddressArgument.explained(source).address, try AddressArgument.explained(target).address)
        guard case .rbd(let address) = from else { return }
        try await reporting { () async throws(MoveError) in
            let volume = try await staged(.source) { () throws(VolumeError) in
                try await RBDSource.connect(to: address)
            }
            let target = try await staged(.target) { () throws(VolumeError) in try await Opening.target(to) }
            // Whoever has taken the move over since does the same, and may hold the writer still again by now.
            let client = try await staged(.source) { () throws(VolumeError) in
                try await volume.client(ofClaimant: process, for: target.address)
            }
            guard let client else { return }
            try await Relief(source: volume) { title throws(VolumeError) in
                try Opening.hold(titled: title, from: from, to: to)
            }.run(of: target, fencing: client)
        }
    }

    /// Waits until the move's process has said that it is over, or is no more.
    private func isDismissed() async -> Bool {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                let said = (try? FileHandle.standardInput.readToEnd()) ?? nil
                continuation.resume(returning: said.map { String(decoding: $0, as: UTF8.self) } == "done")
            }
        }
    }
}
