import Conformance
import Foundation
import RBDVolumes
import Volumes

/// The cluster that the test run started; nothing where there is none.
let configuration = ProcessInfo.processInfo.environment["GODWIT_CLUSTER_DIR"].map { $0 + "/ceph.conf" }

/// Ceph's own programs: what a user would do to an image.
private func run(_ program: String, _ arguments: [String], input: [UInt8] = []) throws -> String {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [program] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(["CEPH_CONF": configuration ?? ""]) { $1 }
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
        throw CommandFailed(description: "\(program) \(arguments.joined(separator: " ")): \(process.terminationStatus)")
    }
    return text
}

private struct CommandFailed: Error { let description: String }

private func rbd(_ arguments: String...) throws -> String { try run("rbd", ["--no-progress"] + arguments) }

/// Writes bytes into an image with QEMU, whose client is librbd.
private func write(_ bytes: [UInt8], at offset: ByteOffset, to image: String) throws {
    let file = FileManager.default.temporaryDirectory.appending(path: "godwit-\(UUID().uuidString)")
    try Data(bytes).write(to: file)
    defer { try? FileManager.default.removeItem(at: file) }
    _ = try run(
        "qemu-io", ["-f", "raw", "-c", "write -s \(file.path) \(offset.bytes) \(bytes.count)", "rbd:\(image)"])
}

/// Removes an image and all that hangs on it, if it is there.
private func clear(_ image: String) {
    _ = try? rbd("snap", "purge", image)
    _ = try? rbd("rm", image)
}

/// Connections are shared by how they were asked for: a keyring of another name gives one of its own.
private func address(of image: String) throws -> RBDAddress {
    let directory = URL(filePath: configuration ?? "").deletingLastPathComponent()
    // In the cluster's own folder, which goes with it.
    let link = directory.appending(path: "conformance-\(UUID().uuidString).keyring")
    try FileManager.default.createSymbolicLink(at: link, withDestinationURL: directory.appending(path: "keyring"))
    return try RBDAddress("rbd:\(image):conf=\(configuration ?? ""):keyring=\(link.path)")
}

private func newName(_ pool: String) -> String { "\(pool)/conformance-\(UUID().uuidString)" }

extension TargetKind {
    /// Extents are exact to what the OSD allocates; librbd passes over discards that are smaller than this.
    static let rbd = TargetKind(granule: .kibibytes(64), holdsSnapshots: true) { _ in
        let image = newName("slow")
        return TargetSite(
            target: { try await RBDTarget.connect(to: try address(of: image)) },
            plant: { bytes in
                _ = try RBDConformanceTests.rbd("create", image, "--size", "\(bytes.count)B")
                try RBDConformanceTests.write(bytes, at: .zero, to: image)
            },
            leftovers: {
                let name = image.split(separator: "/")[1]
                return try run("rbd", ["ls", "slow"]).split(separator: "\n").map(String.init)
                    .filter { $0 == name || $0.hasPrefix(name + ".") }
            },
            remove: {
                for name in [image, image + ".godwit-unfinished"] { clear(name) }
            })
    }
}

extension SourceKind {
    static let rbd = SourceKind(granule: .kibibytes(64), holdsSnapshots: true) { _, size in
        let image = newName("fast")
        _ = try RBDConformanceTests.rbd("create", image, "--size", "\(size.bytes)B")
        return SourceSite(
            source: { try await RBDSource.connect(to: try address(of: image)) },
            write: { bytes, offset in try RBDConformanceTests.write(bytes, at: offset, to: image) },
            zero: { extent in
                _ = try run(
                    "qemu-io",
                    ["-f", "raw", "-c", "write -z \(extent.offset.bytes) \(extent.length.bytes)", "rbd:\(image)"])
            },
            resize: { size in
                _ = try RBDConformanceTests.rbd("resize", "--allow-shrink", "--size", "\(size.bytes)B", image)
            },
            takeSnapshot: { name in _ = try RBDConformanceTests.rbd("snap", "create", "\(image)@\(name)") },
            remove: { clear(image) })
    }
}

extension DiskKind {
    static let rbd = DiskKind(granule: .kibibytes(64), holdsSnapshots: true) { _, size in
        let image = newName("fast")
        _ = try RBDConformanceTests.rbd("create", image, "--size", "\(size.bytes)B")
        return DiskSite(
            volume: { try await RBDSource.connect(to: try address(of: image)) },
            takeSnapshot: { name in _ = try RBDConformanceTests.rbd("snap", "create", "\(image)@\(name)") },
            remove: { clear(image) })
    }
}

extension LiveSourceSite {
    static func rbd() throws -> LiveSourceSite {
        let image = newName("fast")
        let limit = "conf_rbd_qos_write_bps_limit"
        _ = try RBDConformanceTests.rbd("create", image, "--size", "16M")
        return LiveSourceSite(
            source: { try await RBDSource.connect(to: try address(of: image)) },
            attach: {
                let client = try await RBDSource.connect(to: try address(of: image))
                try await client.stayOpen()
                return { await client.letGo() }
            },
            limit: {
                // It isn't there where this fails.
                (try? run("rbd", ["image-meta", "get", image, limit]))?.split(separator: "\n").first
                    .map(String.init)
            },
            setLimit: { value in
                if let value {
                    _ = try run("rbd", ["image-meta", "set", image, limit, value])
                } else {
                    _ = try? run("rbd", ["image-meta", "remove", image, limit])
                }
            },
            remove: {
                clear(image)
                clear(image + ".godwit-moved")
            })
    }
}
