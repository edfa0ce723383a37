/// The key-value pairs of a volume. Both are bytes: two spellings that Swift's strings hold equal are two keys, and a
/// value need not be text.
package struct Metadata: Sendable, Equatable, ExpressibleByDictionaryLiteral {
    package private(set) var pairs: [[UInt8]: [UInt8]] = [:]

    package init() {}

    package init(dictionaryLiteral elements: (String, String)...) {
        for (key, value) in elements { self[bytes: Array(key.utf8)] = Array(value.utf8) }
    }

    package var isEmpty: Bool { pairs.isEmpty }
    package var count: Int { pairs.count }

    package subscript(bytes key: [UInt8]) -> [UInt8]? {
        get { pairs[key] }
        set { pairs[key] = newValue }
    }

    /// A value that is text.
    package subscript(key: String) -> String? {
        get { pairs[Array(key.utf8)].flatMap { String(validating: $0, as: UTF8.self) } }
        set { pairs[Array(key.utf8)] = newValue.map { Array($0.utf8) } }
    }

    /// Without the keys that begin with `prefix`.
    package func without(prefix: String) -> Metadata {
        var rest = Metadata()
        rest.pairs = pairs.filter { !$0.key.starts(with: prefix.utf8) }
        return rest
    }
}
