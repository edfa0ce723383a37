internal import Cutover
internal import Synchronization
package import Volumes

/// Holds those still who use a volume through a gate, and exchanges the volume beneath them.
///
/// They are this process's own clients: a kill ends them, too, and whoever gives the command again lets them in where the
/// record says that they belong. So nothing is let through to the target before the record says that they are there.
package final class GateHold: WriterHold {
    private enum Place { case nowhere, source, target }

    private enum Grip {
        case none
        /// Lets go by itself when the pause is over.
        case holding
        case sealed
        /// The pause was over before all was done.
        case lost
    }

    private struct State {
        var place = Place.nowhere
        var grip = Grip.none
        var longest: Duration?
        var timer: Task<Void, Never>?
        var volume: (any DiskVolume)?
        /// Opened; used by nobody until `leaveSource`.
        var target: (any Disk)?
    }

    package let title: String
    package let gate: Gate
    private let source: any ServableSource
    private let connect: @Sendable () async throws(VolumeError) -> any DiskVolume
    private let state = Mutex(State())

    /// - Parameters:
    ///   - title: "the export at unix:/run/v.sock".
    ///   - target: Connects to the target as its users will have it. It need not be there yet.
    package init(
        title: String, gate: Gate, source: any ServableSource,
        target: @escaping @Sendable () async throws(VolumeError) -> any DiskVolume
    ) {
        (self.title, self.gate, self.source) = (title, gate, source)
        connect = target
    }

    /// What was opened is closed. Once nobody uses it any more.
    package func close() async {
        // What a cache still holds is written as the disk is closed, and its lock is given back.
        let target = state.withLock { $0.target.take() }
        await target?.close()
        await source.endServing()
    }

    /// Where its clients are: "the source", "the target".
    package var whereabouts: String {
        switch state.withLock({ $0.place }) {
        case .nowhere: "neither volume"
        case .source: "the source"
        case .target: "the target"
        }
    }
    package var limiter: (any WriterLimit)? { self }
    package var clientsAtSource: Int { 0 }
    package var isOurOwn: Bool { true }
    package var isHolding: Bool { state.withLock { $0.grip == .holding || $0.grip == .sealed } }

    package func prepare() async throws(VolumeError) { _ = try await volume() }
    package func adopt() async throws(VolumeError) {}
    package func begin() async throws(VolumeError) { try await thaw() }
    package func promise(_ longest: Duration?) { state.withLock { $0.longest = longest } }
    package func rehearse() async throws(VolumeError) -> Duration { .milliseconds(20) }

    private func volume() async throws(VolumeError) -> any DiskVolume {
        if let volume = state.withLock({ $0.volume }) { return volume }
        let volume = try await connect()
        state.withLock { $0.volume = volume }
        return volume
    }

    package func freeze() async throws(VolumeError) {
        // Most of what is to be shown doesn't wait for that in the pause.
        try await gate.show()
        // In one step, so that a pause that is over at once doesn't leave it shut.
        let longest = state.withLock { state in
            state.grip = .holding
            gate.shut()
            return state.longest
        }
        if let longest {
            // Owned by the hold, which ends it.
            let timer = Task { [weak self] in
                try? await Task.sleep(for: longest)
                if !Task.isCancelled { self?.letGo() }
            }
            state.withLock { $0.timer = timer }
        }
        await gate.untilStill()
        if isHolding { try await gate.show() }
    }

    /// The pause is over, whatever is under way.
    private func letGo() {
        state.withLock { state in
            guard state.grip == .holding else { return }
            state.grip = .lost
            gate.open()
        }
    }

    package func seal() -> Bool {
        state.withLock { state in
            if state.grip == .holding { state.grip = .sealed }
            return state.grip == .sealed
        }
    }

    package func switchOver() async throws(VolumeError) {
        guard state.withLock({ $0.place != .target && $0.target == nil }) else { return }
        let volume = try await volume()
        let disk = try await volume.attach(.head, isWritable: true)
        do throws(VolumeError) {
            try refuseOther(disk, at: volume.address)
        } catch {
            await disk.close()
            throw error
        }
        state.withLock { $0.target = disk }
    }

    /// Its clients know size and blocks from when they came.
    private func refuseOther(_ disk: any Disk, at address: String) throws(VolumeError) {
        guard gate.hasOpened else { return }
        guard disk.size >= gate.size, disk.blockSize <= gate.blockSize, disk.isWritable else {
            throw VolumeError(
                .unsupported, "switch", on: address,
                reason: "its \(disk.size.bytes) bytes in blocks of \(disk.blockSize.bytes) can't stand in for "
                    + "\(gate.size.bytes) in blocks of \(gate.blockSize.bytes)",
                advice: "Its clients go on at the source.")
        }
    }

    /// Lets them in at the target. From here on there is no way back.
    package func leaveSource() async throws(VolumeError) {
        guard state.withLock({ $0.place != .target }) else { return }
        try await switchOver()
        state.withLock { state in
            guard let target = state.target else { preconditionFailure("it was opened") }
            gate.seat(target, watch: nil)
            gate.limit(to: nil)
            state.timer?.cancel()
            (state.place, state.grip) = (.target, .none)
            gate.open()
        }
        await gate.leaveOlder()
        await source.endServing()
    }

    package func thaw() async throws(VolumeError) {
        if state.withLock({ $0.place == .nowhere }) {
            let (disk, watch) = try await source.serve()
            gate.seat(disk, watch: watch)
            state.withLock { $0.place = .source }
        }
        state.withLock { state in
            guard state.place == .source else { return }
            state.timer?.cancel()
            state.grip = .none
            gate.open()
        }
        let unused = state.withLock { $0.place == .target ? nil : $0.target.take() }
        await unused?.close()
    }
}

extension GateHold: WriterLimit {
    package func limit(to rate: ByteRate) async throws(VolumeError) -> ByteRate {
        gate.limit(to: rate)
        return rate
    }

    package func lift() async throws(VolumeError) { gate.limit(to: nil) }
}
