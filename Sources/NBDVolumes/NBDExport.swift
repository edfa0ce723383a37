internal import Credentials
internal import NBDProtocol
internal import NIOCore
internal import Synchronization
package import Volumes

/// An export of a server, to be read and written anywhere: over several connections where the server says that a flush
/// of one is a flush of all (`NBD_FLAG_CAN_MULTI_CONN`), over one otherwise.
package final class NBDExport: Sendable {
    /// More gain nothing (nbdcopy(1) has as many).
    private static let mostConnections = 4
    /// What is written where the server can't make zeros by itself.
    private static let zeros = ByteBuffer(repeating: 0, count: 1 << 20)

    package let address: NBDAddress
    /// The same on all connections.
    let agreement: Agreement
    let shape: RequestShape
    /// What `dirty` goes by; the server has it.
    let bitmap: DirtyBitmap?
    private let connections: [Connection]
    private let turn = Atomic<UInt64>(0)
    /// One by one: two parts of one block must not both be put into it as it was before.
    private let edges = Slots(1)

    /// Connects to the server and enters the export.
    ///
    /// - Parameter bitmap: Is asked for as well; `missing` if the server doesn't offer it.
    package static func connect(
        to address: NBDAddress, bitmap: DirtyBitmap? = nil, patience: Patience = .standard
    ) async throws(VolumeError) -> NBDExport {
        let tls = try await ClientTLS(address.tls, with: address.server)
        @Sendable func open(_ limit: Duration) async throws(VolumeError) -> Connection {
            try await Connection.open(
                address, tls: tls, contexts: [.allocation] + (bitmap.map { [$0.context] } ?? []), limit: limit,
                silence: patience.silence)
        }
        let first = try await open(patience.handshake)
        let agreement = first.agreement
        guard agreement.size.bytes % UInt64(agreement.blockSizes.minimum) == 0 else {
            throw VolumeError(
                .unsupported, "connect", on: address.text,
                reason: "its \(agreement.size.bytes) bytes are no multiple of its blocks of "
                    + "\(agreement.blockSizes.minimum), so its end can't be reached",
                advice: "Serve it in smaller blocks.")
        }
        if let bitmap, !agreement.offers(bitmap.context) { throw bitmap.missing(from: address) }
        guard agreement.flags.contains(.multiConn) else { return NBDExport(address, bitmap, [first]) }
        let others = try await concurrently(1..<mostConnections, limit: mostConnections) { _ throws(VolumeError) in
            // Whoever lets in so many and no more says so by refusing the next: one will do.
            let other = try? await open(patience.another)
            return other?.agreement == agreement ? other : nil
        }
        return NBDExport(address, bitmap, [first] + others.compactMap(\.self))
    }

    private init(_ address: NBDAddress, _ bitmap: DirtyBitmap?, _ connections: [Connection]) {
        (self.address, self.bitmap, self.connections) = (address, bitmap, connections)
        agreement = connections[0].agreement
        shape = RequestShape(agreement.blockSizes)
    }

    package var size: ByteCount { agreement.size }
    package var isReadOnly: Bool { agreement.flags.contains(.readOnly) }
    /// Whether the server can be told to make durable what it acknowledged.
    package var flushes: Bool { agreement.flags.contains(.flush) }
    /// Whether the server tells what is zeros without sending them (`base:allocation`).
    package var knowsZeros: Bool { agreement.offers(.allocation) }
    /// How many there are.
    package var connectionCount: Int { connections.count }

    /// Whoever's turn it is.
    var connection: Connection {
        let number = turn.wrappingAdd(1, ordering: .relaxed).oldValue
        return connections[Int(number % UInt64(connections.count))]
    }

    // MARK: Bytes

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let cut = shape.cut(Extent(offset: offset, length: ByteCount(UInt64(buffer.count))))
        for part in cut.body.parts(ofAtMost: shape.most) {
            try await unsafe connection.ask(.read(part), into: slice(buffer, part, from: offset))
        }
        for edge in cut.edges {
            let block = shape.widened(edge)
            unsafe try await withIOBuffer(of: block.length) { whole throws(VolumeError) in
                try await unsafe connection.ask(.read(block), into: whole)
                unsafe slice(buffer, edge, from: offset).copyMemory(
                    from: UnsafeRawBufferPointer(slice(whole, edge, from: block.offset)))
            }
        }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: ByteOffset) async throws(VolumeError) {
        let cut = shape.cut(Extent(offset: offset, length: ByteCount(UInt64(bytes.count))))
        for part in cut.body.parts(ofAtMost: shape.most) {
            // The one copy there is: what NIO sends has to be its own.
            let payload = unsafe ByteBuffer(bytes: slice(bytes, part, from: offset))
            try await unsafe connection.ask(.write(part), payload: payload)
        }
        for edge in cut.edges { unsafe try await mend(edge, with: slice(bytes, edge, from: offset)) }
    }

    /// Makes an extent read as zeros. Not by `NBD_CMD_TRIM`, after which a server may send anything (NBD protocol,
    /// "Request types").
    ///
    /// - Parameter keepsRoom: Nothing may be given back (`NBD_CMD_FLAG_NO_HOLE`).
    package func zero(_ extent: Extent, keepsRoom: Bool = false) async throws(VolumeError) {
        let cut = shape.cut(extent)
        if agreement.flags.contains(.writeZeroes) {
            for part in cut.body.parts(ofAtMost: RequestShape.mostZeros) {
                try await unsafe connection.ask(.writeZeroes(part, noHole: keepsRoom, fast: false))
            }
        } else {
            let most = min(shape.most, ByteCount(UInt64(Self.zeros.readableBytes)))
            for part in cut.body.parts(ofAtMost: most) {
                let payload = Self.zeros.getSlice(at: 0, length: Int(part.length.bytes))
                try await unsafe connection.ask(.write(part), payload: payload)
            }
        }
        for edge in cut.edges { unsafe try await mend(edge, with: nil) }
    }

    /// Makes durable what was acknowledged on any connection; where the server has no flush, nothing can.
    package func flush() async throws(VolumeError) {
        if flushes { try await unsafe connection.ask(.flush) }
    }

    /// Writes a part of one block, and the rest of it as it is.
    ///
    /// - Parameter bytes: Nothing for zeros.
    private func mend(_ edge: Extent, with bytes: UnsafeRawBufferPointer?) async throws(VolumeError) {
        let block = shape.widened(edge)
        // Needed: pointers are not Sendable. Safe: the caller keeps the bytes until this returns.
        nonisolated(unsafe) let bytes = unsafe bytes
        try await edges.run { () throws(VolumeError) in
            unsafe try await withIOBuffer(of: block.length) { whole throws(VolumeError) in
                try await unsafe connection.ask(.read(block), into: whole)
                let part = unsafe slice(whole, edge, from: block.offset)
                if let bytes = unsafe bytes {
                    unsafe part.copyMemory(from: bytes)
                } else {
                    _ = unsafe part.initializeMemory(as: UInt8.self, repeating: 0)
                }
                try await unsafe connection.ask(.write(block), payload: ByteBuffer(bytes: whole))
            }
        }
    }

    private func slice(
        _ bytes: UnsafeMutableRawBufferPointer, _ part: Extent, from start: ByteOffset
    ) -> UnsafeMutableRawBufferPointer {
        let first = Int((part.offset - start).bytes)
        return unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[first..<first + Int(part.length.bytes)])
    }

    private func slice(_ bytes: UnsafeRawBufferPointer, _ part: Extent, from start: ByteOffset)
        -> UnsafeRawBufferPointer
    {
        let first = Int((part.offset - start).bytes)
        return unsafe UnsafeRawBufferPointer(rebasing: bytes[first..<first + Int(part.length.bytes)])
    }

    // MARK: What is there

    /// What may hold other bytes than zeros, in whole blocks of 4 KiB: all of it, if the server can't tell.
    ///
    /// A hole that isn't said to be zeros may read as anything (NBD protocol, "`base:allocation` metadata context").
    package func data(in range: Extent) async throws(VolumeError) -> ExtentSet {
        guard knowsZeros else { return ExtentSet([range.intersection(whole)]) }
        return try await extents(in: range, of: .allocation) { $0.flags & BlockStatus.zero == 0 }
    }

    /// What was written since the bitmap was begun, in whole blocks of 4 KiB, zeros and holes as well. Needs a bitmap.
    func dirty(in range: Extent) async throws(VolumeError) -> ExtentSet {
        guard let bitmap else { preconditionFailure("no bitmap was asked for") }
        return try await extents(in: range, of: bitmap.context) { $0.flags & BlockStatus.dirty != 0 }
    }

    /// The runs whose status in a context is one that is wanted. The server has the context.
    private func extents(
        in range: Extent, of context: MetaContext, where isWanted: (BlockStatus) -> Bool
    ) async throws(VolumeError) -> ExtentSet {
        let range = range.intersection(whole)
        var found = ExtentSet()
        for part in shape.widened(range).parts(ofAtMost: RequestShape.mostStatus) {
            var rest = part
            while !rest.isEmpty {
                // Of each context at least one block's status is in each answer: the session has seen to it.
                let statuses = try await unsafe connection.ask(.blockStatus(rest, contexts: agreement.contexts))
                for status in statuses[context] ?? [] {
                    let run = Extent(offset: rest.offset, length: min(status.length, rest.length))
                    if isWanted(status) {
                        // Rounded, so that a server can't make a list of any length of it.
                        found.append(
                            Extent(from: run.offset.rounded(downTo: zeroBlock), to: run.end.rounded(upTo: zeroBlock)))
                    }
                    rest = Extent(from: run.end, to: rest.end)
                }
            }
        }
        return found.intersection(range)
    }
}

extension Agreement {
    func offers(_ context: MetaContext) -> Bool { contexts.contains { $0.context == context } }
}
