import Foundation
import Testing

/// The rules of the house that no compiler knows, held against the sources as they are.
struct ArchitectureTests {
    // MARK: The rules

    /// Which rooms a room may use. Nothing imports upward, and the move knows no kind of volume.
    static let edges: [String: Set<String>] = [
        "CCeph": [],
        "CISAL": [],
        "CLZ4": [],
        "Volumes": [],
        "Capacity": ["Volumes"],
        "Checksums": ["CISAL", "Volumes"],
        "DirtyMap": ["Volumes"],
        "FileVolumes": ["Volumes"],
        "Tracker": ["Checksums", "Volumes"],
        "RBDVolumes": ["Capacity", "CCeph", "Checksums", "DirtyMap", "Volumes"],
        "Convergence": ["Volumes"],
        "Cutover": ["Volumes"],
        "Gate": ["Convergence", "Cutover", "Volumes"],
        "Guest": ["Cutover", "Volumes"],
        "Sockets": ["Volumes"],
        "Control": ["Sockets", "Volumes"],
        "NBDProtocol": ["Volumes"],
        "Credentials": ["Volumes"],
        "NBDServer": ["Credentials", "NBDProtocol", "Sockets", "Volumes"],
        "NBDVolumes": ["Credentials", "NBDProtocol", "Sockets", "Volumes"],
        "Relay": ["Checksums", "CLZ4", "NBDProtocol", "Volumes"],
        "RelayServer": ["Checksums", "Credentials", "NBDProtocol", "NBDServer", "Relay", "Sockets", "Volumes"],
        "RemoteVolumes": ["Checksums", "NBDProtocol", "NBDVolumes", "Relay", "Sockets", "Volumes"],
        "Mirror": ["Checksums", "Convergence", "Cutover", "DirtyMap", "Volumes"],
        "godwit": [
            "CCeph", "Capacity", "Checksums", "Control", "Convergence", "Credentials", "Cutover", "DirtyMap",
            "FileVolumes", "Gate", "Guest", "Mirror", "NBDProtocol", "NBDServer", "NBDVolumes", "RBDVolumes", "Relay",
            "RelayServer", "RemoteVolumes", "Sockets", "Tracker", "Volumes",
        ],
    ]

    static let mostLines = 400

    /// Words that a source may hold only where it is named here, and why.
    static let allowed: [Word: [String: String]] = [
        .print: [:],
        .forcedTry: [
            "Mirror/Record.swift": "a value of numbers and strings always encodes",
            "RBDVolumes/Marking.swift": "a value of numbers and strings always encodes",
            "godwit/ReportText.swift": "a value of numbers and strings always encodes",
        ],
        .fatalError: ["DirtyMap/AtomicBits.swift": "there is no memory for the map"],
    ]

    enum Word: String, CaseIterable {
        case print = #"(?<![.\w])print\("#
        case forcedTry = #"\btry!"#
        case fatalError = #"\bfatalError\("#

        var sign: String {
            switch self {
            case .print: "print("
            case .forcedTry: "try!"
            case .fatalError: "fatalError("
            }
        }
        func isIn(_ text: String) -> Bool { text.range(of: rawValue, options: .regularExpression) != nil }
    }

    // MARK: What breaks them

