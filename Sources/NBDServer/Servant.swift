internal import NBDProtocol
internal import NIOCore
internal import Volumes

/// Carries out the requests of one connection on its export's disk, and makes their replies.
struct Servant: Sendable {
    /// Trims and zeroing go to the disk in steps of so many bytes: a client may ask for all of a disk at once.
    private static let step = ByteCount.gibibytes(1)

    /// What is read on the event loop: copying as much takes 0.1 ms, and the loop's other connections wait no longer.
    private static let mostAtOnce = ByteCount.mebibytes(1)

    let disk: any Disk
    private let watch: (any DirtyView)?
    private let encoder: ReplyEncoder

    init(_ export: Export, _ agreement: Agreement) {
        (disk, watch) = (export.disk, export.watch)
        encoder = ReplyEncoder(agreement)
    }

    /// What is sent, piece by piece, and why it isn't what was asked for.
    struct Answer: Sendable {
        var pieces: [ByteBuffer]
        var failure: VolumeError?
    }

    /// Does it on the calling thread, if that takes no waiting.
    /// - Parameter payload: Of a write.
    func atOnce(_ request: Request, _ payload: UnsafeRawBufferPointer?) -> Answer? {
        do throws(VolumeError) {
            switch request.command {
            case .read(let extent):
                guard disk.readsAtOnce, extent.length <= Self.mostAtOnce else { return nil }
                guard let memory = RequestMemory(count: Int(extent.length.bytes)) else { return noMemory(request) }
                guard unsafe try disk.readAtOnce(into: memory.bytes, at: extent.offset) else { return nil }
                var reply = ReadReply(to: request, encoder)
                return Answer(pieces: pieces(&reply, [(extent, memory)]))
            case .write(let extent):
                guard let payload = unsafe payload, !request.isFUA,
                    unsafe try disk.writeAtOnce(payload, at: extent.offset)
                else { return nil }
                return Answer(pieces: [encoder.done(request)])
            case .flush, .trim, .cache, .writeZeroes, .blockStatus: return nil
            }
        } catch {
            return failed(request, error)
        }
    }

    /// Does it, however long it takes.
    func carryOut(_ request: Request, _ payload: RequestMemory?) async -> Answer {
        do throws(VolumeError) {
            switch request.command {
            case .read(let extent): return try await read(request, extent)
            case .write(let extent):
                guard let payload else { preconditionFailure("a write has its bytes") }
                unsafe try await disk.write(UnsafeRawBufferPointer(payload.bytes), at: extent.offset)
            case .flush: try await disk.flush()
            case .cache(let extent): try await disk.cache(extent)
            case .trim(let extent):
                for part in extent.parts(ofAtMost: Self.step) { try await disk.discard(part) }
            case .writeZeroes(let extent, let noHole, let fast):
                guard !fast || (disk.zeroesFast && !noHole) else {
                    return Answer(pieces: [
                        encoder.failed(request, .notSupported, "zeroing isn't faster than writing here")
                    ])
                }
                for part in extent.parts(ofAtMost: Self.step) { try await disk.zero(part, keepsRoom: noHole) }
            case .blockStatus(let extent, let contexts):
                var statuses: [UInt32: [BlockStatus]] = [:]
                for context in contexts {
                    switch (context.context, watch) {
                    case (.allocation, _):
                        statuses[context.id] = try await allocation(of: extent, isReqOne: request.isReqOne)
                    case (.dirty, let watch?):
                        statuses[context.id] = changes(seenBy: watch, in: extent, isReqOne: request.isReqOne)
                    default: preconditionFailure("no other was offered")
                    }
                }
                return Answer(pieces: [encoder.status(request, statuses)])
            }
            // Written first, durable before the reply.
            if request.isFUA, request.command != .flush { try await disk.flush() }
            return Answer(pieces: [encoder.done(request)])
        } catch {
            return failed(request, error)
        }
    }

    private func failed(_ request: Request, _ error: VolumeError) -> Answer {
        // Without the object: where the volume is, is nothing to tell a client.
        let message = "\(error.operation): \(error.reason)"
        return Answer(pieces: [encoder.failed(request, ErrorValue(error.kind), message)], failure: error)
    }

    func noMemory(_ request: Request) -> Answer {
        Answer(pieces: [encoder.failed(request, .noMemory, "there is no memory for it")])
    }

    // MARK: Reading

    private func read(_ request: Request, _ extent: Extent) async throws(VolumeError) -> Answer {
        var reply = ReadReply(to: request, encoder)
        var data = [extent]
        if reply.mayFragment, disk.tellsHolesFast, extent.length >= Span.smallestHole {
            let found = try await disk.extents(in: extent, since: nil)
            data = Span.spans(of: extent, data: found).filter { !$0.isHole }.map(\.extent)
        }
        var parts: [(Extent, RequestMemory)] = []
        for part in data {
            guard let memory = RequestMemory(count: Int(part.length.bytes)) else { return noMemory(request) }
            unsafe try await disk.read(into: memory.bytes, at: part.offset)
            parts.append((part, memory))
        }
        return Answer(pieces: pieces(&reply, parts, of: extent))
    }

