internal import Checksums
package import NIOCore
package import Volumes

/// Bytes of a volume as they go over the wire: as they are, or as an LZ4 block, with a checksum of what they are.
package struct Payload: Sendable, Equatable {
    package enum Encoding: UInt32, Sendable {
        case raw = 0
        case lz4 = 1
        /// Zeros: nothing goes over the wire.
        case zeros = 2
    }

    package let encoding: Encoding
    /// Bytes of the volume.
    package let length: Int
    /// CRC-32C of the bytes as they are in the volume.
    package let checksum: UInt32
    package let stored: ByteBuffer

    package init(encoding: Encoding, length: Int, checksum: UInt32, stored: ByteBuffer) {
        (self.encoding, self.length, self.checksum, self.stored) = (encoding, length, checksum, stored)
    }

    /// - Parameters:
    ///   - bytes: One to `RelayBounds.payload`.
    ///   - acceleration: Nothing to leave them as they are.
    package init(_ bytes: UnsafeRawBufferPointer, acceleration: Int?) {
        precondition(bytes.count > 0 && bytes.count <= RelayBounds.payload, "a payload is bounded")
        let checksum = unsafe standardCRC32C(bytes)
        if let acceleration, let block = unsafe LZ4.compress(bytes, acceleration: acceleration) {
            self.init(encoding: .lz4, length: bytes.count, checksum: checksum, stored: block)
        } else {
            unsafe self.init(encoding: .raw, length: bytes.count, checksum: checksum, stored: ByteBuffer(bytes: bytes))
        }
    }

    /// Whether it may be so: what is checked before anything is done with it.
    var hasShape: Bool {
        switch encoding {
        case .raw: length > 0 && length <= RelayBounds.payload && stored.readableBytes == length
        case .lz4: length > 0 && length <= RelayBounds.payload && stored.readableBytes < length
        case .zeros: false
        }
    }

    /// The bytes as they are in the volume, for the time of `body`: where they arrived, or unpacked.
    ///
    /// - Parameter body: Is told nothing if they aren't what was sent.
    package func withBytes<Value>(
        _ body: (UnsafeRawBufferPointer?) async throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        guard encoding == .raw else {
            return unsafe try await withIOBuffer(of: ByteCount(UInt64(length))) { buffer throws(VolumeError) in
                let isRight = unsafe unpack(into: buffer)
                return try await unsafe body(isRight ? UnsafeRawBufferPointer(buffer) : nil)
            }
        }
        // Counted by hand: what `body` waits for reads from it.
        let (bytes, storage) = unsafe stored.withUnsafeReadableBytesWithStorageManagement { bytes, storage in
            unsafe (bytes, storage.retain())
        }
        defer { unsafe storage.release() }
        let isRight = unsafe standardCRC32C(bytes) == checksum
        return try await unsafe body(isRight ? bytes : nil)
    }

    /// Puts the bytes where they belong.
    ///
    /// - Parameter buffer: Of `length` bytes.
    /// - Returns: Whether they are what was sent; `buffer` holds anything otherwise.
    package func unpack(into buffer: UnsafeMutableRawBufferPointer) -> Bool {
        precondition(buffer.count == length && encoding != .zeros, "a payload's own length")
        switch encoding {
        case .lz4: guard unsafe LZ4.decompress(stored, into: buffer) else { return false }
        case .raw, .zeros: unsafe stored.withUnsafeReadableBytes { unsafe buffer.copyMemory(from: $0) }
        }
        return unsafe standardCRC32C(UnsafeRawBufferPointer(buffer)) == checksum
    }
}

/// A change of the target: bytes, or zeros.
package enum Change: Sendable, Equatable {
    case write(ByteOffset, Payload)
    case zero(Extent)

    package var extent: Extent {
        switch self {
        case .write(let offset, let payload): Extent(offset: offset, length: ByteCount(UInt64(payload.length)))
        case .zero(let extent): extent
        }
    }

    /// Bytes after the table.
    package var storedBytes: Int {
        switch self {
        case .write(_, let payload): payload.stored.readableBytes
        case .zero: 0
        }
    }

    /// Bytes that its receiver needs for it.
    package var plainBytes: Int {
        switch self {
        case .write(_, let payload): payload.length
        case .zero: 0
        }
    }
}

/// A list of changes: their table, then their payloads in the same order (Docs/Protocol.md, "Changes").
enum Changes {
    static let entry = 32

    static func write(_ changes: [Change]) -> [ByteBuffer] {
        precondition(changes.count <= RelayBounds.changes, "a frame's changes are bounded")
        var table = ByteBuffer()
        table.reserveCapacity(4 + changes.count * entry)
        table.writeInteger(UInt32(changes.count))
        var pieces: [ByteBuffer] = []
        for change in changes {
            table.writeExtent(change.extent)
            switch change {
            case .write(_, let payload):
                table.writeMultipleIntegers(
                    payload.encoding.rawValue, UInt32(payload.stored.readableBytes), payload.checksum, UInt32(0))
                pieces.append(payload.stored)
            case .zero: table.writeMultipleIntegers(Payload.Encoding.zeros.rawValue, UInt32(0), UInt32(0), UInt32(0))
            }
        }
        return [table] + pieces
    }

    /// Nothing if the body isn't exactly a list of changes within the bounds.
    static func read(_ body: inout ByteBuffer) -> [Change]? {
        guard let count = body.readInteger(as: UInt32.self), count > 0, count <= RelayBounds.changes,
            var table = body.readSlice(length: Int(count) * entry)
        else { return nil }
        var changes: [Change] = []
        var plain = 0
        for _ in 0..<count {
            guard let extent = table.readExtent(), !extent.isEmpty,
                let (code, stored, checksum, reserved) = table.readMultipleIntegers(
                    as: (UInt32, UInt32, UInt32, UInt32).self), reserved == 0,
                let encoding = Payload.Encoding(rawValue: code)
            else { return nil }
            if encoding == .zeros {
                guard stored == 0, checksum == 0 else { return nil }
                changes.append(.zero(extent))
                continue
            }
            guard let bytes = body.readSlice(length: Int(stored)) else { return nil }
            let payload = Payload(
                encoding: encoding, length: Int(clamping: extent.length.bytes), checksum: checksum, stored: bytes)
            guard payload.hasShape else { return nil }
            plain += payload.length
            changes.append(.write(extent.offset, payload))
        }
        return body.readableBytes == 0 && plain <= RelayBounds.plain ? changes : nil
    }
}
