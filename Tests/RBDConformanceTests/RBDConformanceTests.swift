import Conformance
import Testing

/// `Tests/run cluster` starts the cluster that these need.
@Suite(.serialized, .enabled(if: configuration != nil, "no cluster: run 'Tests/run cluster'"))
struct RBDConformance {
    @Test(arguments: TargetCheck.all)
    func `an image as a target`(check: TargetCheck) async throws { try await check.run(.rbd) }

    @Test(arguments: SourceCheck.all)
    func `an image as a source`(check: SourceCheck) async throws { try await check.run(.rbd) }

    @Test(arguments: DiskCheck.all)
    func `an image as a disk`(check: DiskCheck) async throws { try await check.run(.rbd) }

    @Test(arguments: LiveSourceCheck.all)
    func `an image as the source of a live move`(check: LiveSourceCheck) async throws { try await check.run(.rbd()) }
}
