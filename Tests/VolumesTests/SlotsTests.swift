import Synchronization
import Testing
import Volumes

struct SlotsTests {
    private final class Running: Sendable {
        let seen = Mutex((now: 0, most: 0, done: 0))
        func begin() {
            seen.withLock {
                $0.now += 1
                $0.most = max($0.most, $0.now)
            }
        }
        func end() {
            seen.withLock {
                $0.now -= 1
                $0.done += 1
            }
        }
    }

    @Test(arguments: [1, 3, 100]) func `no more than so many at once, and all of them in the end`(count: Int)
        async throws
    {
        let slots = Slots(count)
        let running = Running()
        try await withThrowingTaskGroup { group in
            for _ in 0..<200 {
                group.addTask {
                    try await slots.run { () throws(VolumeError) in
                        running.begin()
                        try? await Task.sleep(for: .microseconds(100))
                        running.end()
                    }
                }
            }
            try await group.waitForAll()
        }
        let seen = running.seen.withLock { $0 }
        #expect(seen.done == 200)
        #expect(seen.most <= count)
    }

    @Test func `a failure leaves its slot to the next`() async throws {
        let slots = Slots(1)
        for _ in 0..<3 {
            await #expect(throws: VolumeError.self) {
                try await slots.run { () throws(VolumeError) in
                    throw VolumeError(.failed, "try", on: "nothing", reason: "of no matter")
                }
            }
        }
        try await slots.run { () throws(VolumeError) in }
    }
}
