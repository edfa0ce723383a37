import Foundation
import Synchronization
import Testing

/// A folder that is gone with its last reference.
final class Folder: Sendable {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "godwit-tls-\(UInt64.random(in: 0...(.max)))"
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    func take(_ name: String, from other: Folder, as newName: String? = nil) throws {
        let goal = file(newName ?? name)
        try? FileManager.default.removeItem(atPath: goal)
        try FileManager.default.copyItem(atPath: other.file(name), toPath: goal)
    }

    func write(_ text: String, to name: String, mode: Int = 0o600) throws {
        try? FileManager.default.removeItem(atPath: file(name))
        #expect(
            FileManager.default.createFile(
                atPath: file(name), contents: Data(text.utf8), attributes: [.posixPermissions: mode]))
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: file(name)) }

    func setMode(_ mode: Int, of name: String) throws {
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file(name))
    }
}

/// A CA with a server and a client that it has certified, made by openssl(1).
struct Authority: Sendable {
    /// Holds all that there is to know of it: `ca-key.pem`, too.
    let folder: Folder

    /// The one that most tests use.
    static let shared = Result { try Authority() }
    /// One that nobody knows.
    static let other = Result { try Authority() }

    init() throws {
        folder = try Folder()
        try openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=Godwit test CA \(UInt32.random(in: 0...(.max)))", "-keyout", "ca-key.pem", "-out",
            "ca-cert.pem")
        try certify("server", names: "DNS:localhost,IP:127.0.0.1")
        try certify("client")
    }

    /// - Parameter dates: As openssl-ca(1) has them; by default from now on for a month.
    func certify(
        _ owner: String, as name: String? = nil, names: String = "DNS:nobody.invalid", dates: (String, String)? = nil
    ) throws {
        let name = name ?? owner
        try openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
            "/CN=\(owner)", "-keyout", "\(name)-key.pem", "-out", "\(name).csr")
        try folder.write(
            """
            [ca]
            default_ca = all
            [all]
            database = \(name).index
            new_certs_dir = .
            rand_serial = yes
            default_md = sha256
            policy = any
            x509_extensions = leaf
            [any]
            commonName = supplied
            [leaf]
            basicConstraints = CA:FALSE
            extendedKeyUsage = \(owner)Auth
            subjectAltName = \(names)
            """, to: "\(name).conf")
        try folder.write("", to: "\(name).index")
        let period = dates.map { ["-startdate", $0.0, "-enddate", $0.1] } ?? ["-days", "30"]
        try openssl(
            ["ca", "-batch", "-notext", "-config", "\(name).conf", "-cert", "ca-cert.pem", "-keyfile", "ca-key.pem"]
                + period + ["-in", "\(name).csr", "-out", "\(name)-cert.pem"])
    }

    private func openssl(_ words: String...) throws { try openssl(words) }

    private func openssl(_ words: [String]) throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["openssl"] + words
        process.currentDirectoryURL = URL(filePath: folder.path)
        let output = Pipe()
        (process.standardInput, process.standardOutput, process.standardError) = (FileHandle.nullDevice, output, output)
        try process.run()
        let said = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Failed(what: String(decoding: said, as: UTF8.self)) }
    }

    struct Failed: Error { let what: String }

    /// A folder as a server or a client has it: never with the CA's key.
    func copy(of owners: String...) throws -> Folder {
        let copy = try Folder()
        try copy.take("ca-cert.pem", from: folder)
        for owner in owners {
            try copy.take("\(owner)-cert.pem", from: folder)
            try copy.take("\(owner)-key.pem", from: folder)
        }
        return copy
    }
}
