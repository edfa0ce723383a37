internal import CCeph
internal import Foundation
internal import Volumes

extension Cluster {
    /// The addresses of the clients that are evicted; none where the monitors don't tell.
    func evicted() async -> Set<String> {
        // Ceph 16.2 answers with two arrays where JSON is asked for; the lines begin with an address each.
        let lines = await answer(to: ["prefix": "osd blocklist ls"])?.split(separator: UInt8(ascii: "\n")) ?? []
        return Set(
            lines.flatMap { line in
                plainAddresses(of: String(decoding: line.prefix { $0 != UInt8(ascii: " ") }, as: UTF8.self))
            })
    }

    /// Asks the monitors something that they answer in JSON.
    /// - Returns: Nothing if they refuse, or don't know, or answer in another form.
    func ask<Answer: Decodable & Sendable>(_ command: [String: String]) async -> Answer? {
        await answer(to: command).flatMap { try? JSONDecoder().decode(Answer.self, from: $0) }
    }

    private func answer(to command: [String: String]) async -> Data? {
        guard let json = try? JSONEncoder().encode(command) else { return nil }
        return try? await blocking { () throws(VolumeError) in
            var output: UnsafeMutablePointer<CChar>?
            var length = 0
            let text = String(decoding: json, as: UTF8.self)
            let code = unsafe text.withCString { line in
                var lines: [UnsafePointer<CChar>?] = unsafe [line]
                return unsafe lines.withUnsafeMutableBufferPointer { buffer in
                    unsafe buffer.withMemoryRebound(to: UnsafePointer<CChar>?.self) {
                        unsafe rados_mon_command(
                            self.handle,
                            UnsafeMutableRawPointer($0.baseAddress!).assumingMemoryBound(
                                to: UnsafePointer<CChar>?.self), 1, nil, 0, &output, &length, nil, nil)
                    }
                }
            }
            defer { unsafe rados_buffer_free(output) }
            guard code >= 0, let output = unsafe output else {
                throw VolumeError(ceph: code, "rados_mon_command", on: self.fsid)
            }
            return unsafe Data(bytes: output, count: length)
        }
    }
}
