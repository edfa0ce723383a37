import Conformance
import Mirror
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
            #expect(pacer.wait(after: ByteCount(999_999), now: .seconds(second)) == .zero)
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
        // A tenth of a second is, so that a hiccup costs nothing.
        #expect(pacer.wait(after: ByteCount(1_000_000), now: .seconds(3600)) == .milliseconds(900))
    }

    @Test func `a rate of nothing is slow, and no division by zero`() {
        var pacer = Pacer(ByteRate(bytesPerSecond: 0))
        #expect(pacer.wait(after: ByteCount(10), now: .zero) == .seconds(10))
    }

    @Test(arguments: 1...50 as ClosedRange<UInt64>)
    func `whoever waits as told keeps the rate, and loses none of it`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var pacer = Pacer(rate)
        var (now, moved, largest, isBusy) = (Duration.zero, UInt64(0), UInt64(0), true)
        for _ in 0..<200 {
            let bytes = UInt64.random(in: 0...300_000, using: &random)
            // Now and then the work itself is slower than the rate.
            let work = Duration.microseconds(Int64.random(in: 0...Int64(bytes), using: &random) / 2)
            now += work
            moved += bytes
            largest = max(largest, bytes)
            let wait = pacer.wait(after: ByteCount(bytes), now: now)
            // Never ahead: what was moved fits the time up to the end of the waiting, and the tenth of a second.
            let allowed = (now + wait + .milliseconds(101)).seconds * Double(rate.bytesPerSecond)
            #expect(Double(moved) <= allowed, "seed \(seed)")
            if wait == .zero, bytes > 0 { isBusy = false }
            now += wait
        }
        // Never behind, where the work was always quick enough to be waited for.
        if isBusy { #expect(Double(moved) >= (now.seconds - 0.2) * Double(rate.bytesPerSecond), "seed \(seed)") }
    }
}
