import Testing

@testable import FileVolumes

struct PromptnessTests {
    @Test func `what takes no waiting may go on`() {
        let prompt = Promptness()
        #expect(prompt.isDue)
        for _ in 0..<1000 { prompt.note(.microseconds(900)) }
        #expect(prompt.isDue)
    }

    @Test func `after waiting, it rests a hundred times as long`() async throws {
        let prompt = Promptness()
        let begin = ContinuousClock.now
        prompt.note(.milliseconds(2))
        while !prompt.isDue { try await Task.sleep(for: .milliseconds(5)) }
        #expect(ContinuousClock.now - begin >= .milliseconds(200))
    }
}
