internal import Checksums
internal import Relay
internal import Volumes

/// A state that a receiver has open.
struct RemoteReader: DigestingReader {
    private let link: RelayLink
    private let reader: RelayReply.OpenedReader
    private let title: String

    init(_ link: RelayLink, _ reader: RelayReply.OpenedReader, title: String) {
        (self.link, self.reader, self.title) = (link, reader, title)
    }

    var size: ByteCount { reader.size }
    var means: ExtentMeans { reader.means }
    var extentUnit: ByteCount { reader.extentUnit }

    func extents(in range: Extent, since base: Snapshot?) async throws(VolumeError) -> ExtentSet {
        var found = ExtentSet()
        for part in range.parts(of: RelayBounds.window) {
            let reply = try await link.ask(.extents(reader: reader.number, part, since: base))
            guard case .extents(let extents) = reply else { preconditionFailure("a reply is of its request's kind") }
            for extent in extents.within(part).extents { found.append(extent) }
        }
        return found
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let whole = Extent(offset: offset, length: ByteCount(UInt64(buffer.count)))
        for part in whole.parts(of: ByteCount(UInt64(RelayBounds.payload))) {
            let reply = try await link.ask(.read(reader: reader.number, part))
            guard case .bytes(let payload) = reply else { preconditionFailure("a reply is of its request's kind") }
            let start = Int((part.offset - offset).bytes)
            let place = unsafe UnsafeMutableRawBufferPointer(
                rebasing: buffer[start..<start + Int(part.length.bytes)])
            guard payload.length == place.count, unsafe payload.unpack(into: place) else {
                throw VolumeError(
                    .damaged, "read", on: "\(title) at byte \(part.offset.bytes)",
                    reason: "what arrived isn't what was sent", advice: "Look at both hosts and what is between.")
            }
        }
    }

    func digests(of extent: Extent, chunk: ByteCount) async throws(VolumeError) -> [UInt64] {
        let reply = try await link.ask(.digest(reader: reader.number, extent, chunk: chunk))
        guard case .digests(let digests) = reply else { preconditionFailure("a reply is of its request's kind") }
        guard digests.count == extent.length.pieces(of: chunk) else {
            throw VolumeError(
                .damaged, "digest", on: "\(title) at byte \(extent.offset.bytes)",
                reason: "\(digests.count) digests of \(extent.length.pieces(of: chunk)) chunks")
        }
        return digests
    }

    func close() async { _ = try? await link.ask(.close(reader: reader.number)) }
}

extension Extent {
    /// The same in parts of at most `most` bytes.
    func parts(of most: ByteCount) -> some Sequence<Extent> {
        sequence(state: self) { rest -> Extent? in
            guard !rest.isEmpty else { return nil }
            let part = Extent(offset: rest.offset, length: min(rest.length, most))
            rest = Extent(from: part.end, to: rest.end)
            return part
        }
    }
}
