import Capacity
import Testing
import Volumes

/// Sums and orders.
struct CapacityReportTests {
    private func image(
        _ name: String, pool: String = "fast", namespace: String = "", size: UInt64? = nil, used: UInt64? = nil,
        allocated: UInt64? = nil, head: UInt64? = nil, problem: String? = nil
    ) -> ImageUsage {
        var image = ImageUsage(pool: pool, namespace: namespace, name: name)
        image.provisioned = size.map { ByteCount($0) }
        image.used = used.map { ByteCount($0) }
        image.allocated = allocated.map { ByteCount($0) }
        image.head = head.map { ByteCount($0) }
        image.problem = problem
        return image
    }

    private func names(_ images: [ImageUsage], _ order: CapacityReport.Order, top: Int? = nil) -> [String] {
        CapacityReport(images, pools: [], isExact: true, by: order, top: top).images.map(\.name)
    }

    @Test func `names ascend, bytes descend, and what is missing comes last`() {
        let images = [
            image("c", size: 1, allocated: 5), image("a", size: 3), image("b", size: 3, allocated: 9), image("d"),
        ]
        #expect(names(images, .name) == ["a", "b", "c", "d"])
        #expect(names(images, .size) == ["a", "b", "c", "d"])
        #expect(names(images, .allocated) == ["b", "c", "a", "d"])
    }

    @Test func `what is left out is summed up all the same`() {
        let images = (1...5).map { image("\($0)", size: 10, used: 4, allocated: 3, head: 1) }
        let report = CapacityReport(images, pools: [], isExact: true, by: .name, top: 2)
        #expect(report.images.map(\.name) == ["1", "2"])
        #expect(report.totals.images == 5)
        #expect(report.totals.provisioned == ByteCount(50))
        #expect(report.totals.used == ByteCount(20))
        #expect(report.totals.allocated == ByteCount(15))
        #expect(report.totals.heldBySnapshots == ByteCount(10))
    }

    @Test func `sums are by pool and namespace`() {
        let images = [
            image("a", allocated: 1), image("b", namespace: "team", allocated: 2),
            image("c", pool: "slow", allocated: 4),
            image("d", pool: "slow", problem: "it has no header"),
        ]
        let report = CapacityReport(images, pools: [], isExact: true, by: .name)
        #expect(
            report.places.map { [$0.place.pool, $0.place.namespace] } == [
                ["fast", ""], ["fast", "team"], ["slow", ""],
            ])
        #expect(report.places.map(\.totals.allocated) == [ByteCount(1), ByteCount(2), ByteCount(4)])
        #expect(report.totals(ofPool: "fast").allocated == ByteCount(3))
        #expect(report.totals(ofPool: "slow").unanswered == 1)
        #expect(report.totals.unanswered == 1)
    }

    @Test func `what snapshots hold is what the head does not`() {
        #expect(image("a", allocated: 9, head: 2).heldBySnapshots == ByteCount(7))
        #expect(image("a", allocated: 9).heldBySnapshots == nil)
    }
}
