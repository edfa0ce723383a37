package import Volumes

/// What clients of a receiver may make, and see: one pool or namespace with its images, or one folder with its files.
package enum Allowance: Sendable, Hashable {
    /// Of exactly that namespace, of which the pool's default is one. The images are reached as the operator said.
    case images(pool: String, namespace: String, access: RBDAddress)
    /// And folders in it. An absolute path without `.`, `..` and links.
    case files(folder: [String])

    package struct ParseError: Error, CustomStringConvertible {
        package let description: String
    }

    /// - Parameter text: `rbd:POOL[/NAMESPACE][:conf=PATH][:id=NAME][:keyring=PATH]` or `file:/FOLDER`.
    package init(_ text: String) throws(ParseError) {
        if text.utf8.starts(with: "file:".utf8) {
            guard let folder = FilePath(text.dropFirst("file:".count)) else {
                throw ParseError(description: "'\(text)': write file:/FOLDER, without '.', '..' or empty names")
            }
            self = .files(folder: folder.names)
            return
        }
        let scope: RBDScope
        do throws(VolumeAddress.ParseError) {
            scope = try RBDScope(text)
        } catch {
            throw ParseError(description: "\(error); or file:/FOLDER")
        }
        guard let pool = scope.pool, scope.names.count <= 1 else {
            throw ParseError(description: "'\(text)': write rbd:POOL, rbd:POOL/NAMESPACE or file:/FOLDER")
        }
        self = .images(pool: pool, namespace: scope.names.first ?? "", access: scope.access)
    }
}

/// A path from the root: names, of which none is empty, `.` or `..`.
struct FilePath: Sendable, Hashable {
    let names: [String]

    init(names: [String]) { self.names = names }

    /// Nothing if it isn't one.
    init?(_ text: some StringProtocol) {
        let text = Substring(text)
        guard text.utf8.first == UInt8(ascii: "/"), !text.utf8.contains(0) else { return nil }
        var names: [String] = []
        // By bytes: a name may begin with a combining mark, which would make one character of itself and the slash.
        for part in text.utf8.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            guard let name = String(part), !name.isEmpty, name != ".", name != ".." else { return nil }
            names.append(name)
        }
        self.names = names
    }

    var text: String { "/" + names.joined(separator: "/") }
}

/// All that is allowed, and nothing else: whatever a client says is held against it byte by byte.
package struct Allowances: Sendable {
    let all: [Allowance]

    package init(_ all: [Allowance]) { self.all = all }

    /// A volume that is allowed, and by what.
    struct Grant: Sendable {
        let address: VolumeAddress
        let allowance: Allowance
    }

    /// What a client's text names, if that is allowed.
    ///
    /// Nothing is said of why not: neither what there is, nor what else is allowed.
    func grant(_ text: String) -> Grant? {
        if text.utf8.starts(with: "file:".utf8) { return file(text.dropFirst("file:".count)) }
        guard case .rbd(let asked) = try? VolumeAddress(text), asked.snapshot == nil, asked.configuration == nil,
            asked.user == nil, asked.keyring == nil
        else { return nil }
        for allowance in all {
            guard case .images(let pool, let namespace, let access) = allowance, isSame(pool, asked.pool),
                isSame(namespace, asked.namespace)
            else { continue }
            // As the operator wrote them.
            let address = access.naming(pool: pool, namespace: namespace, image: asked.image)
            return Grant(address: .rbd(address), allowance: allowance)
        }
        return nil
    }

    private func file(_ text: Substring) -> Grant? {
        guard let path = FilePath(text) else { return nil }
        for allowance in all {
            guard case .files(let folder) = allowance, path.names.count > folder.count,
                zip(folder, path.names).allSatisfy({ isSame($0, $1) })
            else { continue }
            return Grant(address: .file(path: path.text), allowance: allowance)
        }
        return nil
    }

    /// Whether images of that grant may have their data in another pool.
    func allowsDataPool(_ pool: String, with grant: Grant) -> Bool {
        guard case .images(_, let namespace, let access) = grant.allowance else { return false }
        return all.contains { other in
            guard case .images(let allowed, let otherNamespace, let otherAccess) = other else { return false }
            return isSame(allowed, pool) && isSame(namespace, otherNamespace)
                && [access.configuration, access.user, access.keyring]
                    == [otherAccess.configuration, otherAccess.user, otherAccess.keyring]
        }
    }

    /// Two spellings that Swift's strings hold equal are two names to Ceph and to a file system.
    private func isSame(_ name: String, _ other: String) -> Bool { name.utf8.elementsEqual(other.utf8) }
}
