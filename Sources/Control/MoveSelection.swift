internal import Volumes

/// Which of several moves an operator means.
enum MoveSelection {
    /// The indexes of those that fit: those whose target is written just so; if there is none, those whose target's
    /// names are all given; if there is none, those whose target's last names are given.
    ///
    /// - Parameter wanted: "rbd:slow/v:conf=west.conf", "rbd:slow/v", "slow/v", "v".
    static func fitting(_ wanted: String, among targets: [String]) -> [Int] {
        let exact = targets.indices.filter { targets[$0] == wanted }
        guard exact.isEmpty else { return exact }
        let asked = Names(wanted)
        let all = targets.indices.filter { Names(targets[$0])?.fits(asked, isWhole: true) == true }
        guard all.isEmpty else { return all }
        return targets.indices.filter { Names(targets[$0])?.fits(asked, isWhole: false) == true }
    }

    /// An address as the names it consists of.
    private struct Names {
        /// POOL, NAMESPACE, IMAGE, or a path's.
        let names: [String]
        /// conf, id and keyring, where they are given.
        let access: [String?]
        /// Nothing where it isn't written.
        let scheme: String?

        init?(_ text: String) {
            if text.hasPrefix("file:") || text.hasPrefix("/") {
                let path = text.hasPrefix("file:") ? text.dropFirst("file:".count) : text[...]
                names = path.split(separator: "/").map(String.init)
                (access, scheme) = ([], "file")
            } else {
                let isRBD = text.hasPrefix("rbd:")
                guard let scope = try? RBDScope(isRBD ? text : "rbd:" + text), let pool = scope.pool else {
                    // A path may hold what an image's name can't.
                    guard !isRBD else { return nil }
                    names = text.split(separator: "/").map(String.init)
                    (access, scheme) = ([], nil)
                    return
                }
                names = [pool] + scope.names
                access = [scope.access.configuration, scope.access.user, scope.access.keyring]
                scheme = isRBD ? "rbd" : nil
            }
        }

        /// - Parameter isWhole: Whether all names must be given, rather than only the last.
        func fits(_ asked: Names?, isWhole: Bool) -> Bool {
            guard let asked, !asked.names.isEmpty else { return false }
            if let wish = asked.scheme, let scheme, wish != scheme { return false }
            for (wish, own) in zip(asked.access, access) where wish != nil && wish != own { return false }
            guard isWhole || asked.scheme == nil else { return false }
            return isWhole ? names == asked.names : Array(names.suffix(asked.names.count)) == asked.names
        }
    }
}
