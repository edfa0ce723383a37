import Conformance
import Gate
import Glibc
import Synchronization
import Volumes

/// What clients wrote to a volume, and were told.
final class Ledger: Sendable {
    /// Bytes: what one stamp stands for.
    static let sector = 512

    /// What may stand in each sector: the last that was acknowledged, and whatever failed since.
    private let stamps: Mutex<[Set<UInt64>]>
    private let last = Mutex<UInt64>(0)
    let count: Int

    init(size: Int) {
        count = size / Self.sector
        stamps = Mutex([Set<UInt64>](repeating: [0], count: size / Self.sector))
    }

    func newStamp() -> UInt64 {
        last.withLock { last in
            last += 1
            return last
        }
    }

    /// A change is about to be asked for.
    func begin(_ sectors: Range<Int>, _ stamp: UInt64) {
        stamps.withLock { stamps in for sector in sectors { stamps[sector].insert(stamp) } }
    }

    /// It was acknowledged.
    func end(_ sectors: Range<Int>, _ stamp: UInt64) {
        stamps.withLock { stamps in for sector in sectors { stamps[sector] = [stamp] } }
    }

    static func bytes(_ sectors: Range<Int>, _ stamp: UInt64) -> [UInt8] {
        let words = [UInt64](repeating: stamp, count: sectors.count * sector / 8)
        return unsafe words.withUnsafeBytes { unsafe Array($0) }
    }

    /// What in `bytes` was lost, or never written; nothing if all is as it must be.
    func violation(_ bytes: [UInt8], from first: Int = 0) -> String? {
        let found = unsafe bytes.withUnsafeBytes { bytes in
            stride(from: 0, to: bytes.count, by: Self.sector).map { place -> UInt64? in
                let start = unsafe bytes.baseAddress! + place
                // One and the same word throughout.
                guard unsafe memcmp(start, start + 8, Self.sector - 8) == 0 else { return nil }
                return unsafe start.loadUnaligned(as: UInt64.self)
            }
        }
        return stamps.withLock { stamps in
            for (number, stamp) in found.enumerated() {
                let allowed = stamps[first + number]
                guard let stamp else { return "sector \(first + number) holds a mixture" }
                guard allowed.contains(stamp) else {
                    return "sector \(first + number) holds \(stamp), not one of \(allowed.sorted())"
                }
            }
            return nil
        }
    }
}

/// Clients of a gate, each with a part of the volume for itself.
struct Crew: Sendable {
    /// The last of them does nothing but fill blocks and empty them again: what is changed back is overlooked most easily.
    private static let clients = 4
    /// Sectors of a block.
    private static let block = 8

    let gate: Gate
    let ledger: Ledger
    let seed: UInt64
    /// What they saw that mustn't be.
    let violations: Violations

    /// They write, make holes, flush and read, until that is over.
    func work(until isOver: @escaping @Sendable () -> Bool) async {
        await withTaskGroup(of: Void.self) { group in
            for client in 0..<Self.clients {
                group.addTask {
                    if client == Self.clients - 1 {
                        await self.toggle(until: isOver)
                    } else {
                        await self.work(client, until: isOver)
                    }
                }
            }
        }
    }

    private func work(_ client: Int, until isOver: () -> Bool) async {
        var random = SplitMix64(seed: seed &* 31 &+ UInt64(client))
        let share = ledger.count / Self.clients
        while !isOver() {
            let start = client * share + Int.random(in: 0..<share, using: &random)
            let end = min((client + 1) * share, start + Int.random(in: 1...64, using: &random))
            let sectors = start..<end
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5: await write(sectors)
            case 5: await zero(sectors, keepsRoom: Bool.random(using: &random))
            case 6: _ = await succeeds { () throws(VolumeError) in try await gate.flush() }
            default:
                let range = start * Ledger.sector..<end * Ledger.sector
                if let bytes = try? await gate.bytes(in: range), let what = ledger.violation(bytes, from: start) {
                    violations.note("a client read: \(what)")
                }
            }
            try? await Task.sleep(for: .microseconds(Int.random(in: 200...3000, using: &random)))
        }
    }

    private func toggle(until isOver: () -> Bool) async {
        var random = SplitMix64(seed: seed &* 31)
        let first = (Self.clients - 1) * (ledger.count / Self.clients)
        var filled: Set<Int> = []
        while !isOver() {
            let start = first + Self.block * Int.random(in: 0..<(ledger.count - first) / Self.block, using: &random)
            let sectors = start..<start + Self.block
            if filled.remove(start) == nil {
                filled.insert(start)
                await write(sectors)
            } else {
                await zero(sectors, keepsRoom: false)
            }
            try? await Task.sleep(for: .microseconds(Int.random(in: 200...1000, using: &random)))
        }
    }

    // What fails may have been done.

    private func write(_ sectors: Range<Int>) async {
        let stamp = ledger.newStamp()
        ledger.begin(sectors, stamp)
        if await succeeds({ () throws(VolumeError) in
            try await gate.write(Ledger.bytes(sectors, stamp), at: sectors.lowerBound * Ledger.sector)
        }) {
            ledger.end(sectors, stamp)
        }
    }

    private func zero(_ sectors: Range<Int>, keepsRoom: Bool) async {
        ledger.begin(sectors, 0)
        if await succeeds({ () throws(VolumeError) in try await gate.zero(sectors.extent, keepsRoom: keepsRoom) }) {
            ledger.end(sectors, 0)
        }
    }

    private func succeeds(_ body: () async throws(VolumeError) -> Void) async -> Bool {
        do throws(VolumeError) {
            try await body()
            return true
        } catch {
            return false
        }
    }
}

extension Range where Bound == Int {
    /// Of so many sectors.
    var extent: Extent {
        Extent(
            from: ByteOffset(UInt64(lowerBound * Ledger.sector)), to: ByteOffset(UInt64(upperBound * Ledger.sector)))
    }
}

/// What went wrong, as it is found.
final class Violations: Sendable {
    private let found = Mutex<[String]>([])
    func note(_ what: String) { found.withLock { if $0.count < 5 { $0.append(what) } } }
    var all: [String] { found.withLock { $0 } }
}
