"""Clones: what shines through from a parent becomes the target's own, and the report says so."""

import rbd

from harness import KIB, MIB, ClusterTest


class Clones(ClusterTest):
    FLATTENED = "the clone is flattened: the target has no parent"

    def parent(self, size=16 * MIB, protect=True, pool="fast", **layout):
        parent = self.volume(pool, size, **layout)
        with parent:
            parent.fill(0, 6 * MIB, seed=1)
            parent.fill(9 * MIB + 512, 2 * MIB, seed=2)
            parent.snap("base", protect=protect)
            parent.fill(MIB, MIB, seed=3)  # not what the clone shows
        return parent

    def move_clone(self, clone, *options):
        """Moves it, and asserts that it became an image by itself."""
        before = clone.portrait()
        target = self.target()
        report = self.move(clone, target, *options)
        self.assertIn(self.FLATTENED, report["changed"])
        self.assert_unchanged(clone, before)
        self.assert_moved(clone, target, before["states"], by_librbd=True)
        with target.open() as image, self.assertRaises(rbd.ImageNotFound):
            image.parent_info()
        return target

    def test_a_clone_never_written(self):
        target = self.move_clone(self.clone(self.parent(), "base"), "--verify")
        self.assert_thin(target, at_most=8 * MIB + 4 * KIB)

    def test_a_clone_of_format_2(self):
        """Its parent's snapshot isn't protected."""
        self.move_clone(self.clone(self.parent(protect=False), "base"))

    def test_a_clone_written_to(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.fill(5 * MIB - 100, 200, seed=4)
            clone.fill(13 * MIB, MIB, seed=5)
            clone.discard(0, 64 * KIB)  # hides the parent's bytes
            clone.zero(2 * MIB, 4096)
            clone.discard(8 * MIB, 4 * MIB)  # hides a whole object of them
        self.move_clone(clone, "--verify")

    def test_a_clone_with_snapshots(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.snap("as cloned", protect=True)
            clone.fill(MIB, MIB, seed=4)
            clone.snap("written")
            clone.discard(4 * MIB, 4 * MIB)
            clone.snap("discarded")
            clone.fill(5 * MIB, 8 * KIB, seed=5)
        self.move_clone(clone, "--verify")

    def test_a_clone_of_which_a_middle_snapshot_was_removed(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            for index in range(4):
                clone.fill(index * 2 * MIB, MIB, seed=10 + index)
                clone.discard(12 * MIB - index * MIB, 512 * KIB)
                clone.snap(f"s{index}")
            clone.remove_snap("s1")
            clone.remove_snap("s2")
        self.move_clone(clone)

    def test_a_clone_that_was_shrunk(self):
        clone = self.clone(self.parent(), "base")
        clone.resize(10 * MIB + 512)
        self.move_clone(clone)

    def test_a_clone_that_was_shrunk_and_grown(self):
        """Where it was cut off the parent doesn't shine through any more."""
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.snap("whole")
            clone.resize(3 * MIB + 512)
            clone.snap("shrunk")
            clone.resize(20 * MIB)
            clone.snap("grown")
            clone.fill(10 * MIB, 4 * KIB, seed=4)
        self.move_clone(clone, "--verify")

    def test_a_clone_that_was_shrunk_and_grown_between_two_snapshots(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.snap("whole")
            clone.resize(2 * MIB)
            clone.resize(16 * MIB)
            clone.snap("cut")
        self.move_clone(clone)

    def test_a_clone_that_was_shrunk_to_nothing_and_grown(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.snap("whole")
            clone.resize(0)
            clone.resize(16 * MIB)
        self.move_clone(clone)

    def test_a_clone_that_was_grown(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.snap("whole")
            clone.resize(30 * MIB)
            clone.fill(17 * MIB, MIB, seed=4)
        self.move_clone(clone)

    def test_a_clone_rolled_back(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.fill(0, MIB, seed=4)
            clone.snap("a")
            clone.fill(4 * MIB, 3 * MIB, seed=5)
            clone.snap("b")
            clone.rollback("a")
        self.move_clone(clone)

    def test_a_clone_that_was_flattened_between_two_snapshots(self):
        """Without deep-flatten the older snapshots keep the parent."""
        clone = self.clone(self.parent(), "base", features=("layering", "exclusive-lock", "object-map", "fast-diff"))
        with clone:
            clone.fill(MIB, 64 * KIB, seed=4)
            clone.snap("with a parent")
            clone.fill(3 * MIB, 64 * KIB, seed=5)
            clone.flatten()
            clone.snap("without")
            clone.discard(5 * MIB, MIB)
        before = clone.portrait()
        target = self.target()
        self.move(clone, target, "--verify")
        self.assert_unchanged(clone, before)
        self.assert_moved(clone, target, before["states"], by_librbd=True)

    def test_a_clone_that_was_flattened_to_its_roots(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.snap("had a parent")
            clone.fill(3 * MIB, 64 * KIB, seed=5)
            clone.flatten()
        target = self.target()
        report = self.move_and_compare(clone, target)
        self.assertNotIn(self.FLATTENED, report["changed"])

    def test_a_clone_of_a_clone(self):
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.fill(2 * MIB, MIB, seed=4)
            clone.discard(4 * MIB, MIB)
            clone.snap("branch", protect=True)
        grandchild = self.clone(clone, "branch")
        with grandchild:
            grandchild.fill(2 * MIB + 512 * KIB, 4 * KIB, seed=5)
            grandchild.snap("leaf")
            grandchild.discard(0, MIB)
        self.move_clone(grandchild, "--verify")

    def test_a_clone_in_another_pool_and_of_another_object_size(self):
        clone = self.clone(self.parent(pool="slow"), "base", order=23)
        clone.fill(700 * KIB, MIB, seed=4)
        self.move_clone(clone)

    def test_a_clone_with_stripes(self):
        parent = self.parent(stripe_unit=64 * KIB, stripe_count=4)
        clone = self.clone(parent, "base")
        with clone:
            clone.snap("a")
            clone.fill(3 * MIB, MIB, seed=4)
        self.move_clone(clone)

    def test_a_clone_of_a_parent_in_an_erasure_coded_pool(self):
        clone = self.clone(self.parent(data_pool=self.erasure_coded_pool()), "base")
        with clone:
            clone.snap("a")
            clone.fill(3 * MIB, MIB, seed=4)
        self.move_clone(clone)

    def test_a_parent(self):
        """Its clones stay what they are: clones of the source."""
        parent = self.parent()
        clone = self.clone(parent, "base")
        clone.fill(0, 4 * KIB, seed=4)
        before = clone.portrait()
        self.move_and_compare(parent, self.target())
        self.assert_unchanged(clone, before)
