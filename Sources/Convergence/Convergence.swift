package import Volumes

/// Decides, round by round, how a move comes to its end: go on, slow the writer, hand over, or say that it can't.
///
/// A value: it is told what each round showed, and reads no clock. Everything is reckoned from rates that were
/// measured, in the terms of Docs/Convergence.md:
///
/// - a round that begins with `d` dirty bytes takes `t = o + d / D`, of which the overhead `o` (a snapshot under load
///   and the diff) drains nothing, and `D` is the drain rate;
/// - a writer that dirties `w` bytes a second leaves `w · t` for the next round. Below `D` the rounds shrink towards
///   `w · o / (1 − w / D)`, at or above it they never do;
/// - handing over costs `F` besides draining what is left. So what may be left is `D · (maxPause − F)`.
package struct Convergence: Sendable {
    package enum Throttle: Sendable, Equatable {
        case now
        /// When it is to come to an end: until then it only follows.
        case later
        case never
    }

    package struct Settings: Sendable {
        /// How long the writer may be held still.
        package var maxPause: Duration
        /// Whether the writer may be slowed.
        package var throttle: Throttle
        /// Never slowed below this.
        package var floor: ByteRate
        /// After so many rounds without an end it is the operator's turn.
        package var maxRounds: Int
        /// Whether what is left is compared in the pause as well: reckoned to take as long again as draining it.
        package var compares: Bool

        package init(
            maxPause: Duration = .milliseconds(300), throttle: Throttle = .now,
            floor: ByteRate = ByteRate(bytesPerSecond: 1 << 20), maxRounds: Int = 30,
            compares: Bool = false
        ) {
            self.maxPause = maxPause
            self.throttle = throttle
            self.floor = floor
            self.maxRounds = maxRounds
            self.compares = compares
        }
    }

    /// What a round found when it began, and what the one before it did.
    package struct Observation: Sendable {
        /// Bytes that the round before moved.
        package var sent: ByteCount
        /// How long moving them took, without snapshot and diff.
        package var draining: Duration
        /// Bytes that differ from the round before.
        package var dirtied: ByteCount
        /// In how much time they were dirtied: from one snapshot to the next.
        package var interval: Duration
        /// How long this round's snapshot and diff took.
        package var overhead: Duration
        /// What the operator allows the move, if it is less than the volumes could do.
        package var bandwidth: ByteRate?

        package init(
            sent: ByteCount, draining: Duration, dirtied: ByteCount, interval: Duration, overhead: Duration,
            bandwidth: ByteRate? = nil
        ) {
            self.sent = sent
            self.draining = draining
            self.dirtied = dirtied
            self.interval = interval
            self.overhead = overhead
            self.bandwidth = bandwidth
        }
    }

    package enum Verdict: Sendable, Equatable {
        /// Drain this round, and look again.
        case goOn
        /// The same, with the writer held to that rate from now on.
        case throttle(ByteRate)
        /// Drain this round, then hand over.
        case handOver
        /// Nothing that is allowed makes it converge: the operator's choice.
        case stalled
    }

    package struct Decision: Sendable {
        package let verdict: Verdict
        /// Why, with the numbers.
        package let reason: String
        package let drainRate: ByteRate
        package let dirtyRate: ByteRate
        /// If the hand-over began once this round is drained.
        package let predictedPause: Duration
    }

    /// A share of what may be left, so that a round that is a little worse than the last still fits.
    private static let margin = 0.6
    /// Above this share of the drain rate a writer makes rounds so slowly smaller that it isn't worth the guest's wait.
    private static let largestShare = 0.5
    /// "Clearly fewer" than the round before.
    private static let clearly = 0.7
    /// A rate that was measured over a longer time than this many of the next tells little of it: what is written again
    /// and again counts once.
    private static let comparable = 1.3
    /// A gap between rounds that is longer says more about a writer that isn't steady; seconds.
    private static let longestGap = 2.0
    /// Rounds in which a writer that is far below the drain rate may be too fast: one long snapshot tells little.
    private static let leniency = 2
    /// Rounds at the floor, or at a limit that can't go lower, before it is said that it can't converge.
    private static let patience = 3

    package var settings: Settings
    /// The limit in force.
    package private(set) var limit: ByteRate?
    package private(set) var rounds = 0
    private var drain = DrainRate()
    private var last: Observation?
    private var atLowest = 0
    private var lenient = 0
    /// What a hand-over takes besides draining: freeze, snapshot, diff, fence, commit, switch.
    private var handOverCost: Duration
    /// What the last attempt to hand over has shown, if it failed after it had drained.
    private var shown: Shown?

    /// - Parameter handOverCost: Docs/Promises.md#pause; corrected by what attempts show.
    package init(_ settings: Settings, handOverCost: Duration = .milliseconds(150)) {
        self.settings = settings
        self.handOverCost = handOverCost
    }

    /// Looks at a round that has begun.
    package mutating func decide(_ seen: Observation) -> Decision {
        // What only follows may take as many rounds as it likes.
        rounds = settings.throttle == .later ? 0 : rounds + 1
        drain.add(seen.sent, in: seen.draining)
        shown?.see(seen.interval)
        let figures = Figures(seen, drain: drain.rate(most: seen.bandwidth), shown)
        defer { last = seen }
        let predicted = predictedPause(figures, seen)
        func decision(_ verdict: Verdict, _ reason: String) -> Decision {
            Decision(
                verdict: verdict, reason: reason, drainRate: ByteRate(figures.drain),
                dirtyRate: ByteRate(figures.dirty), predictedPause: predicted)
        }
        if !drain.isKnown, seen.dirtied > .zero, rounds < settings.maxRounds {
            return decision(.goOn, "how fast it goes isn't known before this round")
        }
        if predicted <= settings.maxPause {
            return decision(.handOver, "\(predicted.text) fits \(settings.maxPause.text)")
        }
        if rounds >= settings.maxRounds {
            return decision(.stalled, "\(rounds) rounds, and still \(predicted.text): --max-rounds")
        }
        let rest = settings.maxPause - handOverCost
        guard rest > .zero else {
            return decision(
                .stalled, "handing over alone takes \(handOverCost.text), more than \(settings.maxPause.text)")
        }
        let left = rest.seconds / secondsPerByteLeft(figures)
        if limit == nil, figures.steady(at: figures.dirty) <= left {
            return decision(.goOn, "\(ByteRate(figures.dirty).text) dirtied, it converges by itself")
        }
        if let before = last?.dirtied ?? Optional(seen.sent),
            Double(seen.dirtied.bytes) <= Self.clearly * Double(before.bytes)
        {
            return decision(.goOn, "\(seen.dirtied.text) dirtied after \(before.text): fewer each round")
        }
        if settings.throttle == .later {
            return decision(
                .goOn, "dirtied at \(ByteRate(figures.dirty).text): the writer isn't slowed before it is to hand over")
        }
        guard settings.throttle == .now else {
            return decision(
                .stalled,
                "dirtied at \(ByteRate(figures.dirty).text), drained at \(ByteRate(figures.drain).text): "
                    + "it doesn't converge, and the writer may not be slowed")
        }
        if limit == nil, figures.dirty <= Self.largestShare * figures.drain, lenient < Self.leniency {
            lenient += 1
            return decision(
                .goOn,
                "dirtied at \(ByteRate(figures.dirty).text), far below the \(ByteRate(figures.drain).text) drained")
        }
        return throttled(figures, left: left, decision)
    }

    private mutating func throttled(
        _ figures: Figures, left: Double, _ decision: (Verdict, String) -> Decision
    ) -> Decision {
        let floor = Double(settings.floor.bytesPerSecond)
        let wanted = figures.largestRate(leaving: Self.margin * left, share: Self.largestShare)
        // Only ever lower: what the limit in force didn't achieve, a higher one won't.
        let next = max(min(wanted, limit.map { Double($0.bytesPerSecond) * Self.clearly } ?? wanted), floor)
        if let limit, next >= Double(limit.bytesPerSecond) {
            atLowest += 1
            guard atLowest < Self.patience else {
                return decision(
                    .stalled,
                    "held to \(limit.text), the lowest allowed, it still dirties \(ByteRate(figures.dirty).text) "
                        + "where \(ByteRate(figures.drain).text) are drained")
            }
            return decision(.goOn, "held to \(limit.text), the lowest allowed")
        }
        atLowest = 0
        let rate = ByteRate(next)
        limit = rate
        let rates = "dirtied at \(ByteRate(figures.dirty).text), drained at \(ByteRate(figures.drain).text)"
        let steady = figures.steady(at: next)
        let outlook =
            steady.isFinite
            ? "at \(rate.text) the rounds shrink to \(ByteCount(UInt64(steady)).text)"
            : "the floor of \(rate.text) is all that may be done"
        return decision(.throttle(rate), "\(rates): \(outlook)")
    }

    /// What a hand-over would take that begins now.
    ///
    /// - Parameter elapsed: Since the last round's snapshot.
    package func predictedPause(after elapsed: Duration) -> Duration {
        guard let last else { return handOverCost }
        let figures = Figures(last, drain: drain.rate(most: last.bandwidth), shown)
        return handOverCost + .seconds(secondsPerByteLeft(figures) * left(figures, last, after: elapsed.seconds))
    }

    private func predictedPause(_ figures: Figures, _ seen: Observation) -> Duration {
        let elapsed = figures.overhead + Double(seen.dirtied.bytes) / figures.drain
        return handOverCost + .seconds(secondsPerByteLeft(figures) * left(figures, seen, after: elapsed))
    }

    /// What a byte that is left costs in the pause.
    private func secondsPerByteLeft(_ figures: Figures) -> Double {
        (settings.compares ? 2 : 1) / figures.drainOfFew
    }

    /// Bytes that will be dirty after that many seconds. Not more than were dirtied in a longer time; and where the rate
    /// was measured over a much longer one, as many.
    private func left(_ figures: Figures, _ seen: Observation, after seconds: Double) -> Double {
        let most = Double(seen.dirtied.bytes)
        let interval = seen.interval.seconds
        guard seconds < interval else { return figures.dirty * seconds }
        return interval > Self.comparable * seconds ? most : figures.dirty * seconds
    }

    /// The limit isn't in force any more, whoever took it back.
    package mutating func lifted() {
        limit = nil
        (atLowest, lenient) = (0, 0)
    }

    /// What a hand-over is going to take besides draining, as was just looked at.
    package mutating func expect(handOverCost: Duration) {
        // An attempt that took longer is forgotten only slowly.
        self.handOverCost = max(handOverCost, self.handOverCost * 0.9)
    }

    /// An attempt to hand over had to be given up, as it would have taken so long.
    /// - Parameters:
    ///   - cost: What it took, or would have taken, besides draining.
    ///   - drained: Bytes that it moved.
    ///   - time: How long that took.
    package mutating func handOverFailed(cost: Duration, drained: ByteCount, in time: Duration) {
        handOverCost = max(handOverCost, min(cost, settings.maxPause * 0.8))
        // Fewer tell nothing but how long an operation takes.
        guard drained >= .kibibytes(64), time > .zero, let last else { return }
        let dirty = Double(last.dirtied.bytes) / max(last.interval.seconds, 0.001)
        shown = Shown(
            drain: Double(drained.bytes) / time.seconds,
            gap: min(Double(drained.bytes) / max(dirty, 1), Self.longestGap))
    }
}

