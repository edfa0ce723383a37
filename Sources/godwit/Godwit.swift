internal import ArgumentParser
internal import Glibc

@main
enum Main {
    /// Runs the command, and leaves at once: librados's threads go on until the end, and must not meet the destructors
    /// of its static objects, which exit(3) would run.
    static func main() async {
        do {
            var command = try Godwit.parseAsRoot()
            if var waiting = command as? any AsyncParsableCommand {
                try await waiting.run()
            } else {
                try command.run()
            }
            _exit(0)
        } catch {
            let status = Godwit.exitCode(for: error)
            let message = Godwit.fullMessage(for: error)
            if !message.isEmpty { emit(message + "\n", to: status.isSuccess ? STDOUT_FILENO : STDERR_FILENO) }
            _exit(status.rawValue)
        }
    }
}

struct Godwit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "godwit",
        abstract: "Moves block volumes between Ceph pools, clusters, files and NBD servers: thin, with every snapshot.",
        discussion: """
            A volume is written rbd:POOL/[NAMESPACE/]IMAGE[:conf=PATH][:id=NAME][:keyring=PATH], as a file's path \
            (file:PATH), or as an export of an NBD server: nbd://HOST[:PORT][/EXPORT], \
            nbd+unix:///[EXPORT]?socket=PATH. A target at another host, where 'godwit receive' runs, is written \
            godwit://HOST[:PORT]/rbd:POOL/IMAGE. Each end names its own cluster; by default CEPH_CONF, CEPH_ARGS, \
            /etc/ceph/ceph.conf and client.admin hold.

            EXAMPLES
              godwit migrate --dry-run rbd:fast/v rbd:slow/v     what a move would do, and what stands against it
              godwit migrate --verify rbd:fast/v rbd:slow/v      move, then compare every snapshot
              godwit migrate rbd:fast/v rbd:ssd/v:conf=/etc/ceph/west.conf:id=mover
              godwit map rbd:fast/v --from-snap monday           what changed since monday
              godwit capacity rbd:fast                           what the images of a pool really take
              godwit export rbd:fast/v@monday --read-only        serve a snapshot by NBD, and print its URI
              godwit receive --listen unix:/run/r.sock --allow rbd:slow   take volumes from other Godwits
              godwit status --watch 1                            how the live moves of this host stand
              godwit throttle slow/v 20M                         hold a live move's clients to 20 MiB/s

            EXIT STATUS
              0  done                                69  cluster or server unreachable
              64 wrong usage                         73  the target can't be made
              65 the volumes differ                  75  interrupted or failed: the same command goes on
              66 no such source, or live move        77  not permitted
            """,
        version: "godwit 0.1.0",
        subcommands: [Migrate.self, AbortMove.self, Doctor.self, Guard.self],
        groupedSubcommands: [
            CommandGroup(
                name: "Live Move",
                subcommands: [
                    ShowStatus.self, PauseMove.self, ResumeMove.self, ThrottleMove.self, LimitMove.self,
                    CutOverMove.self, CancelMove.self,
                ]),
            CommandGroup(
                name: "Volume",
                subcommands: [Verify.self, Map.self, ShowCapacity.self, ExportVolumes.self, Receive.self]),
        ])
}
