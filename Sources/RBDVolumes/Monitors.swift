internal import CCeph
internal import Foundation
internal import Volumes

extension Cluster {
    /// Asks the monitors.
    /// - Returns: Nothing if they refuse, or don't know.
    func ask<Answer: Decodable & Sendable>(_ command: [String: String]) async -> Answer? {
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
            let data = unsafe Data(bytes: output, count: length)
            guard let answer = try? JSONDecoder().decode(Answer.self, from: data) else {
                throw VolumeError(.damaged, "rados_mon_command", on: self.fsid, reason: "an answer of another form")
            }
            return answer
        }
    }
}