/// What an attempt to hand over showed of a round that drains little, as no round before could: it is the operations that
/// take their time then, and not the bytes.
private struct Shown {
    /// How fast what was left went, in bytes a second.
    let drain: Double
    /// In how many seconds that much had been dirtied: so long the round before took, however little it drained.
    var gap: Double

    /// From one round to the next it may be less.
    mutating func see(_ interval: Duration) { gap = min(gap, max(interval.seconds, 0.02)) }
}

/// What rates are reckoned from, in bytes and seconds.
private struct Figures {
    let drain: Double
    /// Of the last rounds, which leave few bytes in many places.
    let drainOfFew: Double
    let dirty: Double
    let overhead: Double

    init(_ seen: Convergence.Observation, drain: Double, _ shown: Shown?) {
        self.drain = drain
        drainOfFew = min(drain, shown?.drain ?? drain)
        dirty = Double(seen.dirtied.bytes) / max(seen.interval.seconds, 0.001)
        overhead = max(seen.overhead.seconds, shown?.gap ?? 0, 0.02)
    }

    /// What the rounds shrink to under a writer of that rate.
    func steady(at rate: Double) -> Double {
        rate < drainOfFew ? rate * overhead / (1 - rate / drainOfFew) : .infinity
    }

    /// The writer's rate at which rounds shrink to `left`, at most a share of the drain rate.
    func largestRate(leaving left: Double, share: Double) -> Double {
        let rest = left / drainOfFew
        return drainOfFew * min(rest / (overhead + rest), share)
    }
}