    /// - Parameter file: From the folder of the sources: "Mirror/Walk.swift".
    static func findings(in file: String, _ text: String) -> [String] {
        var found: [String] = []
        let room = String(file.prefix { $0 != "/" })
        // "package import Volumes", "@testable import Mirror", "import struct Mirror.Report"
        let importing = /^\s*(?:@\w+\s+|\w+\s+)*import\s+(?:[a-z]+\s+)?(\w+)/
        let beginning = /\bTask\s*(\(.*\))?\s*\{|\bTask\.detached\b/
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let count = lines.count - (text.hasSuffix("\n") ? 1 : 0)
        if count > mostLines { found.append("\(file) has \(count) lines") }
        for (index, line) in lines.enumerated() {
            let code = String(line.prefix(upTo: line.range(of: "//")?.lowerBound ?? line.endIndex))
            let place = "\(file):\(index + 1)"
            // Most lines are about something else: looking for a word is quicker than for a form.
            if code.contains("import "), let match = code.firstMatch(of: importing) {
                let name = String(match.1)
                if edges[name] != nil, edges[room]?.contains(name) != true {
                    found.append("\(place) imports \(name), which \(room) may not")
                }
            }
            for word in Word.allCases where code.contains(word.sign) && word.isIn(code) {
                if allowed[word]?[file] == nil { found.append("\(place) has \(word)") }
            }
            let isTask = code.contains("Task") && code.firstMatch(of: beginning) != nil
            let comment = line.contains("//") || (index > 0 && lines[index - 1].contains("//"))
            if isTask, !comment { found.append("\(place) begins a task that nobody owns, without a word why") }
        }
        return found
    }

    // MARK: The sources

    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Their paths from the folder of the sources, and their texts.
    static func sources() throws -> [(file: String, text: String)] {
        let folder = root.appending(path: "Sources").path
        let files = try FileManager.default.subpathsOfDirectory(atPath: folder).filter { $0.hasSuffix(".swift") }
        return try files.sorted().map { ($0, try String(contentsOfFile: folder + "/" + $0, encoding: .utf8)) }
    }

    @Test func `the sources keep the rules of the house`() throws {
        let sources = try Self.sources()
        #expect(sources.count > 40)
        for (file, text) in sources { #expect(Self.findings(in: file, text) == []) }
    }

    @Test func `every room is in the table, and the table has no other`() throws {
        let rooms = Set(try FileManager.default.contentsOfDirectory(atPath: Self.root.path + "/Sources"))
        #expect(rooms == Set(Self.edges.keys))
    }

    @Test func `the table has no way up and around`() {
        // Each room comes after all that it may use.
        let order = [
            "CCeph", "CISAL", "CLZ4", "Volumes", "Capacity", "Checksums", "DirtyMap", "FileVolumes", "Tracker",
            "RBDVolumes", "Convergence", "Cutover", "Gate", "Guest", "Sockets", "Control", "NBDProtocol", "Credentials",
            "NBDServer",
            "NBDVolumes", "Relay", "RelayServer", "RemoteVolumes", "Mirror", "godwit",
        ]
        for (room, used) in Self.edges {
            for other in used { #expect(order.firstIndex(of: other)! < order.firstIndex(of: room)!) }
        }
    }

    @Test func `the package lets no room use more than the table`() throws {
        let package = try String(contentsOf: Self.root.appending(path: "Package.swift"), encoding: .utf8)
        // One declaration each: the tests' targets are among them, and are no rooms.
        let targets = package.split(separator: /\.(?:target|executableTarget|testTarget)\(/).dropFirst()
        for target in targets {
            guard let name = target.firstMatch(of: /name:\s*"(\w+)"/)?.1, let edges = Self.edges[String(name)] else {
                continue
            }
            let list = target.firstMatch(of: /dependencies:\s*\[([^\]]*)\]/).map { String($0.1) } ?? ""
            for name in list.matches(of: /"(\w+)"/).map({ String($0.1) }) where Self.edges.keys.contains(name) {
                #expect(edges.contains(name), "\(target)")
            }
        }
        #expect(targets.count >= Self.edges.count)
    }

    @Test func `what stands on the list of exceptions is still needed`() throws {
        let texts = Dictionary(uniqueKeysWithValues: try Self.sources().map { ($0.file, $0.text) })
        for (word, files) in Self.allowed {
            for file in files.keys {
                #expect(texts[file].map(word.isIn) == true, "\(file): \(word)")
            }
        }
    }

    // MARK: The rules can be broken

    @Test(arguments: [
        ("Volumes/A.swift", "internal import Mirror"), ("Mirror/A.swift", "package import RBDVolumes"),
        ("Mirror/A.swift", "import FileVolumes"), ("DirtyMap/A.swift", "@testable import Mirror"),
        ("FileVolumes/A.swift", "import struct RBDVolumes.Striping"), ("Volumes/A.swift", "import CCeph"),
        ("Mirror/A.swift", "    print(\"here\")"), ("Mirror/A.swift", "let a = try! f()"),
        ("Volumes/A.swift", "guard a else { fatalError() }"), ("Mirror/A.swift", "        Task { await f() }"),
        ("Mirror/A.swift", "let a = Task.detached { 1 }"), ("Mirror/A.swift", "Task(priority: .low) {"),
        ("Mirror/A.swift", String(repeating: "let a = 1\n", count: 401)),
    ])
    func `a broken rule is found`(file: String, text: String) {
        #expect(Self.findings(in: file, text).count == 1)
    }

    @Test(arguments: [
        ("Mirror/A.swift", "internal import Volumes"), ("godwit/A.swift", "internal import Mirror"),
        ("Volumes/A.swift", "internal import Foundation"), ("Mirror/A.swift", "// print( and try! and fatalError("),
        ("Mirror/A.swift", "group.addTask { await f() }"), ("Mirror/A.swift", "try? await Task.sleep(for: a)"),
        ("Mirror/A.swift", "// Owned by the caller, who waits for it.\nlet a = Task { 1 }"),
        ("Mirror/A.swift", "fingerprint(1)\nlog.print(1)"), ("Mirror/A.swift", "withTaskGroup { a }"),
        ("Mirror/A.swift", String(repeating: "let a = 1\n", count: 400)),
    ])
    func `what breaks no rule is let through`(file: String, text: String) {
        #expect(Self.findings(in: file, text) == [])
    }
}
