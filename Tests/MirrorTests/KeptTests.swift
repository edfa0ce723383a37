import Mirror
import Testing
import Volumes

/// What has to be done to a target's snapshots, as the source's change under it.
struct KeptTests {
    private func snapshot(_ id: UInt64, _ name: String, isProtected: Bool = false) -> Snapshot {
        Snapshot(id: id, name: name, size: .mebibytes(1), isProtected: isProtected)
    }
    private let noted = [Kept(source: 10, target: 1), Kept(source: 20, target: 2)]
    private var present: [Snapshot] { [snapshot(1, "a"), snapshot(2, "b")] }

    private func plan(_ carried: [Snapshot], _ present: [Snapshot]? = nil) -> KeptPlan {
        KeptPlan(noted: noted, carried: carried, present: present ?? self.present)
    }

    /// The target's snapshots once the plan is carried out.
    private func outcome(_ plan: KeptPlan) -> [String] {
        var names = Dictionary(uniqueKeysWithValues: present.map { ($0.id, $0.name) })
        for drop in plan.drops { names[drop.id] = nil }
        for change in plan.changes {
            #expect(!names.contains { $0.key != change.kept.id && $0.value == change.wanted.name }, "a name in use")
            names[change.kept.id] = change.wanted.name
        }
        return names.sorted { $0.key < $1.key }.map(\.value)
    }

    @Test func `nothing changed`() {
        let plan = plan([snapshot(10, "a"), snapshot(20, "b"), snapshot(30, "c")])
        #expect(plan.isEmpty)
        #expect(plan.rest == noted)
    }

    @Test func `what the user removed goes`() {
        let plan = plan([snapshot(20, "b")])
        #expect(plan.drops == [snapshot(1, "a")])
        #expect(plan.rest == [noted[1]])
    }

    @Test func `one made anew under the same name is another one`() {
        let plan = plan([snapshot(20, "b"), snapshot(30, "a")])
        #expect(plan.drops == [snapshot(1, "a")])
        #expect(plan.changes.isEmpty)
    }

    @Test func `names and protection follow`() {
        let plan = plan([snapshot(10, "x", isProtected: true), snapshot(20, "b")])
        #expect(plan.changes.map(\.wanted) == [snapshot(10, "x", isProtected: true)])
        #expect(outcome(plan) == ["x", "b"])
    }

    @Test func `protection alone`() {
        let plan = KeptPlan(noted: noted, carried: [snapshot(10, "a")], present: [snapshot(1, "a", isProtected: true)])
        #expect(plan.changes.map(\.wanted) == [snapshot(10, "a")])
    }

    @Test func `names that go round never meet`() {
        #expect(outcome(plan([snapshot(10, "b"), snapshot(20, "a")])) == ["b", "a"])
        #expect(outcome(plan([snapshot(10, "b"), snapshot(20, "c")])) == ["b", "c"])
        #expect(outcome(plan([snapshot(20, "a")])) == ["a"])
    }

    @Test func `one that isn't noted is told apart`() {
        let plan = KeptPlan(
            noted: noted, carried: [snapshot(10, "a"), snapshot(20, "b")], present: present + [snapshot(3, "c")])
        #expect(plan.unknown == [snapshot(3, "c")])
        #expect(plan.drops.isEmpty)
    }

    @Test func `one that is lost at the target is noticed`() {
        let plan = plan([snapshot(10, "a"), snapshot(20, "b")], [snapshot(2, "b")])
        #expect(plan.lost == [noted[0]])
        #expect(self.plan([snapshot(20, "b")], [snapshot(2, "b")]).lost.isEmpty)
    }
}
