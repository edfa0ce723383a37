internal import Foundation
internal import Subprocess
internal import Synchronization
internal import SystemPackage

/// A command of the operator's, run to its end within a time.
struct Hook: Sendable {
    let command: String
    let arguments: [String]
    let environment: [String: String]
    let limit: Duration

    enum End: Sendable, Equatable {
        case exited(Int32)
        case killed(signal: Int32)
        /// It was ended by force, with all that it had started.
        case overdue
        /// There was no way of starting it.
        case unstarted(String)
    }

    /// What it may still do after SIGTERM.
    static let grace = Duration.seconds(2)
    /// What is kept of its output: the end of it. What goes before is read, and dropped.
    static let mostOutput = 16 << 10

    /// Runs it in a process group of its own, so that a signal from the terminal doesn't reach it, and all of it can be
    /// ended. A cancelled task waits for its end as well: a VM is not to be left half held.
    func run() async -> (end: End, output: String) {
        // Owned by the caller, who waits for it; a task of its own, since a child would be cancelled along.
        await Task { await runToItsEnd() }.value
    }

    private func runToItsEnd() async -> (End, String) {
        let pipe: HookOutput
        do {
            pipe = try HookOutput()
        } catch {
            return (.unstarted("\(error)"), "")
        }
        let state = HookState()
        var options = PlatformOptions()
        options.processGroupID = 0  // that is, its own
        let configuration = Configuration(
            executable: .path("/bin/sh"),
            // The command's own words first, then what it is asked for, as it would be for a shell's user.
            arguments: Arguments(["-c", command + " \"$@\"", "sh"] + arguments),
            environment: .inherit.updating(
                Dictionary(uniqueKeysWithValues: environment.map { (.init(stringLiteral: $0), $1) })),
            platformOptions: options)
        let (end, output) = await withTaskGroup(of: Void.self) { group in
            group.addTask { await pipe.collect() }
            group.addTask {
                guard (try? await Task.sleep(for: limit)) != nil else { return }
                let pid = state.becomeOverdue()
                if pid > 0 { await Self.endGroup(pid) }
            }
            let end = await spawn(configuration, pipe) { pid in
                // Started only now, and overdue: then nobody else would end it.
                let isOverdue = state.begin(pid)
                if isOverdue { await Self.endGroup(pid) }
            }
            group.cancelAll()
            await group.waitForAll()
            return (end, pipe.tail)
        }
        return (state.isOverdue ? .overdue : end, output)
    }

    private func spawn(
        _ configuration: Configuration, _ pipe: HookOutput, started: @Sendable (pid_t) async -> Void
    ) async -> End {
        do {
            let result = try await Subprocess.run(
                configuration, input: .none,
                output: .fileDescriptor(pipe.writeEnd, closeAfterSpawningProcess: false),
                error: .fileDescriptor(pipe.writeEnd, closeAfterSpawningProcess: true)
            ) { execution in
                await started(execution.processIdentifier.value)
            }
            switch result.terminationStatus {
            case .exited(let code): return .exited(code)
            case .signaled(let signal): return .killed(signal: signal)
            }
        } catch {
            return .unstarted("\(error)")
        }
    }

    /// SIGTERM to all of the group, and SIGKILL to what is left of it after its grace.
    private static func endGroup(_ pid: pid_t) async {
        _ = kill(-pid, SIGTERM)
        let end = ContinuousClock.now + grace
        while kill(-pid, 0) == 0, ContinuousClock.now < end {
            // Awaited here; a task of its own because this one is cancelled when the shell has ended, and the others of
            // its group still have their grace.
            await Task { try? await Task.sleep(for: .milliseconds(20)) }.value
        }
        _ = kill(-pid, SIGKILL)
    }
}

/// What its start and its clock have to know of one another.
private final class HookState: Sendable {
    private let state = Mutex<(pid: pid_t, isOverdue: Bool)>((0, false))

    /// - Returns: The process to end; 0 if there is none yet.
    func becomeOverdue() -> pid_t {
        state.withLock {
            $0.isOverdue = true
            return $0.pid
        }
    }
    /// - Returns: Whether it has to be ended at once.
    func begin(_ pid: pid_t) -> Bool {
        state.withLock {
            $0.pid = pid
            return $0.isOverdue
        }
    }
    var isOverdue: Bool { state.withLock { $0.isOverdue } }
}

/// The end of what a hook prints, read for as long as the hook itself runs: a child that it leaves behind may keep the
/// pipe open for ever.
private final class HookOutput: Sendable {
    let writeEnd: FileDescriptor
    private let readEnd: FileDescriptor
    private let kept = Mutex<[UInt8]>([])

    init() throws(Errno) {
        var ends: [Int32] = [-1, -1]
        guard unsafe pipe2(&ends, O_CLOEXEC) == 0 else { throw Errno(rawValue: errno) }
        (readEnd, writeEnd) = (FileDescriptor(rawValue: ends[0]), FileDescriptor(rawValue: ends[1]))
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
    }

    deinit { try? readEnd.close() }

    /// Until cancelled.
    func collect() async {
        while !Task.isCancelled {
            drain()
            try? await Task.sleep(for: .milliseconds(10))
        }
    }

    /// All that was printed by now; no more than a pipe holds at a time, whatever still writes to it.
    private func drain() {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        for _ in 0..<16 {
            guard let count = unsafe try? buffer.withUnsafeMutableBytes({ unsafe try readEnd.read(into: $0) }),
                count > 0
            else { return }
            kept.withLock {
                $0.append(contentsOf: buffer[..<count])
                if $0.count > Hook.mostOutput { $0.removeFirst($0.count - Hook.mostOutput) }
            }
        }
    }

    var tail: String {
        drain()
        return String(decoding: kept.withLock { $0 }, as: UTF8.self)
    }
}
