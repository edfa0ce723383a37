/// Where a volume is, as written on a command line.
///
///     rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:conf=PATH][:id=NAME][:keyring=PATH]
///     nbd://HOST[:PORT][/EXPORT], nbd+unix:///[EXPORT]?socket=PATH
///     godwit://HOST[:PORT]/TARGET, godwit+unix:///TARGET?socket=PATH
///     file:PATH, or a plain path
///
/// The `rbd:` form is QEMU's (block/rbd.c, "rbd:poolname/devicename"): a backslash takes the meaning from the
/// character after it.
package enum VolumeAddress: Hashable, Sendable {
    case rbd(RBDAddress)
    case nbd(NBDAddress)
    case relay(RelayAddress)
    case file(path: String)

    package struct ParseError: Error, CustomStringConvertible {
        package let description: String
    }

    package init(_ text: String) throws(ParseError) {
        if text.utf8.starts(with: "rbd:".utf8) {
            self = .rbd(try RBDAddress(text))
        } else if NBDAddress.isMeant(by: text) {
            self = .nbd(try NBDAddress(text))
        } else if RelayAddress.isMeant(by: text) {
            self = .relay(try RelayAddress(text))
        } else {
            let path = text.hasPrefix("file:") ? String(text.dropFirst("file:".count)) : text
            guard !path.isEmpty, !path.utf8.contains(0) else {
                throw ParseError(
                    description: "'\(text)' names no volume; write rbd:POOL/IMAGE, nbd://HOST/EXPORT or a file's path")
            }
            if let scheme = path.firstMatch(of: /^(nbd|nbds|nbd\+unix|godwits?|godwits?\+unix|http|https|ssh|iscsi):/),
                !text.hasPrefix("file:")
            {
                throw ParseError(
                    description: "'\(text)': volumes of the kind '\(scheme.1)' are not served; "
                        + "write rbd:POOL/IMAGE, nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH "
                        + "or a file's path (file:\(path), if it is one)")
            }
            self = .file(path: path)
        }
    }
}

/// An RBD image, and how to reach its cluster.
package struct RBDAddress: Hashable, Sendable {
    package var pool: String
    /// Empty for the pool's default namespace.
    package var namespace: String
    package var image: String
    package var snapshot: String?
    /// The path of a ceph.conf; by default `CEPH_CONF`, then /etc/ceph/ceph.conf.
    package var configuration: String?
    /// "admin" for client.admin.
    package var user: String?
    /// The path of a keyring.
    package var keyring: String?

    package init(_ text: String) throws(VolumeAddress.ParseError) {
        // Without the options: one may be a secret that doesn't belong there.
        let shown = "rbd:" + Self.split(Substring(text.unicodeScalars.dropFirst("rbd:".count)), at: ":")[0]
        func refuse(_ why: String) -> VolumeAddress.ParseError {
            .init(
                description: "'\(shown)': \(why); write rbd:POOL/[NAMESPACE/]IMAGE[:conf=PATH][:id=NAME][:keyring=PATH]"
            )
        }
        let fields = try Self.fields(of: text, refuse)
        var path = fields.path
        guard path.count == 2 || path.count == 3 else { throw refuse("expected a pool and an image") }
        let last = Self.split(path.removeLast()[...], at: "@")
        guard last.count <= 2 else { throw refuse("more than one '@'") }
        pool = Self.unescaped(path[0])
        namespace = path.count == 2 ? Self.unescaped(path[1]) : ""
        image = Self.unescaped(last[0])
        snapshot = last.count == 2 ? Self.unescaped(last[1]) : nil
        guard !pool.isEmpty else { throw refuse("the pool's name is empty") }
        guard path.count == 1 || !namespace.isEmpty else { throw refuse("the namespace's name is empty") }
        guard !image.isEmpty else { throw refuse("the image's name is empty") }
        guard snapshot != "" else { throw refuse("the snapshot's name is empty") }
        (configuration, user, keyring) = (fields.configuration, fields.user, fields.keyring)
    }

    /// The names between the slashes, still escaped, and the options.
    private static func fields(
        of text: String, _ refuse: (String) -> VolumeAddress.ParseError
    ) throws(VolumeAddress.ParseError) -> (path: [String], configuration: String?, user: String?, keyring: String?) {
        // An image's name may hold anything but the separators, which can be escaped.
        let fields = split(Substring(text.unicodeScalars.dropFirst("rbd:".count)), at: ":")
        var (configuration, user, keyring): (String?, String?, String?)
        guard !text.utf8.contains(0) else { throw refuse("a name can't hold a NUL") }
        for field in fields.dropFirst() {
            let pair = unescaped(field).unicodeScalars.split(
                separator: "=", maxSplits: 1, omittingEmptySubsequences: false
            ).map { String($0) }
            guard pair.count == 2, !pair[1].isEmpty else { throw refuse("\(shown(pair[0])) is no KEY=VALUE") }
            let value = pair[1]
            switch pair[0] {
            case "conf": configuration = value
            case "id": user = value
            case "keyring": keyring = value
            default: throw refuse("unknown option: \(shown(pair[0])) (known: conf, id, keyring)")
            }
        }
        return (split(fields[0][...], at: "/"), configuration, user, keyring)
    }

    /// POOL/[NAMESPACE/]IMAGE, as `rbd` writes it.
    package var spec: String { pool + "/" + (namespace.isEmpty ? "" : namespace + "/") + image }

    /// The whole address, as it can be written again.
    package var text: String {
        var text =
            "rbd:" + ([pool, namespace, image].filter { !$0.isEmpty }.map { Self.escaped($0) }).joined(separator: "/")
        if let snapshot { text += "@" + Self.escaped(snapshot) }
        let options = [("conf", configuration), ("id", user), ("keyring", keyring)]
        for case (let key, let value?) in options { text += ":\(key)=\(Self.escaped(value, separators: ":\\"))" }
        return text
    }

    /// An option's name, if it looks like one: what stands there may be a secret.
    private static func shown(_ key: String) -> String {
        key.wholeMatch(of: /[a-z_]{1,16}/) == nil ? "an option" : "'\(key)'"
    }

    // All of these go by Unicode scalars: a name may begin with a combining mark, which would make one Character of
    // itself and the separator before it.

    private static func split(_ text: Substring, at separator: Unicode.Scalar) -> [String] {
        var fields = [""]
        var isEscaped = false
        for scalar in text.unicodeScalars {
            if scalar == separator, !isEscaped {
                fields.append("")
            } else {
                fields[fields.count - 1].unicodeScalars.append(scalar)
            }
            isEscaped = scalar == "\\" && !isEscaped
        }
        return fields
    }

    private static func unescaped(_ text: String) -> String {
        var plain = String.UnicodeScalarView()
        var isEscaped = false
        for scalar in text.unicodeScalars {
            if scalar == "\\", !isEscaped {
                isEscaped = true
            } else {
                plain.append(scalar)
                isEscaped = false
            }
        }
        return String(plain)
    }

    /// - Parameter separators: What would end the name where it stands.
    private static func escaped(_ name: String, separators: String = ":/@\\") -> String {
        var text = String.UnicodeScalarView()
        for scalar in name.unicodeScalars {
            if separators.unicodeScalars.contains(scalar) { text.append("\\") }
            text.append(scalar)
        }
        return String(text)
    }
}

