import Conformance
import Testing

@Suite struct ConformanceTests {
    @Test(arguments: TargetCheck.all)
    func `a file as a target`(check: TargetCheck) async throws { try await check.run(.file) }

    @Test(arguments: SourceCheck.all)
    func `a file as a source`(check: SourceCheck) async throws { try await check.run(.file) }

    @Test(arguments: TargetCheck.all)
    func `memory as a target`(check: TargetCheck) async throws { try await check.run(.memory()) }

    @Test(arguments: TargetCheck.all)
    func `memory without snapshots as a target`(check: TargetCheck) async throws {
        try await check.run(.memory(holdsSnapshots: false))
    }

    @Test(arguments: SourceCheck.all)
    func `memory as a source`(check: SourceCheck) async throws { try await check.run(.memory()) }

    @Test(arguments: LiveSourceCheck.all)
    func `memory as the source of a live move`(check: LiveSourceCheck) async throws { try await check.run(.memory()) }

    @Test(arguments: SourceCheck.all)
    func `memory without snapshots as a source`(check: SourceCheck) async throws {
        try await check.run(.memory(holdsSnapshots: false))
    }

    @Test(arguments: DiskCheck.all)
    func `a file as a disk`(check: DiskCheck) async throws { try await check.run(.file) }

    @Test(arguments: DiskCheck.all)
    func `memory as a disk`(check: DiskCheck) async throws { try await check.run(.memory) }
}
