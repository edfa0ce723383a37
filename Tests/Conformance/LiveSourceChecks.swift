internal import Testing
package import Volumes

/// One volume that a live move starts from, and what its users and clients do to it.
package struct LiveSourceSite: Sendable {
    /// Another value for the same volume at each call, each a process of its own to the volume.
    package let source: @Sendable () async throws -> any LiveSource
    /// A client opens it for writing. Returns how it closes it.
    package let attach: @Sendable () async throws -> @Sendable () async -> Void
    /// The limit that the user gave it, in bytes a second; nothing for none.
    package let limit: @Sendable () async throws -> String?
    package let setLimit: @Sendable (_ limit: String?) async throws -> Void
    package let remove: @Sendable () async throws -> Void

    package init(
        source: @escaping @Sendable () async throws -> any LiveSource,
        attach: @escaping @Sendable () async throws -> @Sendable () async -> Void,
        limit: @escaping @Sendable () async throws -> String?,
        setLimit: @escaping @Sendable (_ limit: String?) async throws -> Void,
        remove: @escaping @Sendable () async throws -> Void
    ) {
        self.source = source
        self.attach = attach
        self.limit = limit
        self.setLimit = setLimit
        self.remove = remove
    }
}

/// One thing that every source of a live move must do.
package struct LiveSourceCheck: Sendable, CustomTestStringConvertible {
    package let name: String
    private let check: @Sendable (LiveSourceSite) async throws -> Void

    package var testDescription: String { name }

    private init(_ name: String, _ check: @escaping @Sendable (LiveSourceSite) async throws -> Void) {
        self.name = name
        self.check = check
    }

    package func run(_ site: LiveSourceSite) async throws {
        do {
            try await check(site)
        } catch {
            try? await site.remove()
            throw error
        }
        try await site.remove()
    }

    package static let all = [
        LiveSourceCheck("a limit is put back to what it was", limits),
        LiveSourceCheck("a user's limit that is lower stays", lowerLimits),
        LiveSourceCheck("a limit that its user changed meanwhile stays", changedLimits),
        LiveSourceCheck("one live move at a time", claims),
        LiveSourceCheck("it knows who can write", writers),
        LiveSourceCheck("a source that was kept says where it is now", keeping),
        LiveSourceCheck("a source that was renamed is gone", { try await vanishing($0, .rename) }),
        LiveSourceCheck("a source in the trash is gone", { try await vanishing($0, .trash) }),
    ]

    private static let five = ByteRate(bytesPerSecond: 5_000_000)
    private static let four = ByteRate(bytesPerSecond: 4_000_000)

    @Sendable private static func limits(_ site: LiveSourceSite) async throws {
        for own in [nil, "8000000"] {
            try await site.setLimit(own)
            let source = try await site.source()
            try await source.lift()
            #expect(try await site.limit() == own)
            #expect(try await source.limit(to: five) == five)
            #expect(try await site.limit() == "5000000")
            #expect(try await source.limit(to: four) == four)
            #expect(try await site.limit() == "4000000")
            // Whoever comes after a lost process can do it as well, and once more does no harm.
            let other = try await site.source()
            try await other.lift()
            #expect(try await site.limit() == own)
            try await source.lift()
            #expect(try await site.limit() == own)
        }
    }

    @Sendable private static func lowerLimits(_ site: LiveSourceSite) async throws {
        try await site.setLimit("3000000")
        let source = try await site.source()
        #expect(try await source.limit(to: five) == ByteRate(bytesPerSecond: 3_000_000))
        #expect(try await site.limit() == "3000000")
        try await source.lift()
        #expect(try await site.limit() == "3000000")
    }

    @Sendable private static func changedLimits(_ site: LiveSourceSite) async throws {
        for changed in [nil, "7000000"] {
            try await site.setLimit("8000000")
            let source = try await site.source()
            _ = try await source.limit(to: five)
            try await site.setLimit(changed)
            try await source.lift()
            #expect(try await site.limit() == changed)
        }
    }

    @Sendable private static func claims(_ site: LiveSourceSite) async throws {
        let (first, second) = (try await site.source(), try await site.source())
        try await first.release(from: "a")
        try await first.claim(for: "a", isLive: true)
        try await first.claim(for: "a", isLive: true)
        await #expect { try await second.claim(for: "b", isLive: true) } throws: { ($0 as? VolumeError)?.kind == .busy }
        // What doesn't hold clients back may go on beside it.
        try await second.claim(for: "c", isLive: false)
        try await first.release(from: "a")
        try await second.claim(for: "b", isLive: true)
        await #expect { try await first.claim(for: "a", isLive: true) } throws: { ($0 as? VolumeError)?.kind == .busy }
        #expect(try await first.describe().metadata.pairs.isEmpty)
    }

    @Sendable private static func writers(_ site: LiveSourceSite) async throws {
        let source = try await site.source()
        #expect(try await source.writers().isEmpty)
        try await source.stayOpen()
        try await source.stayOpen()
        #expect(try await source.writers().isEmpty)
        await source.letGo()
        let close = try await site.attach()
        let found = try await source.writers()
        #expect(found.count == 1)
        await close()
        #expect(try await source.writers().isEmpty)
        // Nobody else has it open: that hinders nobody.
        try await source.lockOut()
        await source.letGo()
        let closeAgain = try await site.attach()
        if let client = try await source.writers().first?.client { try await source.evict(client) }
        #expect(try await source.writers().isEmpty)
        await closeAgain()
    }

    @Sendable private static func keeping(_ site: LiveSourceSite) async throws {
        let source = try await site.source()
        #expect(try await source.describe().movedTo == nil)
        try await source.retire(to: "elsewhere", .keep)
        let description = try await source.describe()
        #expect(description.movedTo == "elsewhere")
        #expect(description.metadata.pairs.isEmpty)
    }

    private static func vanishing(_ site: LiveSourceSite, _ rest: Retirement) async throws {
        let source = try await site.source()
        try await source.retire(to: "elsewhere", rest)
        await #expect { _ = try await source.describe() } throws: { ($0 as? VolumeError)?.kind == .missing }
    }
}