    /// A read's whole reply.
    /// - Parameters:
    ///   - parts: The bytes of `extent`, in order; what lies between reads as zeros.
    ///   - extent: What was asked for; without it, the only part.
    private func pieces(
        _ reply: inout ReadReply, _ parts: [(extent: Extent, memory: RequestMemory)], of extent: Extent? = nil
    ) -> [ByteBuffer] {
        var pieces: [ByteBuffer] = []
        pieces.reserveCapacity(2 * parts.count)
        var end = extent?.offset
        for (part, memory) in parts {
            if let end, part.offset > end { pieces.append(reply.hole(Extent(from: end, to: part.offset))) }
            end = part.end
            guard reply.mayFragment, part.length >= Span.smallestHole else {
                pieces.append(reply.data(part))
                pieces.append(memory.intoBuffer())
                continue
            }
            let spans = Span.spans(of: part, data: memory.dataRuns(at: part.offset))
            let bytes = memory.intoBuffer()
            for span in spans {
                guard !span.isHole else {
                    pieces.append(reply.hole(span.extent))
                    continue
                }
                pieces.append(reply.data(span.extent))
                let start = bytes.readerIndex + Int((span.extent.offset - part.offset).bytes)
                guard let slice = bytes.getSlice(at: start, length: Int(span.extent.length.bytes)) else {
                    preconditionFailure("a part is inside the whole")
                }
                pieces.append(slice)
            }
        }
        if let extent, let end, end < extent.end { pieces.append(reply.hole(Extent(from: end, to: extent.end))) }
        return pieces
    }

    // MARK: Block status

    /// `base:allocation` from the extent's start on, as far as one answer should go.
    private func allocation(of extent: Extent, isReqOne: Bool) async throws(VolumeError) -> [BlockStatus] {
        // A disk takes its time for each unit. So the first window is small, where one run is all that is wanted, and
        // they grow as long as there is nothing to tell but the same.
        let enoughRuns = Self.enoughRuns(isReqOne)
        let most = min(extent.length, max(.gibibytes(1), ByteCount(256 * disk.extentUnit.bytes)))
        let end = extent.offset + most
        var length = max(isReqOne ? .mebibytes(1) : .mebibytes(64), disk.extentUnit)
        var runs: [BlockStatus] = []
        var window = Extent(from: extent.offset, to: min(extent.offset + length, end))
        while !window.isEmpty, runs.count <= enoughRuns {
            let found = try await disk.extents(in: window, since: nil)
            var place = window.offset
            for data in found.within(window).extents {
                runs.add(data.offset - place, flags: Self.isHole)
                runs.add(data.length, flags: 0)
                place = data.end
            }
            runs.add(window.end - place, flags: Self.isHole)
            length = ByteCount(length.bytes * 4)
            window = Extent(from: window.end, to: min(window.end + length, end))
        }
        return runs
    }

    private static let isHole = BlockStatus.hole | BlockStatus.zero
    /// More than these aren't looked for: a reply need not cover its request.
    private static func enoughRuns(_ isReqOne: Bool) -> Int { isReqOne ? 1 : 4096 }

    /// `x-godwit:dirty` from the extent's start on, as far as one answer should go.
    private func changes(seenBy watch: any DirtyView, in extent: Extent, isReqOne: Bool) -> [BlockStatus] {
        // At 64 KiB a bit it is 128 KiB of the map, which is read in some 10 us.
        let window = ByteCount.gibibytes(64)
        var runs: [BlockStatus] = []
        for part in extent.parts(ofAtMost: window) {
            guard runs.count <= Self.enoughRuns(isReqOne) else { break }
            var place = part.offset
            for change in watch.dirty(in: part).within(part).extents {
                runs.add(change.offset - place, flags: 0)
                runs.add(change.length, flags: BlockStatus.dirty)
                place = change.end
            }
            runs.add(part.end - place, flags: 0)
        }
        return runs
    }
}

extension [BlockStatus] {
    /// Adds what follows; together with what is there, where both are the same.
    fileprivate mutating func add(_ length: ByteCount, flags: UInt64) {
        guard length > .zero else { return }
        if last?.flags == flags {
            self[count - 1].length += length
        } else {
            append(BlockStatus(length: length, flags: flags))
        }
    }
}

extension RequestMemory {
    /// What of it isn't zeros, in whole blocks.
    /// - Parameter offset: Where its bytes stand on the disk.
    fileprivate func dataRuns(at offset: ByteOffset) -> ExtentSet {
        var runs = ExtentSet()
        unsafe forEachDataRun(in: UnsafeRawBufferPointer(bytes), at: offset) { runs.append($0) }
        return runs
    }
}
