import Conformance
import Testing
import Volumes

@testable import Mirror

struct ReliefTests {
    @Test func `whoever relieves the writer of a dead move fences that one's client, and not its successor's`()
        async throws
    {
        let site = Site(source: MoveTests.sourceWithHistory())
        let dead = Writer(title: "the dead one", client: "10.0.0.1:0/1")
        let next = Writer(title: "its successor", client: "10.0.0.1:0/2")
        site.source.attach(dead)
        site.source.attach(next)
        let (source, target) = (Site.sourceVolume(at: site.source), Site.targetVolume(at: site.target))
        var record = Record(source: "memory", sourceAddress: source.address, snapshots: .all)
        // It has taken the move over a moment ago.
        record.sourceClient = next.client
        try await target.make(as: try await source.describe(), record: record.text())
        try await Relief(source: source) { _ in nil }.run(of: target, fencing: dead.client)
        #expect(site.source.writers == [next])
    }
}
