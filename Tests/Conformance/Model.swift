internal import Testing
package import Volumes

/// Random numbers that a seed repeats (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
package struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// None of them zero: a byte that was lost is then always seen.
    package mutating func bytes(_ count: Int) -> [UInt8] {
        var words = [UInt64](repeating: 0, count: (count + 7) / 8)
        for index in words.indices { words[index] = next() | 0x0101_0101_0101_0101 }
        return unsafe words.withUnsafeBytes { unsafe Array($0.prefix(count)) }
    }

    /// Any range of `size` bytes, often at the edges of a block of 4 KiB.
    mutating func extent(in size: Int, atMost limit: Int) -> Range<Int> {
        guard size > 0 else { return 0..<0 }
        var start = Int.random(in: 0..<size, using: &self)
        if Int.random(in: 0..<3, using: &self) == 0 { start = start / 4096 * 4096 }
        var end = min(size, start + Int.random(in: 1...limit, using: &self))
        if Int.random(in: 0..<3, using: &self) == 0 { end = min(size, (end + 4095) / 4096 * 4096) }
        return start..<end
    }
}

extension Range where Bound == Int {
    var extent: Extent {
        Extent(offset: ByteOffset(UInt64(lowerBound)), length: ByteCount(UInt64(count)))
    }
}

extension Extent {
    var range: Range<Int> { Int(offset.bytes)..<Int(end.bytes) }
}

extension Array where Element == UInt8 {
    init(zeros count: Int) { self.init(repeating: 0, count: count) }

    mutating func zero(_ range: Range<Int>) {
        unsafe withUnsafeMutableBytes { bytes in
            _ = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[range]).initializeMemory(
                as: UInt8.self, repeating: 0)
        }
    }

    mutating func write(_ bytes: [UInt8], at offset: Int) {
        unsafe withUnsafeMutableBytes { whole in
            unsafe UnsafeMutableRawBufferPointer(rebasing: whole[offset..<offset + bytes.count]).copyBytes(from: bytes)
        }
    }

    /// Where the first byte of `range` is that differs from `base`, or from zero where that is nothing or has ended.
    func firstDifference(from base: [UInt8]?, in range: Range<Int>) -> Int? {
        guard !range.isEmpty else { return nil }
        let split = Swift.min(Swift.max(base?.count ?? 0, range.lowerBound), range.upperBound)
        let (shared, rest) = (range.lowerBound..<split, split..<range.upperBound)
        return unsafe withUnsafeBytes { bytes in
            if let base, !shared.isEmpty {
                let found = unsafe base.withUnsafeBytes { older in
                    unsafe firstDifferingRun(
                        UnsafeRawBufferPointer(rebasing: bytes[shared]), UnsafeRawBufferPointer(rebasing: older[shared])
                    )
                }
                if let found { return shared.lowerBound + found.lowerBound }
            }
            if unsafe isZero(UnsafeRawBufferPointer(rebasing: bytes[rest])) { return nil }
            return rest.first { unsafe bytes[$0] != 0 }
        }
    }

    mutating func resize(to count: Int) {
        if count < self.count { removeLast(self.count - count) } else { self += [UInt8](zeros: count - self.count) }
    }

    var size: ByteCount { ByteCount(UInt64(count)) }
}

extension TargetVolume {
    package func write(_ bytes: [UInt8], at offset: Int) async throws(VolumeError) {
        unsafe try await withIOBuffer(of: bytes.size) { buffer throws(VolumeError) in
            unsafe buffer.copyBytes(from: bytes)
            unsafe try await self.write(UnsafeRawBufferPointer(buffer), at: ByteOffset(UInt64(offset)))
        }
    }

    func zero(_ range: Range<Int>) async throws { try await zero(range.extent) }

    func resize(to count: Int) async throws { try await resize(to: ByteCount(UInt64(count))) }

    /// Made with `count` bytes, and this value's own.
    package func begin(_ count: Int, record: String = "r") async throws {
        try await make(
            as: VolumeDescription(identity: "made for a check", size: ByteCount(UInt64(count))), record: record)
        try await own()
    }
}

extension VolumeReader {
    package func bytes(in range: Range<Int>) async throws(VolumeError) -> [UInt8] {
        unsafe try await withIOBuffer(of: range.extent.length) { buffer throws(VolumeError) in
            // What the reader leaves untouched is then seen.
            unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0xA5)
            unsafe try await read(into: buffer, at: range.extent.offset)
            return unsafe Array(buffer)
        }
    }

    func extents(in range: Range<Int>, since base: Snapshot? = nil) async throws -> ExtentSet {
        try await extents(in: range.extent, since: base)
    }
}

extension Volume {
    /// Opens a state for the time of `body`.
    func reading<Value: Sendable>(
        _ revision: Revision = .head, _ body: (any VolumeReader) async throws -> Value
    ) async throws -> Value {
        let reader = try await open(revision)
        do {
            let value = try await body(reader)
            await reader.close()
            return value
        } catch {
            await reader.close()
            throw error
        }
    }

    /// The volume's size and bytes are the model's, and its extents miss none that isn't zero.
    func expect(
        _ model: [UInt8], at revision: Revision = .head, _ what: String = "",
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        try await reading(revision) { reader in
            #expect(reader.size == model.size, "size \(what)", sourceLocation: sourceLocation)
            guard reader.size == model.size else { return }
            let found = try await reader.bytes(in: 0..<model.count)
            expectSame(found, model, what, sourceLocation: sourceLocation)
            let extents = try await reader.extents(in: 0..<model.count)
            expectCovered(model, differingFrom: nil, by: extents, what, sourceLocation: sourceLocation)
        }
    }
}

/// Says where the first byte differs, instead of printing megabytes.
func expectSame(
    _ found: [UInt8], _ model: [UInt8], _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(found.count == model.count, "\(what)", sourceLocation: sourceLocation)
    guard found.count == model.count, let place = found.firstDifference(from: model, in: 0..<model.count) else {
        return
    }
    Issue.record("\(what): byte \(place) is \(found[place]), not \(model[place])", sourceLocation: sourceLocation)
}

/// No byte that differs from `base`, or from zero, is outside the extents, and the extents are inside the volume.
func expectCovered(
    _ model: [UInt8], differingFrom base: [UInt8]?, by extents: ExtentSet, within: Range<Int>? = nil,
    _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation
) {
    let range = within ?? 0..<model.count
    #expect(
        extents.extents.allSatisfy {
            $0.range.lowerBound >= range.lowerBound && $0.range.upperBound <= range.upperBound
        },
        "extents outside \(range) \(what)", sourceLocation: sourceLocation)
    var place = range.lowerBound
    for extent in extents.extents.map(\.range) + [range.upperBound..<range.upperBound] {
        if let missed = model.firstDifference(from: base, in: place..<max(place, extent.lowerBound)) {
            Issue.record("byte \(missed) is outside the extents \(what)", sourceLocation: sourceLocation)
            return
        }
        place = extent.upperBound
    }
}

/// Fails unless `body` throws a `VolumeError` of one of these kinds.
func expectRefusal(
    _ kinds: VolumeError.Kind..., during what: String, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () async throws -> Void
) async {
    do {
        try await body()
        Issue.record("\(what) was not refused", sourceLocation: sourceLocation)
    } catch let error as VolumeError {
        #expect(kinds.isEmpty || kinds.contains(error.kind), "\(what): \(error)", sourceLocation: sourceLocation)
    } catch {
        Issue.record("\(what): \(error)", sourceLocation: sourceLocation)
    }
}
