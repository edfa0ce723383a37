internal import Foundation
internal import Glibc
internal import Sockets
package import Volumes

/// Where the moves of a user on this host listen: a directory that is the user's alone.
package struct RuntimeDirectory: Sendable, Equatable {
    package let path: String

    /// - Parameter path: Absolute.
    package init(path: String) {
        // A slash at the end would make lstat(2) follow a link.
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        self.path = path
    }

    /// Where a move of this process listens: the first of those where one is looked for.
    package static func ownMoves(
        environment: [String: String] = ProcessInfo.processInfo.environment, user: UInt32 = geteuid()
    ) -> RuntimeDirectory {
        allMoves(environment: environment, user: user)[0]
    }

    /// Where moves of this user may listen.
    ///
    /// Root's always listen in one place, and another user's are looked for in both: a service and a login shell differ
    /// in `XDG_RUNTIME_DIR`.
    package static func allMoves(
        environment: [String: String] = ProcessInfo.processInfo.environment, user: UInt32 = geteuid()
    ) -> [RuntimeDirectory] {
        if let path = environment["GODWIT_RUNTIME_DIR"], !path.isEmpty { return [RuntimeDirectory(path: path)] }
        if user == 0 { return [RuntimeDirectory(path: "/run/godwit")] }
        var directories: [RuntimeDirectory] = []
        // XDG Base Directory Specification: a path that is not absolute is to be ignored.
        if let path = environment["XDG_RUNTIME_DIR"], path.hasPrefix("/") {
            directories.append(RuntimeDirectory(path: path + "/godwit"))
        }
        return directories + [RuntimeDirectory(path: "/tmp/godwit-\(user)")]
    }

    // MARK: Ours alone

    private static let purpose = "use as the runtime directory"
    private static let another = "Name another with GODWIT_RUNTIME_DIR."

    /// Makes it, if it isn't there, and makes sure that it is this user's alone.
    package func make() throws(VolumeError) {
        try refuseRelative()
        if unsafe mkdir(path, 0o700) < 0, errno != EEXIST {
            throw VolumeError(errno: errno, "mkdir", on: path, advice: Self.another)
        }
        guard try exists() else {
            throw VolumeError(.missing, Self.purpose, on: path, reason: "it was removed while it was made")
        }
    }

    /// Whether it is there, and this user's alone. Anything else there is refused.
    func exists() throws(VolumeError) -> Bool {
        try refuseRelative()
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else {
            let code = errno
            if code == ENOENT { return false }
            throw VolumeError(errno: code, "lstat", on: path, advice: Self.another)
        }
        func refusal(_ reason: String, _ advice: String) -> VolumeError {
            VolumeError(.forbidden, Self.purpose, on: path, reason: reason, advice: advice)
        }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: break
        case S_IFLNK: throw refusal("it is a symbolic link", Self.another)
        default: throw refusal("it is no directory", Self.another)
        }
        guard status.st_uid == geteuid() else {
            throw refusal(
                "it belongs to another user (uid \(status.st_uid))",
                "Give the command as that user, or name another directory with GODWIT_RUNTIME_DIR.")
        }
        guard status.st_mode & 0o022 == 0 else {
            throw refusal("others may write to it", "Name one that is yours alone with GODWIT_RUNTIME_DIR.")
        }
        return true
    }

    private func refuseRelative() throws(VolumeError) {
        guard path.hasPrefix("/"), !path.utf8.contains(0) else {
            throw VolumeError(.unsupported, Self.purpose, on: path, reason: "its path is not absolute")
        }
    }

    // MARK: What is in it

    /// The sockets in it, by name. Nothing if there is no such directory.
    func sockets() throws(VolumeError) -> [SocketPath] {
        guard try exists() else { return [] }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: path)
        } catch {
            throw VolumeError(.failed, "list", on: path, reason: error.localizedDescription)
        }
        return names.sorted().compactMap { SocketPath(directory: self, name: $0) }
    }
}

/// The path of a control socket: PID.sock, PID-2.sock for a second of one process, .PID-WORD.sock while it is made.
struct SocketPath: Sendable, Equatable {
    let text: String
    /// The process that made it, in the PID namespace it runs in.
    let process: Int32
    /// Not yet given its name: perhaps nobody listens yet.
    let isBeingMade: Bool

    init?(directory: RuntimeDirectory, name: String) {
        guard let match = name.wholeMatch(of: /(\.?)([0-9]{1,10})(-[0-9a-z]{1,16})?\.sock/),
            let process = Int32(match.2)
        else { return nil }
        text = directory.path + "/" + name
        self.process = process
        isBeingMade = !match.1.isEmpty
    }

    private init(_ text: String, process: Int32, isBeingMade: Bool) {
        (self.text, self.process, self.isBeingMade) = (text, process, isBeingMade)
    }

    /// - Parameter number: From 1 on.
    static func numbered(_ number: Int, of process: Int32, in directory: RuntimeDirectory) -> SocketPath {
        let name = number == 1 ? "\(process).sock" : "\(process)-\(number).sock"
        return SocketPath(directory.path + "/" + name, process: process, isBeingMade: false)
    }

    /// One that nobody else makes.
    static func unnamed(of process: Int32, in directory: RuntimeDirectory) -> SocketPath {
        let word = String(UInt32.random(in: 0 ... .max), radix: 36)
        return SocketPath("\(directory.path)/.\(process)-\(word).sock", process: process, isBeingMade: true)
    }
}
