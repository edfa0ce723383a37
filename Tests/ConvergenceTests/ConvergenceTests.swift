import Conformance
import Convergence
import Testing
import Volumes

private let mebi = Double(1 << 20)

struct ConvergenceTests {
    @Test(arguments: [3.0, 5, 8, 10], [20.0, 100, 400])
    func `a writer many times faster than the move converges within a handful of rounds`(times: Double, drain: Double) {
        let outcome = Model(
            writer: times * drain * mebi, workingSet: 64 * 1024 * mebi, drain: drain * mebi, allocated: 4096 * mebi
        ).run()
        #expect(outcome.end == .handOver, "\(outcome)")
        #expect(outcome.rounds <= 6, "\(outcome)")
        #expect(outcome.limits.count == 1, "it is computed, not felt for: \(outcome)")
        #expect(outcome.lastDrain <= 0.15, "\(outcome)")
    }

    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func `one that would converge by itself is never slowed`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for _ in 0..<200 {
            let drain = Double.random(in: 5...500, using: &random) * mebi
            let model = Model(
                writer: Double.random(in: 0...3, using: &random) * drain,
                workingSet: Double.random(in: 1...4096, using: &random) * mebi, drain: drain,
                overhead: Double.random(in: 0.05...1.5, using: &random),
                allocated: Double.random(in: 16...8192, using: &random) * mebi)
            let outcome = model.run()
            #expect(outcome.rounds < 200, "\(model)")
            if model.convergesByItself { #expect(outcome.limits.isEmpty, "\(model) \(outcome)") }
            if outcome.end == .handOver { #expect(outcome.lastDrain <= 0.2, "\(model) \(outcome)") }
            for limit in outcome.limits { #expect(limit.bytesPerSecond >= 1 << 20) }
        }
    }

    @Test(arguments: [0.2, 1, 3, 10])
    func `what is compared in the pause as well may be half as much`(times: Double) {
        var model = Model(
            writer: times * 100 * mebi, workingSet: 64 * 1024 * mebi, drain: 100 * mebi, allocated: 4096 * mebi)
        model.settings.compares = true
        let outcome = model.run()
        #expect(outcome.end == .handOver, "\(outcome)")
        #expect(outcome.lastDrain <= 0.075, "\(outcome)")
    }

    @Test func `an idle writer is handed over at once`() {
        let outcome = Model(writer: 0, workingSet: mebi, drain: 100 * mebi, allocated: 1000 * mebi).run()
        #expect(outcome.end == .handOver)
        #expect(outcome.rounds == 1)
    }

    @Test func `what the floor doesn't let converge is said with its numbers`() {
        var model = Model(writer: 200 * mebi, workingSet: 4096 * mebi, drain: 20 * mebi, allocated: 512 * mebi)
        model.settings.floor = ByteRate(bytesPerSecond: 50 << 20)
        let outcome = model.run()
        #expect(outcome.end == .stalled)
        #expect(outcome.limits == [ByteRate(bytesPerSecond: 50 << 20)])
        #expect(outcome.reason.contains("50.0 MiB/s"), "\(outcome)")
        #expect(outcome.rounds < 10)
    }

    @Test func `a writer that may not be slowed is the operator's choice`() {
        var model = Model(writer: 200 * mebi, workingSet: 4096 * mebi, drain: 20 * mebi, allocated: 512 * mebi)
        model.settings.throttle = .never
        let outcome = model.run()
        #expect(outcome.end == .stalled)
        #expect(outcome.limits.isEmpty)
    }

    @Test func `a move that only follows slows nobody, and doesn't count its rounds`() {
        var convergence = Convergence(.init(throttle: .later, maxRounds: 2))
        let seen = Convergence.Observation(
            sent: .mebibytes(500), draining: .seconds(10), dirtied: .mebibytes(500), interval: .seconds(10),
            overhead: .milliseconds(500))
        for _ in 0..<5 { #expect(convergence.decide(seen).verdict == .goOn) }
        convergence.settings.throttle = .now
        guard case .throttle = convergence.decide(seen).verdict else { return #expect(Bool(false)) }
    }

    @Test func `rounds are counted`() {
        var model = Model(writer: 8 * mebi, workingSet: 4096 * mebi, drain: 20 * mebi, allocated: 512 * mebi)
        model.settings.maxRounds = 2
        model.settings.maxPause = .milliseconds(160)
        let outcome = model.run()
        #expect(outcome.end == .stalled)
        #expect(outcome.reason.contains("--max-rounds"))
    }

    @Test func `a pause shorter than handing over takes is refused with the reason`() {
        var model = Model(writer: mebi, workingSet: 4096 * mebi, drain: 20 * mebi, allocated: 512 * mebi)
        model.settings.maxPause = .milliseconds(10)
        #expect(model.run().end == .stalled)
    }

    @Test func `an attempt that took longer is reckoned with`() {
        var convergence = Convergence(.init(maxPause: .milliseconds(300)))
        let seen = Convergence.Observation(
            sent: .mebibytes(100), draining: .seconds(1), dirtied: .mebibytes(14), interval: .seconds(1),
            overhead: .milliseconds(500))
        #expect(convergence.decide(seen).verdict == .handOver)
        convergence.handOverFailed(cost: .milliseconds(280), drained: .zero, in: .zero)
        #expect(convergence.decide(seen).verdict != .handOver)
    }

    @Test func `a few bytes in many places, which took long in an attempt, are reckoned with, and then kept fewer`() {
        var convergence = Convergence(.init(maxPause: .milliseconds(300)))
        let seen = Convergence.Observation(
            sent: .mebibytes(100), draining: .milliseconds(500), dirtied: .mebibytes(2), interval: .seconds(1),
            overhead: .milliseconds(400))
        #expect(convergence.decide(seen).verdict == .handOver)
        convergence.handOverFailed(cost: .milliseconds(220), drained: .mebibytes(1), in: .milliseconds(120))
        // A writer that slow is given a round or two before it is slowed.
        var decision = convergence.decide(seen)
        for _ in 0..<2 where decision.verdict == .goOn { decision = convergence.decide(seen) }
        guard case .throttle(let limit) = decision.verdict else { return #expect(Bool(false), "\(decision)") }
        #expect(limit.bytesPerSecond < 2 << 20, "below what it dirties")
        #expect(decision.predictedPause > .milliseconds(300))
    }

    @Test func `the operator's bandwidth bounds the drain rate`() {
        var convergence = Convergence(.init())
        let decision = convergence.decide(
            .init(
                sent: .mebibytes(100), draining: .seconds(1), dirtied: .mebibytes(14), interval: .seconds(1),
                overhead: .milliseconds(500), bandwidth: ByteRate(bytesPerSecond: 10 << 20)))
        #expect(decision.drainRate == ByteRate(bytesPerSecond: 10 << 20))
        #expect(decision.verdict != .handOver)
    }
}
