internal import ArgumentParser
internal import Control
internal import Convergence
internal import Foundation
internal import Gate
internal import Mirror
internal import NBDVolumes
internal import RBDVolumes
internal import RemoteVolumes
internal import Synchronization
internal import Volumes

struct Migrate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Moves a volume, with all its snapshots, to a target that it makes.",
        discussion: """
            Only what is allocated is sent; holes stay holes, and written zeros become holes. The target stands apart \
            as IMAGE.godwit-unfinished until all of it is there; nothing is ever overwritten. A move that was ended, \
            at any moment and on any host, goes on when the same command is given again; 'godwit abort TARGET' gives \
            it up. The source is kept.

            With --dirty-bitmap only what changed is moved: TARGET has to hold the source as it was when the bitmap was \
            begun, and holds neither state until the move has come to its end. The same command makes it whole.
            """)

    @Argument(help: "The volume to move.") var source: String
    @Argument(help: "What it is to be: must not exist; an NBD server's export must be empty.") var target: String

    @Option(help: "How many bytes one bit of the dirty map stands for: a power of two, 4K to 32M.")
    var granularity = SizeArgument(argument: "64K")!
    @Option(help: "Which snapshots to move: all, none.") var snapshots = MoveOptions.Snapshots.all
    @Option(help: "Move at most so many bytes a second, such as 100M; 0 for as fast as it goes.")
    var bandwidth = SizeArgument(argument: "0")!
    @Option(help: "How many bytes may be under way at once: bounds the memory.")
    var inFlight = SizeArgument(argument: "96M")!
    @Flag(help: "Let what an NBD server's export holds be lost; nothing else is ever overwritten.")
    var overwrite = false
    @Option(
        help: """
            Move only what this dirty bitmap of QEMU's says has changed, from an NBD server's export onto another that \
            holds the source as it was before.
            """)
    var dirtyBitmap: DirtyBitmap?
    @Flag(help: "Compare every snapshot and the head before the target becomes the finished one.") var verify = false
    @Flag(help: "Show what would be moved, how long it may take, and what stands against it; change nothing.")
    var dryRun = false
    @Option(help: "How to show progress: auto, bar, plain, none.") var progress = ProgressStyle.auto
    @Flag(help: "Write the report to stdout as JSON.") var json = false

    @OptionGroup(title: "To another Godwit (godwit://)") var relay: RelayArguments
    @OptionGroup(title: "While its clients go on writing") var live: LiveArguments
    @OptionGroup(title: "Beneath its clients") var exporting: ExportArguments
    @OptionGroup(title: "Target layout (default: as the source)") var layout: LayoutOptions

    func validate() throws {
        _ = try AddressArgument.explained(source)
        _ = try AddressArgument.explained(target)
        for text in [source, target] where try AddressArgument.explained(text).snapshot != nil {
            throw ValidationError("'\(text)': a move takes the image and all its snapshots: leave out the '@…'")
        }
        guard Granularity(granularity.count) != nil else {
            throw ValidationError("--granularity \(granularity.count.exactText): must be a power of two from 4K to 32M")
        }
        guard inFlight.count >= .mebibytes(1) else { throw ValidationError("--in-flight: at least 1M") }
        _ = try layout.wishes()
        if case .relay = try AddressArgument.explained(source).address {
            throw ValidationError(
                "'\(source)': a receiver's volume can't be moved away from here; give the command there")
        }
        if let dirtyBitmap { try refuseUnfit(dirtyBitmap) }
        switch try AddressArgument.explained(target).address {
        case .nbd where live.live:
            throw ValidationError("--live: an NBD server's export can't be the target of a live move")
        case .nbd, .relay: break
        case .rbd, .file:
            guard !overwrite else {
                throw ValidationError(
                    "--overwrite is for the export of an NBD server: nothing else is ever overwritten")
            }
        }
        try relay.validate(for: AddressArgument.explained(target).address)
        try exporting.validate(
            from: AddressArgument.explained(source).address, to: AddressArgument.explained(target).address, live)
    }

    func run() async throws {
        let (from, to) = (try AddressArgument.explained(source), try AddressArgument.explained(target))
        let isExport = if case .nbd = to.address { true } else { false }
        let interruption = Interruption(then: Again(isAnew: isExport, isOntoBase: dirtyBitmap != nil).clause)
        // A move that was cancelled, or ends itself, doesn't end the export.
        let stop = StopRequest(within: interruption.stop)
        let progress = WorkProgress()
        let wishes = try layout.wishes()
        let controls = MoveControls(bandwidth: options.bandwidth, throttle: live.throttle == .off ? .off : .auto)
        let status = LiveStatus(
            onRound: { number, round in if self.progress != .none { tell(round.text(number)) } },
            onNotice: { tell("godwit: \($0)") })
        let served = Mutex<MoveExport?>(nil)
        let moved = await reported { () async throws(MoveError) in
            let display = ProgressDisplay(progress, style: self.progress)
            let (text, refusal) = try await display.during { () async throws(MoveError) -> (String, MoveError?) in
                progress.begin("connecting")
                let source = try await staged(.source) { () throws(VolumeError) in
                    try await Opening.source(
                        from.address, bitmap: dirtyBitmap, isServed: exporting.export != nil && !dryRun)
                }
                let target = try await staged(.target) { () throws(VolumeError) in
                    try await Opening.target(
                        to.address, wishes: wishes, holding: holding, relay: relay.options,
                        notice: { progress.notice($0) }, isStopped: { stop.isAsked })
                }
                try refuseUnfit(target, at: to.address)
                let again = Again(
                    isAnew: target is NBDTarget, isOntoBase: dirtyBitmap != nil, isFar: target is RemoteTarget)
                var options = self.options
                let export =
                    dryRun
                    ? nil
                    : try await staged(.source) { () throws(VolumeError) in
                        try await exporting.open(
                            source, from: from.address, to: to.address, stop: interruption.stop)
                    }
                served.withLock { $0 = export }
                options.live = try await staged(.source) { () throws(VolumeError) in
                    try live.options(from: from.address, to: to.address, hold: export?.hold)
                }
                let move = Move(
                    from: source, to: target, options: options, progress: progress, stop: stop,
                    controls: controls, status: status)
                try refuseSame(from.address, to.address)
                if dryRun {
                    let (plan, refusal) = try await Preflight(move).plan()
                    return (json ? plan.json : plan.text, refusal)
                }
                let report = try await advising(again) { () async throws(MoveError) in
                    guard let live = options.live else { return try await move.run() }
                    let control = LiveControl(
                        status: status, progress: progress, controls: controls, stop: stop, options: live,
                        blank: MoveStatus(
                            source: source.address, target: target.address,
                            maxPauseSeconds: live.convergence.maxPause.seconds))
                    return try await ControlServer(control: control).serve(
                        unheard: { tell("godwit: no orders can be given to this move: \($0)") }
                    ) { () async throws(MoveError) in
                        // The clients of an export end with it.
                        let guardian =
                            export == nil ? Guardian(source: source.address, target: target.address) : nil
                        defer { guardian?.dismiss() }
                        try await staged(.source) { () throws(VolumeError) in try await export?.begin() }
                        return try await cancelling(controls, from.address, to.address, target) {
                            () async throws(MoveError) in
                            let report = try await move.run()
                            try await staged(.underWay) { () throws(VolumeError) in
                                try await export?.hold.leaveSource()
                            }
                            return report
                        }
                    }
                }
                return (json ? report.json : report.text, nil)
            }
            emit(text, to: 1)
            if let refusal { throw MoveError(refusal.kind, ["the move can't be made as things stand"]) }
        }
        if let export = served.withLock({ $0 }) {
            try await reporting { () async throws(MoveError) in
                try await staged(.source) { () throws(VolumeError) in try await export.end() }
            }
        }
        try moved.get()
    }

    private var options: MoveOptions {
        var options = MoveOptions()
        options.granularity = Granularity(granularity.count) ?? .standard
        options.snapshots = snapshots
        options.bandwidth = bandwidth.count == .zero ? nil : ByteRate(bytesPerSecond: bandwidth.count.bytes)
        options.inFlight = inFlight.count
        options.verifies = verify
        return options
    }

    private var holding: NBDTarget.Holding {
        if dirtyBitmap != nil { .base } else if overwrite { .anything } else { .zeros }
    }

    /// Removes what a move made that was cancelled by its operator.
    private func cancelling<Value>(
        _ controls: MoveControls, _ source: VolumeAddress, _ to: VolumeAddress, _ target: any TargetVolume,
        _ body: () async throws(MoveError) -> Value
    ) async throws(MoveError) -> Value {
        do throws(MoveError) {
            return try await body()
        } catch {
            guard controls.isCancelled else { throw error }
            _ = try await Opening.abort(of: target, at: to, source: source).run()
            throw MoveError(
                .resumable, ["cancelled: nothing of the move is left"], advice: "The same command begins it anew.")
        }
    }

    /// What becomes of a move that was ended before its end.
    private struct Again {
        /// Whether nothing at the target tells how far it was.
        let isAnew: Bool
        /// Whether only what changed is written, over what was there before.
        let isOntoBase: Bool
        /// Whether most failures are the other host's, and say only what to look at there.
        var isFar = false

        var clause: String {
            if isOntoBase {
                "the target holds neither state until the same command, which begins anew, has come to its end."
            } else if isAnew {
                "the same command with --overwrite begins anew."
            } else {
                "the same command goes on from there."
            }
        }
        var advice: String {
            if isOntoBase {
                "The target holds neither state until the same command, which begins anew, has come to its end."
            } else if isAnew {
                "The same command with --overwrite begins anew: the export can't tell how far it was."
            } else {
                "The same command goes on from there."
            }
        }
    }

    /// Says of a failure that can be gone on from, how.
    private func advising<Value>(
        _ again: Again, _ body: () async throws(MoveError) -> Value
    ) async throws(MoveError) -> Value {
        do throws(MoveError) {
            return try await body()
        } catch {
            // Nothing is there to be given up by 'godwit abort'.
            if again.isAnew, error.kind == .differs { throw MoveError(.differs, error.lines, advice: again.advice) }
            guard error.kind == .resumable, again.isAnew || again.isFar || error.advice == nil else { throw error }
            let advice = [error.advice, again.advice].compactMap(\.self).joined(separator: " ")
            throw MoveError(.resumable, error.lines, advice: advice)
        }
    }

    /// What only shows once the server of a godwit:// address has answered: whether it receives.
    private func refuseUnfit(_ target: any TargetVolume, at address: VolumeAddress) throws(MoveError) {
        guard case .relay = address else { return }
        if target is NBDTarget {
            tell("godwit: \(address.text) is no receiver: moving to it as to an export of an NBD server")
            guard !live.live else {
                throw MoveError(.usage, ["--live: an NBD server's export can't be the target of a live move"])
            }
        } else if overwrite {
            throw MoveError(.usage, ["--overwrite: a receiver makes the target, and overwrites nothing"])
        }
    }

    /// Only an export is written as it is: any other target is made by its move, and so holds nothing before.
    private func refuseUnfit(_ bitmap: DirtyBitmap) throws {
        try bitmap.refuseUnlessExport(source)
        guard case .nbd = try AddressArgument.explained(target).address else {
            throw ValidationError(
                "--dirty-bitmap moves only what changed, so the target has to hold what the source was before: only an "
                    + "NBD server's export can; '\(target)' would be made anew, and hold nothing but that")
        }
        guard !overwrite else {
            throw ValidationError("--overwrite: with --dirty-bitmap what the target holds is needed")
        }
    }

    private func refuseSame(_ from: VolumeAddress, _ to: VolumeAddress) throws(MoveError) {
        if from == to { throw MoveError(.usage, ["source and target are the same: \(source)"]) }
    }
}