/// How fast bytes go, over the last rounds that moved enough to tell.
private struct DrainRate {
    private static let window = 3
    /// Fewer bytes tell how long an operation takes, not how many go in a second.
    private static let enough = ByteCount.mebibytes(4)
    /// Until it is known.
    private static let guess = Double(100 << 20)
    private var samples: [(bytes: Double, seconds: Double)] = []
    /// Whether a round moved so many that it tells.
    private var hasEnough = false

    var isKnown: Bool { !samples.isEmpty }

    mutating func add(_ bytes: ByteCount, in time: Duration) {
        guard bytes > .zero, time > .zero else { return }
        if bytes >= Self.enough, !hasEnough {
            samples = []
            hasEnough = true
        }
        // Until there are more, few tell better than none, or than those that were first.
        guard bytes >= Self.enough || !hasEnough else { return }
        samples.append((Double(bytes.bytes), time.seconds))
        if samples.count > Self.window { samples.removeFirst() }
    }

    func rate(most: ByteRate?) -> Double {
        let bytes = samples.reduce(0) { $0 + $1.bytes }
        let seconds = samples.reduce(0) { $0 + $1.seconds }
        let measured = seconds > 0 && bytes > 0 ? bytes / seconds : Self.guess
        return max(1, min(measured, most.map { Double($0.bytesPerSecond) } ?? measured))
    }
}

extension ByteRate {
    fileprivate init(_ value: Double) {
        self.init(bytesPerSecond: UInt64(min(max(value, 0), 1e18)))
    }
}
