internal import ArgumentParser
internal import Gate
internal import Mirror
internal import NBDServer
internal import Volumes

/// A live move's source as its clients have it through this process, and the target after it.
struct ExportArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Serve the source by NBD at unix:PATH or HOST:PORT while it is moved, and the target from the moment on that it "
                + "is there: whoever is connected stays so, and notices nothing.",
            discussion: "Nobody else can write to the source then. Serving goes on until the last client has left.",
            valueName: "where"))
    var export: String?
    @Option(help: "The export's name; by default the source's.") var exportName: String?
    @OptionGroup var listening: ListeningArguments

    func validate() throws {
        guard let export else {
            guard exportName == nil, listening.isDefault else {
                throw ValidationError("--export-name, --tls, --tls-no-verify-peer and --insecure go with --export")
            }
            return
        }
        _ = try ListenAddress.argument(export)
        if let exportName, exportName.utf8.count > 4096 || exportName.utf8.contains(0) {
            throw ValidationError("--export-name: at most 4096 bytes, and no NUL")
        }
    }

    /// - Parameter live: What else was said of the live move.
    func validate(from source: VolumeAddress, to target: VolumeAddress, _ live: LiveArguments) throws {
        guard export != nil else { return }
        guard live.live else { throw ValidationError("--export goes with --live") }
        guard live.freeze == .wait, live.fence == .release, live.freezeTimeout == nil else {
            throw ValidationError(
                "--freeze, --freeze-timeout and --fence are for clients elsewhere: those of --export are held by Godwit "
                    + "itself")
        }
        switch source {
        case .rbd: break
        case .file:
            guard live.retirement != .trash else {
                throw ValidationError("--source trash: there is none for files; keep, or rename")
            }
        case .nbd, .relay:
            throw ValidationError(
                "--export: '\(source.text)': only an image or a file can be moved beneath its clients: others could write "
                    + "to it by another way")
        }
        switch target {
        case .rbd, .file: break
        case .nbd, .relay:
            throw ValidationError(
                "--export: '\(target.text)' can't be served from here: give an image or a file as the target")
        }
    }

    /// - Parameter stop: Ends the export.
    /// - Returns: Nothing where the source isn't to be served.
    func open(
        _ source: any SourceVolume, from: VolumeAddress, to: VolumeAddress, stop: StopRequest
    ) async throws(VolumeError) -> MoveExport? {
        guard let text = export, let address = try? ListenAddress.argument(text) else { return nil }
        guard let source = source as? any ServableSource else {
            throw VolumeError(
                .unsupported, "export", on: source.address, reason: "it can't be served while it is moved")
        }
        let hold = GateHold(title: "export:\(text)", gate: Gate(), source: source) { () throws(VolumeError) in
            try await Opening.disk(to)
        }
        return try await MoveExport(
            hold, name: exportName ?? from.exportName, title: from.text, at: address, listening, stop: stop)
    }
}
