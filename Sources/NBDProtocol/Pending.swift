package import Volumes

/// Why a server didn't carry out a request, or not all of it.
package struct RequestFailure: Error, Sendable, Equatable {
    package let error: ErrorValue
    /// For people; empty if the server had nothing to say.
    package let message: String
    /// Where it failed, if the server said so.
    package let offset: ByteOffset?
}

/// A request in flight, and what its reply has said so far.
struct Pending: Equatable {
    let request: Request
    var chunks = 0
    var covered = Coverage()
    /// Contexts whose status is there.
    var answered: Set<UInt32> = []
    /// The first error.
    var failure: RequestFailure?

    init(_ request: Request) { self.request = request }

    var read: Extent? { if case .read(let extent) = request.command { extent } else { nil } }

    /// Takes a content chunk of a read into account. NBD protocol, `NBD_REPLY_TYPE_OFFSET_DATA`.
    mutating func tell(_ offset: UInt64, _ length: UInt64, pieces: Int) throws(Violation) {
        guard let read, length > 0, offset >= read.offset.bytes, offset < read.end.bytes,
            length <= read.end.bytes - offset
        else { throw .wrongBytes("\(length) bytes at \(offset), which were not asked for") }
        guard !request.isUnfragmented || covered.extents.isEmpty else {
            throw .wrongBytes("a second content chunk, in spite of NBD_CMD_FLAG_DF")
        }
        guard covered.insert(Extent(offset: ByteOffset(offset), length: ByteCount(length))) else {
            throw .wrongBytes("\(length) bytes at \(offset), which were told before")
        }
        guard covered.extents.count <= pieces else { throw .tooMany("gaps in a read", most: pieces) }
    }

    /// What is missing from a reply that claims to be whole.
    func checkComplete() throws(Violation) {
        guard failure == nil else { return }
        switch request.command {
        case .read(let extent):
            guard covered.isAll(of: extent) else { throw .wrongBytes("a read that ends without all of its bytes") }
        case .blockStatus(_, let contexts):
            guard answered.count == contexts.count else {
                throw .wrongBytes("a block status that ends without all of its contexts")
            }
        case .write, .flush, .trim, .cache, .writeZeroes: break
        }
    }
}

/// A chunk whose fixed part is waited for.
struct Chunk: Equatable {
    let type: ChunkType
    let cookie: UInt64
    /// Bytes of the whole payload.
    let length: UInt64
    let isDone: Bool
}

/// A block status chunk whose descriptors are coming.
struct Descriptors: Equatable {
    let cookie: UInt64
    let context: ChosenContext
    let isDone: Bool
    var remaining: Int
    /// Bytes that those before were about.
    var covered: UInt64 = 0
}
