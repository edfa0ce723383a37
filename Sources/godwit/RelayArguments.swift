internal import ArgumentParser
internal import RemoteVolumes
internal import Volumes

/// How a volume goes to a receiver.
struct RelayArguments: ParsableArguments {
    @Option(help: "LZ4 for what goes over the wire: auto, where it makes it shorter; lz4, always tried; none.")
    var compress: RelayOptions.Compress?
    @Option(help: "LZ4's acceleration: 1 packs best, each more is a little faster; by default 1.")
    var compressAcceleration: Int?
    @Option(
        help: ArgumentHelp(
            "Connections, by default \(RelayOptions.standardConnections).",
            valueName: "n"))
    var connections: Int?

    func validate(for target: VolumeAddress) throws {
        guard case .relay = target else {
            guard compress == nil, compressAcceleration == nil, connections == nil else {
                throw ValidationError(
                    "--compress, --compress-acceleration and --connections are for a godwit:// target")
            }
            return
        }
        if let compressAcceleration, !RelayOptions.accelerations.contains(compressAcceleration) {
            throw ValidationError(
                "--compress-acceleration: \(RelayOptions.accelerations.lowerBound) to "
                    + "\(RelayOptions.accelerations.upperBound)")
        }
        if compressAcceleration != nil, compress == RelayOptions.Compress.none {
            throw ValidationError("--compress-acceleration goes with --compress auto or lz4")
        }
        if let connections, !(1...RelayOptions.mostConnections).contains(connections) {
            throw ValidationError("--connections: 1 to \(RelayOptions.mostConnections)")
        }
    }

    var options: RelayOptions {
        var options = RelayOptions()
        if let compress { options.compress = compress }
        if let compressAcceleration { options.acceleration = compressAcceleration }
        if let connections { options.connections = connections }
        return options
    }
}

extension RelayOptions.Compress: ExpressibleByArgument {}
