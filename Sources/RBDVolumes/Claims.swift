internal import Checksums
internal import Foundation
package import Volumes

/// What stands in a source while a move is at it.
struct Claim: Codable, Sendable, Equatable {
    let target: String
    let holder: Holder
    let isLive: Bool

    /// One for each target: an image may be copied to several at a time.
    static func key(for target: String) -> String {
        Marking.claim + String(crc32c(Array(target.utf8)[...], seed: 0), radix: 16)
    }

    init(target: String, holder: Holder, isLive: Bool) {
        self.target = target
        self.holder = holder
        self.isLive = isLive
    }

    init?(encoded: [UInt8]) {
        guard let claim = try? JSONDecoder().decode(Claim.self, from: Data(encoded)) else { return nil }
        self = claim
    }

    /// Strings and numbers always encode.
    var encoded: [UInt8] { Array((try? JSONEncoder().encode(self)) ?? Data()) }
}

extension RBDSource {
    package func claim(for target: String, isLive: Bool) async throws(VolumeError) {
        // An image of format 1 has nowhere to say so, and isn't moved live.
        guard let id = try await pool.id(ofNamed: name) else { return }
        let header = "rbd_header." + id
        for claim in try await pool.claims(header) where isLive && claim.isLive && claim.target != target {
            let mover = "process \(claim.holder.process) on \(claim.holder.host)"
            switch claim.holder.life {
            case .dead: continue
            case .alive where claim.holder.client != cluster.clientAddresses:
                throw VolumeError(
                    .busy, "claim", on: address, reason: "\(mover) is moving it to \(claim.target)",
                    advice: "Wait for that to end, or end it.")
            case .alive: continue
            case .unknown:
                throw VolumeError(
                    .busy, "claim", on: address, reason: "\(mover) was moving it to \(claim.target), and may be still",
                    advice:
                        "Give that move's command again, or 'godwit abort \(claim.target)', if that process is no more."
                )
            }
        }
        let claim = Claim(target: target, holder: .own(client: cluster.clientAddresses), isLive: isLive)
        try await pool.change(header, .setMetadata([(Claim.key(for: target), claim.encoded)]))
    }

    /// The client of a process on this host that says it moves the volume to `target`; nothing if it isn't that one, or
    /// not any more.
    package func client(ofClaimant process: Int32, for target: String) async throws(VolumeError) -> String? {
        let header = try await headerName()
        guard let claim = try await pool.claims(header).first(where: { $0.target == target }),
            claim.holder.isOfThisHost, claim.holder.process == process
        else { return nil }
        return claim.holder.client
    }

    package func release(from target: String) async throws(VolumeError) {
        guard let id = try await pool.id(ofNamed: name) else { return }
        let header = "rbd_header." + id
        guard try await pool.claims(header).contains(where: { $0.target == target }) else { return }
        try await pool.change(header, .removeMetadata(Claim.key(for: target)))
    }
}

extension Pool {
    /// The moves that say they are at the image of that header.
    func claims(_ header: String) async throws(VolumeError) -> [Claim] {
        try await (ownMetadata(header) ?? []).filter { $0.key.hasPrefix(Marking.claim) }.compactMap {
            Claim(encoded: $0.value)
        }
    }

    /// What Godwit has noted in an image, by key; nothing more than a page of it.
    /// - Returns: Nothing if there is no such header.
    func ownMetadata(_ header: String) async throws(VolumeError) -> [(key: String, value: [UInt8])]? {
        let most: UInt64 = 256
        let call = ClassCall("metadata_list", CephEncoder.string(Marking.prefix) + CephEncoder.integer(most))
        guard let answer = try await self.call([call], on: header)?[0] else { return nil }
        let pairs = try answer.decoded(of: header, in: self) { decoder throws(CephDecoder.Malformed) in
            try decoder.list { decoder throws(CephDecoder.Malformed) in
                (key: String(decoding: try decoder.byteString(), as: UTF8.self), value: try decoder.byteString())
            }
        }
        return pairs.filter { $0.key.hasPrefix(Marking.prefix) }
    }
}
