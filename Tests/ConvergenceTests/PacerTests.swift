import Conformance
import Convergence
import Testing
import Volumes

struct PacerTests {
    private let rate = ByteRate(bytesPerSecond: 1_000_000)

    @Test func `a second's bytes take a second`() {
        var pacer = Pacer(rate)
        #expect(pacer.wait(after: ByteCount(1_000_000), now: .zero) == .seconds(1))
        // Waited for half of that: the rest is still to be waited for.
        #expect(pacer.wait(after: .zero, now: .milliseconds(500)) == .milliseconds(500))
    }

    @Test func `bytes that took their time need no waiting`() {
        var pacer = Pacer(rate)
        for second in 1...10 {
            #expect(pacer.wait(after: ByteCount(1_000_000), now: .seconds(second)) == .zero)
        }
    }

    @Test func `nothing moved is nothing to wait for`() {
        var pacer = Pacer(rate)
        #expect(pacer.wait(after: .zero, now: .zero) == .zero)
        #expect(pacer.wait(after: .zero, now: .seconds(5)) == .zero)
    }

    @Test func `an idle hour isn't caught up`() {
        var pacer = Pacer(rate)
        _ = pacer.wait(after: ByteCount(1000), now: .zero)
        // Ten seconds' worth: the first may have been under way all the time, and a tenth of a second is forgiven.
        var now = Duration.seconds(3600)
        for _ in 0..<10 { now += pacer.wait(after: ByteCount(1_000_000), now: now) }
        #expect(now >= .milliseconds(3_608_899) && now <= .seconds(3610))
    }

    @Test func `whoever waits already is told what was set right`() {
        var pacer = Pacer(rate)
        #expect(pacer.wait(after: ByteCount(4_000_000), now: .zero) == .seconds(4))
        let before = pacer.corrected
        pacer.correct(from: ByteCount(4_000_000), to: ByteCount(400_000))
        #expect(abs((pacer.corrected - before).seconds + 3.6) < 1e-9)
        #expect(abs(pacer.wait(after: .zero, now: .zero).seconds - 0.4) < 1e-9)
    }

    @Test func `a rate of nothing is slow, and no division by zero`() {
        var pacer = Pacer(ByteRate(bytesPerSecond: 0))
        #expect(pacer.wait(after: ByteCount(10), now: .zero) == .seconds(10))
    }

    @Test(arguments: 1...50 as ClosedRange<UInt64>)
    func `whoever waits as told keeps the rate, and loses none of it`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var pacer = Pacer(rate)
        var (now, moved, largest) = (Duration.zero, UInt64(0), UInt64(0))
        // How much of the time the work itself was too slow for the rate.
        var lost = Duration.zero
        for _ in 0..<200 {
            let bytes = UInt64.random(in: 0...300_000, using: &random)
            let cost = Duration.seconds(Double(bytes) / Double(rate.bytesPerSecond))
            let work = cost * Double.random(in: 0...1.2, using: &random)
            if work > cost { lost += work - cost }
            now += work
            moved += bytes
            largest = max(largest, bytes)
            now += pacer.wait(after: ByteCount(bytes), now: now)
            // Never ahead by more than what is under way and the tenth of a second.
            let most = (now.seconds + 0.101) * Double(rate.bytesPerSecond) + Double(largest)
            #expect(Double(moved) <= most, "seed \(seed)")
        }
        let least = (now - lost).seconds * Double(rate.bytesPerSecond) * 0.999
        #expect(Double(moved) >= least, "seed \(seed)")
    }
}
