internal import CCeph
internal import Foundation
internal import Volumes

/// How an unfinished target is told from every other image.
///
/// Until it is finished it stands under another name, so that nobody takes it for the volume; the move's record and
/// who is at it stand in its image metadata. Becoming finished is one rename.
enum Marking {
    /// Keys that are Godwit's own, and never the user's.
    static let prefix = "godwit."
    static let record = "godwit.record"
    static let holder = "godwit.holder"
    /// In a source: the limit that a live move has put on its clients, and what there was before.
    static let throttle = "godwit.throttle"
    /// In a source, one for each move of it: which process is at it, and where it goes.
    static let claim = "godwit.move."
    /// In a source: where a live move has brought it.
    static let moved = "godwit.moved"
    static let suffix = ".godwit-unfinished"
    /// Of a source that was moved, where it was to be renamed.
    static let movedSuffix = ".godwit-moved"

    static func unfinished(_ name: String) -> String { name + suffix }
}

// What Godwit notes in an image of its own, straight in the header: for each pair librbd would take the lock, tell every
// client of the image and read the header anew, which takes ten times as long. No client has to know.
extension Image {
    func mark(_ key: String, _ value: String) async throws(VolumeError) {
        try await pool.change("rbd_header." + (try await imageID()), .setMetadata([(key, Array(value.utf8))]))
    }

    /// Without complaint if there is none.
    func unmark(_ key: String) async throws(VolumeError) {
        // By way of the journal, where there is one: a mirror may have copied the pair.
        if try await features().contains(.journaling) {
            do throws(VolumeError) {
                unsafe try await call("rbd_metadata_remove") { unsafe rbd_metadata_remove($0, key) }
            } catch  where error.kind == .missing {
            }
            return
        }
        try await pool.change("rbd_header." + (try await imageID()), .removeMetadata(key))
    }
}

/// The process that is at an unfinished target: enough to tell whether it still lives, and to fence it if it doesn't.
struct Holder: Codable, Sendable, Equatable {
    let host: String
    /// Differs after each start of the host.
    let boot: String
    let process: Int32
    /// In which the process has its number: containers of one host have their own (pid_namespaces(7)).
    let namespace: String
    /// In clock ticks since the host's start (proc(5), field 22 of /proc/PID/stat): process numbers are used again.
    let started: UInt64
    /// How the OSDs know its client.
    let client: String

    static func own(client: String) -> Holder {
        let process = getpid()
        return Holder(
            host: ProcessInfo.processInfo.hostName, boot: bootID(), process: process, namespace: pidNamespace(),
            started: startTime(of: process) ?? 0,
            client: client)
    }

    var text: String {
        // Strings and numbers always encode.
        String(decoding: try! JSONEncoder().encode(self), as: UTF8.self)
    }

    /// Whether a watcher's address is one of the client's.
    func has(_ address: String) -> Bool {
        !plainAddresses(of: client).isDisjoint(with: plainAddresses(of: address))
    }

    enum Life { case alive, dead, unknown }

    /// Whether that process lives, as far as this host can tell.
    var life: Life {
        guard isOfThisHost else { return .unknown }
        return Self.startTime(of: process) == started ? .alive : .dead
    }

    /// Whether it can be told from here, by its number.
    var isOfThisHost: Bool { boot == Self.bootID() && namespace == Self.pidNamespace() }

    private static func bootID() -> String {
        let path = "/proc/sys/kernel/random/boot_id"
        return (try? String(contentsOfFile: path, encoding: .utf8))?.trimmingCharacters(in: .whitespacesAndNewlines)
            ?? ""
    }

    private static func pidNamespace() -> String {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/pid")) ?? ""
    }

    private static func startTime(of process: Int32) -> UInt64? {
        guard let stat = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
            let close = stat.lastIndex(of: ")")
        else { return nil }
        // Fields count from the process's state, the third, which follows its name in parentheses.
        let fields = stat[stat.index(after: close)...].split(separator: " ")
        // A dead process that nobody has waited for yet writes nothing any more.
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }
}

extension Holder {
    /// - Returns: Nothing if it is no holder that this version knows.
    init?(text: String) {
        guard let holder = try? JSONDecoder().decode(Holder.self, from: Data(text.utf8)) else { return nil }
        self = holder
    }
}
