import Conformance
import Foundation
import NBDVolumes
import Synchronization
import Testing
import Volumes

/// One at a time: each check starts servers.
@Suite(.serialized) struct RealServerTests {
    @Test(
        arguments: [RealServer.nbdkitMemory, .nbdkitFile, .qemuRaw, .qemuQcow2],
        TargetCheck.all.filter { !$0.needsRecord })
    func `real servers' exports as targets`(server: RealServer, check: TargetCheck) async throws {
        try await check.run(server.target)
    }

    @Test(arguments: [RealServer.nbdkitMemory, .nbdkitFile], SourceCheck.all)
    func `real servers' exports as sources`(server: RealServer, check: SourceCheck) async throws {
        try await check.run(server.source)
    }

    @Test(arguments: RealServer.allCases, DiskCheck.all)
    func `real servers' exports as disks`(server: RealServer, check: DiskCheck) async throws {
        try await check.run(server.disk)
    }
}

/// Servers of others, started for a test and ended with it.
enum RealServer: String, Sendable, CaseIterable {
    case nbdkitMemory = "nbdkit memory"
    case nbdkitFile = "nbdkit file"
    case qemuRaw = "qemu-nbd raw"
    case qemuQcow2 = "qemu-nbd qcow2"

    /// In which a write of a byte makes data.
    private var granule: ByteCount {
        switch self {
        // nbdkit-memory-plugin(1) keeps pages of 32 KiB; the others go by clusters and pages of the file system.
        case .nbdkitMemory, .nbdkitFile, .qemuRaw, .qemuQcow2: .kibibytes(64)
        }
    }

    var target: TargetKind {
        TargetKind(granule: granule, holdsSnapshots: false, holdsRecord: false) { _ in
            let server = try await RunningServer(self, size: .mebibytes(8))
            return TargetSite(
                target: { try await NBDTarget.connect(to: server.address, holding: .zeros) },
                plant: { bytes in try await server.replace(by: bytes) }, leftovers: { ["the export"] },
                remove: { server.end() })
        }
    }

    var disk: DiskKind {
        DiskKind(granule: granule, holdsSnapshots: false) { _, size in
            let server = try await RunningServer(self, size: size)
            return DiskSite(
                volume: { try await NBDSource.connect(to: server.address) }, remove: { server.end() })
        }
    }

    var source: SourceKind {
        SourceKind(granule: granule, holdsSnapshots: false, noticesChanges: false) { _, size in
            let server = try await RunningServer(self, size: size)
            let user = try await NBDExport.connect(to: server.address)
            return SourceSite(
                source: { try await NBDSource.connect(to: server.address) },
                write: { bytes, offset in try await user.write(bytes, at: offset) },
                zero: { try await user.zero($0) },
                resize: { _ in preconditionFailure("it wouldn't notice") }, takeSnapshot: { _ in },
                remove: { server.end() })
        }
    }
}

extension NBDExport {
    func write(_ bytes: [UInt8], at offset: ByteOffset) async throws(VolumeError) {
        unsafe try await withIOBuffer(of: ByteCount(UInt64(bytes.count))) { buffer throws(VolumeError) in
            unsafe buffer.copyBytes(from: bytes)
            unsafe try await self.write(UnsafeRawBufferPointer(buffer), at: offset)
        }
    }
}

/// One of them, on a socket in a folder of its own.
final class RunningServer: Sendable {
    private struct Failed: Error { let what: String }

    private let kind: RealServer
    private let folder: String
    private let process = Mutex<pid_t?>(nil)

    var address: NBDAddress { NBDAddress(server: .unix(path: folder + "/socket"), export: "") }

    init(_ kind: RealServer, size: ByteCount) async throws {
        self.kind = kind
        folder = NSTemporaryDirectory() + "godwit-server-\(UInt64.random(in: 0...(.max)))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        switch kind {
        case .nbdkitMemory: break
        case .nbdkitFile, .qemuRaw:
            try Data().write(to: URL(filePath: folder + "/disk"))
            guard unsafe truncate(folder + "/disk", Int(size.bytes)) == 0 else { throw Failed(what: "truncate") }
        case .qemuQcow2: try await makeQcow2(size)
        }
        try await start(size)
    }

    deinit { end() }

    private func makeQcow2(_ size: ByteCount) async throws {
        let process = try Self.started(["qemu-img", "create", "-q", "-f", "qcow2", folder + "/disk", "\(size.bytes)"])
        guard Self.status(of: process) == 0 else { throw Failed(what: "qemu-img") }
    }

    private func start(_ size: ByteCount) async throws {
        let socket = folder + "/socket"
        let nbdkit = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket]
        let qemu = ["qemu-nbd", "--persistent", "--shared=8", "--discard=unmap", "--socket", socket, "--format"]
        let words =
            switch kind {
            case .nbdkitMemory: nbdkit + ["memory", "\(size.bytes)"]
            case .nbdkitFile: nbdkit + ["file", folder + "/disk"]
            case .qemuRaw: qemu + ["raw", folder + "/disk"]
            case .qemuQcow2: qemu + ["qcow2", folder + "/disk"]
            }
        let started = try Self.started(words)
        process.withLock { $0 = started }
        for _ in 0..<10_000 {
            // The socket is there before anybody listens: only a connection tells.
            if (try? await NBDExport.connect(to: address)) != nil { return }
            try await Task.sleep(for: .milliseconds(2))
        }
        throw Failed(what: "\(words) doesn't listen")
    }

    private static func started(_ words: [String]) throws -> pid_t {
        let arguments = unsafe words.map { unsafe strdup($0) } + [nil]
        defer { unsafe arguments.forEach { unsafe free($0) } }
        var process: pid_t = 0
        guard unsafe posix_spawnp(&process, words[0], nil, nil, arguments, environ) == 0 else {
            throw Failed(what: words[0])
        }
        return process
    }

    /// Waits until a process has ended.
    private static func status(of process: pid_t) -> Int32 {
        var status: Int32 = 0
        while unsafe waitpid(process, &status, 0) < 0, errno == EINTR {}
        return status
    }

    /// Another volume in its place, with these bytes.
    func replace(by bytes: [UInt8]) async throws {
        stop()
        try? FileManager.default.removeItem(atPath: folder + "/socket")
        let size = ByteCount(UInt64(bytes.count))
        switch kind {
        case .nbdkitMemory: break
        case .nbdkitFile, .qemuRaw: try Data(bytes).write(to: URL(filePath: folder + "/disk"))
        case .qemuQcow2: try await makeQcow2(size)
        }
        try await start(size)
        try await NBDExport.connect(to: address).write(bytes, at: .zero)
    }

    private func stop() {
        guard let process = process.withLock({ $0.take() }) else { return }
        // By force: asked to end, some wait for their clients first, who wait for this.
        kill(process, SIGKILL)
        _ = Self.status(of: process)
    }

    func end() {
        stop()
        try? FileManager.default.removeItem(atPath: folder)
    }
}