extension MoveOptions.Snapshots: ExpressibleByArgument {}

/// What `rbd create` calls the same.
struct LayoutOptions: ParsableArguments {
    @Option(help: "Object size: a power of two, 4K to 32M.") var objectSize: SizeArgument?
    @Option(help: "Stripe unit; divides the object size.") var stripeUnit: SizeArgument?
    @Option(help: "Objects a stripe goes round.") var stripeCount: UInt64?
    @Option(help: "Pool for the data objects.") var dataPool: String?
    @Option(help: "Image features, separated by commas, instead of the source's; may be given more than once.")
    var imageFeature: [String] = []

    private static let known = ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten", "journaling"]

    func wishes() throws -> LayoutWishes {
        if let size = objectSize?.count, Granularity(size) == nil {
            throw ValidationError("--object-size \(size.exactText): must be a power of two from 4K to 32M")
        }
        if let unit = stripeUnit?.count, unit.bytes < 512 {
            throw ValidationError("--stripe-unit \(unit.exactText): at least 512")
        }
        if stripeCount == 0 { throw ValidationError("--stripe-count: at least 1") }
        let features = imageFeature.flatMap { $0.split(separator: ",").map(String.init) }
        if let unknown = features.first(where: { !Self.known.contains($0) }) {
            throw ValidationError("--image-feature \(unknown): one of \(Self.known.joined(separator: ", "))")
        }
        return LayoutWishes(
            objectSize: objectSize?.count, stripeUnit: stripeUnit?.count, stripeCount: stripeCount, dataPool: dataPool,
            features: imageFeature.isEmpty ? nil : Set(features))
    }
}