/// Part of a cluster, as `godwit capacity` takes it: all of it, a pool, a namespace or an image.
package struct RBDScope: Hashable, Sendable {
    /// Nothing for all pools.
    package let pool: String?
    /// What follows the pool: a namespace or an image, or both.
    package let names: [String]
    /// An image or namespace of no name, by which only the cluster is to be reached.
    package let access: RBDAddress

    /// All pools of the cluster that the environment names.
    package static let everything = RBDScope()

    private init() {
        (pool, names) = (nil, [])
        access = RBDAddress(pool: "", configuration: nil, user: nil, keyring: nil)
    }

    /// - Parameter text: rbd:[POOL[/NAMESPACE][/IMAGE]][:conf=PATH][:id=NAME][:keyring=PATH]
    package init(_ text: String) throws(VolumeAddress.ParseError) {
        guard text.utf8.starts(with: "rbd:".utf8) else {
            throw VolumeAddress.ParseError(
                description: "'\(text)': write rbd:POOL, rbd:POOL/NAMESPACE or rbd:POOL/IMAGE")
        }
        let (names, access) = try RBDAddress.scope(text)
        guard names.count <= 3, !names.dropLast().contains("") else {
            throw VolumeAddress.ParseError(
                description: "'rbd:\(names.joined(separator: "/"))': write rbd:POOL[/NAMESPACE][/IMAGE]")
        }
        self.access = access
        pool = names[0].isEmpty ? nil : names[0]
        self.names = Array(names.dropFirst())
    }
}

extension RBDAddress {
    /// An image of the cluster that this address leads to.
    package func naming(pool: String, namespace: String, image: String) -> RBDAddress {
        RBDAddress(self, pool: pool, namespace: namespace, image: image)
    }

    private init(_ access: RBDAddress, pool: String, namespace: String, image: String) {
        (self.pool, self.namespace, self.image) = (pool, namespace, image)
        (configuration, user, keyring) = (access.configuration, access.user, access.keyring)
    }

    fileprivate init(pool: String, configuration: String?, user: String?, keyring: String?) {
        (self.pool, namespace, image) = (pool, "", "")
        (self.configuration, self.user, self.keyring) = (configuration, user, keyring)
    }

    fileprivate static func scope(
        _ text: String
    ) throws(VolumeAddress.ParseError) -> (names: [String], access: RBDAddress) {
        let fields = try fields(of: text) { why in
            .init(description: "\(why); write rbd:POOL[/NAMESPACE][/IMAGE][:conf=PATH][:id=NAME][:keyring=PATH]")
        }
        guard !fields.path.contains(where: { split($0[...], at: "@").count > 1 }) else {
            throw VolumeAddress.ParseError(
                description:
                    "'rbd:\(fields.path.joined(separator: "/"))': a snapshot is shown with its image; an '@' in a name is written \\@"
            )
        }
        let names = fields.path.map { unescaped($0) }
        return (
            names,
            RBDAddress(
                pool: names[0], configuration: fields.configuration, user: fields.user, keyring: fields.keyring)
        )
    }
}

extension VolumeAddress {
    /// As it can be typed, without secrets.
    package var text: String {
        switch self {
        case .rbd(let address): address.text
        case .nbd(let address): address.text
        case .relay(let address): address.text
        case .file(let path): "file:" + path
        }
    }
}
