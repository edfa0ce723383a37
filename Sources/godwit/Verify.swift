internal import ArgumentParser
internal import Mirror
internal import NBDVolumes
internal import Volumes

struct Verify: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compares two volumes: size, every snapshot, head.",
        discussion: """
            Names the first differing range of each. Where both are RBD images that lie on their objects alike, the \
            OSDs hash the bytes themselves, and none are sent; of a volume at a receiver (godwit://) only hashes are sent \
            where it agrees. With --dirty-bitmap only what the bitmap says is dirty is compared, in chunks of 64 KiB. \
            Exits with 65 if anything differs.
            """)

    @Argument(help: "One volume.") var source: String
    @Argument(help: "The other.") var target: String
    @Option(help: "Compare only what this dirty bitmap of QEMU's says has changed in SOURCE, an NBD server's export.")
    var dirtyBitmap: DirtyBitmap?
    @Option(help: "How to show progress: auto, bar, plain, none.") var progress = ProgressStyle.auto
    @Flag(help: "Write the differences to stdout as JSON.") var json = false

    func validate() throws {
        for text in [source, target] where try AddressArgument.explained(text).snapshot != nil {
            throw ValidationError("'\(text)': volumes are compared with all their snapshots: leave out the '@…'")
        }
        try dirtyBitmap?.refuseUnlessExport(source)
    }

    func run() async throws {
        let interruption = Interruption(then: "nothing was compared to the end.")
        let progress = WorkProgress()
        let (left, right) = (try AddressArgument.explained(source), try AddressArgument.explained(target))
        var differs = false
        try await reporting { () async throws(MoveError) in
            let differences = try await ProgressDisplay(progress, style: self.progress).during {
                () async throws(MoveError) in
                progress.begin("connecting")
                let (source, base) = try await staged(.source) { () throws(VolumeError) in
                    try await opened(left.address)
                }
                let target = try await staged(.source) { () throws(VolumeError) in
                    try await Opening.volume(right.address)
                }
                return try await Verification(
                    source: source, target: target, base: base, progress: progress, stop: interruption.stop
                ).run()
            }
            if json {
                emit(encoded(differences) + "\n", to: 1)
            } else if differences.isEmpty {
                let what = dirtyBitmap.map { "size, and what \($0.name) says is dirty" } ?? "size, snapshots, head"
                emit("\(source) and \(target) are equal: \(what)\n", to: 1)
            } else {
                emit(differences.map { $0.description + "\n" }.joined(), to: 1)
            }
            differs = !differences.isEmpty
        }
        if differs { throw Status.differs }
    }

    /// The source, and since which state it is looked at.
    private func opened(_ address: VolumeAddress) async throws(VolumeError) -> (any Volume, base: Snapshot?) {
        guard let dirtyBitmap else { return (try await Opening.volume(address), nil) }
        let source = try await Opening.source(address, bitmap: dirtyBitmap)
        return (source, source.base)
    }
}
