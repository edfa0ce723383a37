import Gate
import Testing
import Volumes

/// A disk that can be exchanged beneath its users.
struct GateTests {
    @Test func `it has nothing to serve before it opened`() async throws {
        let gate = Gate()
        #expect(gate.isShut && !gate.hasOpened)
        let place = MemoryVolume.Place()
        place.make(size: .mebibytes(1))
        gate.seat(try await MemoryVolume(at: place).attach(.head, isWritable: true), watch: nil)
        gate.open()
        #expect(!gate.isShut && gate.hasOpened && gate.size == .mebibytes(1))
    }
}
