internal import ArgumentParser
internal import Mirror
internal import Volumes

struct AbortMove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "abort",
        abstract: "Gives a move up: removes the unfinished target, and what the move left on its source.",
        discussion: "A volume that Godwit did not begin, or that is finished, is never touched.")

    @Argument(help: "The target of the move.") var target: String
    @Option(
        help: ArgumentHelp(
            "The move's source, where it can't be reached under the address that the record has.", valueName: "address")
    )
    var source: String?

    func validate() throws {
        _ = try AddressArgument.explained(target)
        if let source { _ = try AddressArgument.explained(source) }
    }

    func run() async throws {
        let address = try AddressArgument.explained(target)
        let given = try source.map(AddressArgument.explained)
        try await reporting { () async throws(MoveError) in
            let target = try await staged(.source) { () throws(VolumeError) in
                try await Opening.target(address.address) { tell("godwit: \($0)") }
            }
            let outcome = try await Abort(of: target) { recorded throws(VolumeError) in
                let address = if let given { given.address } else { try Opening.recorded(recorded) }
                return try await Opening.source(address)
            }.run()
            emit("removed the unfinished \(self.target)\n", to: 1)
            guard let source = outcome.source else { return }
            if outcome.lost.isEmpty {
                emit("nothing of the move is left on \(source)\n", to: 1)
            } else {
                emit(
                    "there is no \(source) any more; if it was renamed, remove its snapshot "
                        + "\(outcome.lost.joined(separator: ", "))\n", to: 1)
            }
        }
    }
}
