internal import Synchronization

extension MemoryVolume {
    /// What lies at an address: it outlives whoever works on it. Its methods are those of the volume's own user, the
    /// guest or the operator.
    package final class Place: Sendable {
        let contents: Mutex<MemoryContents>

        /// Nothing is there yet.
        /// - Parameter means: With `.everything`, all that is asked for counts as data and as changed.
        package init(
            holdsSnapshots: Bool = true, means: ExtentMeans = .objectExtents, extentUnit: ByteCount = .mebibytes(4)
        ) {
            contents = Mutex(MemoryContents(holdsSnapshots: holdsSnapshots, means: means, extentUnit: extentUnit))
        }

        func newNumber() -> UInt64 { contents.withLock { $0.newNumber() } }

        func release(_ holder: UInt64, hasDied: Bool) {
            contents.withLock { contents in
                for index in contents.movers.indices where hasDied && contents.movers[index].holder == holder {
                    contents.movers[index].isAlive = false
                }
                guard contents.owner == holder else { return }
                contents.owner = nil
                contents.ownerHasDied = hasDied
            }
        }

        /// Makes a finished volume of zeros that Godwit did not begin.
        package func make(size: ByteCount, layout: Layout? = nil, metadata: Metadata = [:]) {
            contents.withLock { contents in
                precondition(contents.finished == nil, "a volume is there already")
                var body = contents.newBody(MemoryState(size: size))
                body.layout = layout
                body.metadata = metadata
                contents.finished = body
            }
        }

        /// Removes the finished volume.
        package func remove() { contents.withLock { $0.finished = nil } }

        /// What is there: "finished", "unfinished", "record".
        package var names: [String] {
            contents.withLock { contents in
                [
                    contents.finished.map { _ in "finished" }, contents.unfinished.map { _ in "unfinished" },
                    contents.record.map { _ in "record" },
                ].compactMap(\.self)
            }
        }

        func change<Value: Sendable>(_ change: (inout MemoryBody) -> sending Value) -> Value {
            contents.withLock { contents in
                guard var body = contents.finished.take() else { preconditionFailure("no volume is there") }
                let value = change(&body)
                contents.finished = body
                return value
            }
        }

        /// The guest writes.
        package func write(_ bytes: [UInt8], at offset: ByteOffset) {
            change { body in
                precondition(offset.bytes + UInt64(bytes.count) <= body.head.size.bytes, "past the end")
                unsafe bytes.withUnsafeBytes { unsafe body.write($0, at: offset) }
            }
        }

        /// The guest discards.
        package func zero(_ extent: Extent) { change { $0.zero(extent) } }

        package func resize(to size: ByteCount) { change { $0.resize(to: size) } }

        @discardableResult
        package func takeSnapshot(_ name: String, isProtected: Bool = false) -> Snapshot {
            change { $0.keep(as: name, isProtected: isProtected) }
        }

        /// Somebody else takes a snapshot of a target that isn't finished.
        package func takeSnapshotOfUnfinished(_ name: String) {
            contents.withLock { _ = $0.unfinished?.keep(as: name, isProtected: false) }
        }

        package func removeSnapshot(_ name: String) { change { $0.kept.removeAll { $0.snapshot.isNamed(name) } } }

        /// All that are held, those that `freeze` made among them, oldest first.
        package var snapshots: [Snapshot] {
            contents.withLock { ($0.present ?? $0.retired)?.kept.map(\.snapshot) ?? [] }
        }

        /// What is in the volume that is there, finished or not.
        package func bytes(of revision: Revision = .head) -> [UInt8] {
            contents.withLock { contents in
                guard let state = try? contents.present?.state(revision, address: "") else { return [] }
                var bytes = [UInt8](repeating: 0, count: Int(state.size.bytes))
                unsafe bytes.withUnsafeMutableBytes { unsafe state.read(into: $0, at: .zero) }
                return bytes
            }
        }

        /// The blocks of the head that hold something.
        package var allocated: ByteCount {
            contents.withLock { ByteCount(UInt64($0.present?.head.blocks.count ?? 0) * MemoryState.block) }
        }

        /// Whoever owned the unfinished target is gone, and of the blocks that were written since it was last flushed
        /// only those survive that `survives` says.
        package func crash(survives: (ByteOffset) -> Bool = { _ in true }) {
            contents.withLock { contents in
                contents.ownerHasDied = contents.ownerHasDied || contents.owner != nil
                contents.owner = nil
                contents.unfinished?.lose(butThose: survives)
            }
        }
    }
}
