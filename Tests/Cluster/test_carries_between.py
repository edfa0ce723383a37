"""Moves from cluster to cluster, and between images and files."""

import os
import pathlib
import shutil
import tempfile

from harness import KIB, MIB, PIECE, STANDARD, ClusterTest, Running, noise, run, setting


class HistoryTest(ClusterTest):
    def with_history(self, **options):
        source = self.volume(size=12 * MIB, **options)
        with source:
            source.fill(0, 3 * MIB, seed=1)
            source.snap("one é", protect=True)
            source.fill(64 * KIB - 100, 200, seed=3)
            source.discard(MIB, 256 * KIB)
            source.write_zeros(2 * MIB, 512 * KIB)
            source.snap("two")
            source.resize(5 * MIB + 512)
            source.snap("three")
            source.resize(12 * MIB)
            source.fill(11 * MIB, 70 * KIB, seed=5)
            source.remove_snap("two")
            source.set_metadata("conf_rbd_cache", "false")
        return source


class BetweenClusters(HistoryTest):
    def test_there_and_back(self):
        source = self.with_history()
        there = self.target("slow", on=2)
        self.move_and_compare(source, there, "--verify")
        back = self.target("fast")
        self.move_and_compare(there, back, "--verify")
        self.assert_same(source, back)
        self.assertEqual(back.metadata, source.metadata)
        self.godwit(0, "verify", source.address, there.address)

    def test_full_objects(self):
        """None can go from OSD to OSD."""
        source = self.volume(size=24 * MIB)
        source.fill(0, 24 * MIB, seed=1)
        report = self.move_and_compare(source, self.target("slow", on=2), "--in-flight", "4M")
        self.assertEqual(sum(step["copiedBytes"] for step in report["steps"]), 0)
        self.assertEqual(sum(step["sentBytes"] for step in report["steps"]), 24 * MIB)

    def test_the_same_names_in_both(self):
        source = self.with_history()
        target = self.target("fast", on=2, name=source.name)
        self.move_and_compare(source, target)

    def test_stripes(self):
        source = self.with_history(order=20, stripe_unit=64 * KIB, stripe_count=3)
        self.move_and_compare(source, self.target("slow", on=2), "--verify")

    def test_a_clone(self):
        parent = self.with_history()
        clone = self.clone(parent, "one é")
        clone.fill(2 * MIB, MIB, seed=4)
        target = self.target("slow", on=2)
        self.move(clone, target, "--verify")
        self.assert_same(clone, target)

    def test_a_namespace(self):
        source = self.with_history(namespace=self.namespace("fast"))
        target = self.target("slow", namespace=self.namespace("slow", on=2), on=2)
        self.move_and_compare(source, target)

    def test_a_data_pool_that_the_other_does_not_have(self):
        source = self.with_history(data_pool=self.data_pool())
        target = self.target("slow", on=2)
        result = self.godwit(73, "migrate", source.address, target.address)
        self.assertIn("--data-pool", result.stderr)
        self.assertFalse(target.unfinished.exists)
        self.move_and_compare(source, target, "--data-pool", "slow")

    def test_both_by_their_addresses_alone(self):
        source, target = self.with_history(), self.target("slow", on=2)
        self.godwit(
            0, "migrate", f"{source.address}:conf={source.cluster.conf}", target.address,
            env={"CEPH_CONF": "/nonexistent", "CEPH_ARGS": None})
        self.assert_moved(source, target)

    def test_a_difference_is_found(self):
        source, target = self.with_history(), self.target("slow", on=2)
        self.move(source, target)
        target.write(9 * MIB + 7, b"!")
        difference, = self.godwit(65, "verify", "--json", source.address, target.address).json
        self.assertEqual((difference.get("snapshot"), difference["offset"], difference["length"]), (None, 9 * MIB + 7, 1))


class Files(HistoryTest):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="godwit-files-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name="disk.raw"):
        return self.folder / name

    def file(self, size, *parts, name="source.raw"):
        """A sparse file with noise at each (offset, length)."""
        path = self.path(name)
        with open(path, "wb") as file:
            for offset, length in parts:
                file.seek(offset)
                file.write(noise(length, offset))
            file.truncate(size)
        return path

    def moved(self, source, target, *options):
        return self.godwit(0, "migrate", "--json", "--verify", "--progress", "none", source, target, *options).json

    def assert_bytes(self, path, volume):
        """A file and an image's head are the same."""
        self.assertEqual(path.stat().st_size, volume.size)
        with open(path, "rb") as file:
            for offset in range(0, volume.size, PIECE):
                length = min(PIECE, volume.size - offset)
                self.assertTrue(file.read(length) == volume.read(offset, length), f"{path} differs from {offset} on")

    def test_an_image_to_a_file(self):
        source = self.volume(size=24 * MIB + 512)
        with source:
            source.fill(0, MIB, seed=1)
            source.write_zeros(4 * MIB, 4 * MIB)
            source.fill(9 * MIB - 77, 100, seed=2)
            source.fill(24 * MIB + 511, 1, seed=3)
            source.set_metadata("owner", "somebody")
        before = source.portrait()
        path = self.path()
        report = self.moved(source.address, f"file:{path}")
        self.assert_bytes(path, source)
        self.assert_unchanged(source, before)
        self.assert_left_alone(source)
        self.assertLessEqual(path.stat().st_blocks * 512, MIB + 64 * KIB)
        self.assertEqual(os.listdir(self.folder), [path.name])
        self.assertIn("metadata", " ".join(report["notCarried"]))

    def test_a_file_to_an_image(self):
        for size in (9 * MIB, 4 * MIB + 512, 4 * MIB + 1, 777, 1):
            with self.subTest(size=size):
                path = self.file(size, (0, min(size, 5000)), (size - 1, 1))
                target = self.target()
                self.moved(path, target.address)
                self.assert_bytes(path, target)
                self.assertEqual(target.features, set(STANDARD))
                self.assert_object_map_right(target)
                self.assert_left_alone(target)
                self.assert_thin(target, at_most=16 * KIB)
                self.assertEqual(os.listdir(self.folder), [path.name])

    def test_a_file_to_an_image_of_a_certain_layout(self):
        path = self.file(9 * MIB, (0, MIB), (5 * MIB, 2 * MIB))
        target = self.target()
        self.moved(
            path, target.address, "--object-size", "1M", "--stripe-unit", "64K", "--stripe-count", "2", "--image-feature", "layering")
        self.assert_bytes(path, target)
        with target.open() as image:
            self.assertEqual((image.stat()["order"], image.stripe_unit(), image.stripe_count()), (20, 64 * KIB, 2))
        self.assertEqual(target.features, {"layering"})

    def test_a_sparse_file(self):
        path = self.file(1 << 40, (0, 4 * KIB), (1 << 39, 4 * KIB))
        target = self.target()
        report = self.godwit(0, "migrate", "--json", path, target.address).json
        self.assertLess(report["seconds"], 20)
        self.assertEqual(len(target.objects()), 2)
        self.assert_thin(target, at_most=8 * KIB)
        self.assertEqual(target.read(1 << 39, 4 * KIB), noise(4 * KIB, 1 << 39))

    def test_a_file_of_zeros(self):
        path = self.path()
        path.write_bytes(bytes(8 * MIB))
        target = self.target()
        self.moved(path, target.address)
        self.assertEqual(target.objects(), [])

    def test_an_empty_file(self):
        path = self.file(0)
        target = self.target()
        self.moved(path, target.address)
        self.assertEqual(target.size, 0)
        back = self.path("back.raw")
        self.moved(target.address, back)
        self.assertEqual(back.stat().st_size, 0)

    def test_a_file_to_a_file(self):
        """Which needs no Ceph at all."""
        path, copy = self.file(9 * MIB + 123, (0, 5000), (6 * MIB, MIB)), self.path("copy of it.raw")
        nothing = {"CEPH_CONF": "/nonexistent"}
        self.godwit(0, "migrate", "--verify", path, copy, env=nothing)
        self.assertEqual(path.read_bytes(), copy.read_bytes())
        self.assertLess(copy.stat().st_blocks * 512, 2 * MIB)
        self.godwit(0, "verify", path, f"file:{copy}", env=nothing)

    def test_there_and_back(self):
        path, target, back = self.file(9 * MIB + 123, (0, 5000), (6 * MIB, MIB)), self.target(), self.path("back.raw")
        self.moved(path, target.address)
        self.moved(target.address, back)
        self.assertEqual(path.read_bytes(), back.read_bytes())
        for one, other in ((path, target.address), (target.address, back), (back, target.address)):
            self.assertEqual(self.godwit(0, "verify", "--json", one, other).json, [])

    def test_a_clone_to_a_file(self):
        parent = self.with_history()
        clone = self.clone(parent, "one é")
        clone.fill(2 * MIB, MIB, seed=4)
        path = self.path()
        self.moved(clone.address, path)
        self.assert_bytes(path, clone)

    def test_an_image_with_snapshots(self):
        """A file holds a head alone: refused, unless that is all that is wanted."""
        source, path = self.with_history(), self.path()
        result = self.godwit(73, "migrate", source.address, path)
        self.assertIn("--snapshots none", result.stderr)
        self.assertEqual(os.listdir(self.folder), [])
        self.moved(source.address, path, "--snapshots", "none")
        self.assert_bytes(path, source)
        self.assert_left_alone(source)

    def test_a_difference_is_found(self):
        path, target = self.file(9 * MIB, (0, MIB), (5 * MIB, 4 * MIB)), self.target()
        self.moved(path, target.address)
        with open(path, "r+b") as file:
            file.seek(7 * MIB + 1)
            file.write(b"?!")
        difference, = self.godwit(65, "verify", "--json", path, target.address).json
        self.assertEqual((difference["offset"], difference["length"]), (7 * MIB + 1, 2))

    def test_map(self):
        path = self.file(8 * MIB, (0, 64 * KIB), (4 * MIB, 64 * KIB))
        extents = self.godwit(0, "map", "--json", path).json
        self.assertEqual([(e["offset"], e["length"]) for e in extents if e["type"] == 0], [(0, 64 * KIB), (4 * MIB, 64 * KIB)])

    def test_no_such_file(self):
        target = self.target()
        for command in (["map", "/no/such"], ["migrate", "/no/such", target.address], ["verify", "/no/such", "/no/other"]):
            self.assertIn("No such file or directory", self.godwit(66, *command).stderr)

    def test_a_target_that_exists(self):
        source, path = self.volume(), self.path()
        path.write_bytes(b"precious")
        self.assertIn("exists", self.godwit(73, "migrate", source.address, path).stderr)
        self.godwit(73, "abort", path)
        self.assertEqual(path.read_bytes(), b"precious")
        self.assertEqual(os.listdir(self.folder), [path.name])

    def test_the_same_file(self):
        path = self.file(MIB, (0, 4096))
        other = self.folder / "sub" / ".." / path.name
        (self.folder / "sub").mkdir()
        for address in (path, f"file:{path}", other):
            self.assertIn(self.godwit(None, "migrate", path, address).rc, (64, 73))
        self.assertEqual(path.read_bytes()[:4096], noise(4096, 0))

    def test_no_directory_for_the_target(self):
        self.assertIn("no directory", self.godwit(73, "migrate", self.volume().address, self.path("none/disk.raw")).stderr)

    def test_what_is_no_volume(self):
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        target = self.target()
        for path in (self.folder, fifo, "/dev/null"):
            result = run("migrate", path, target.address, timeout=20)
            self.assertIn(result.rc, (66, 73), result)
            self.assertIn("regular file", result.stderr)
        self.assertFalse(target.unfinished.exists)

    def test_a_file_that_may_not_be_read(self):
        path = self.file(MIB, (0, 4096))
        path.chmod(0)
        self.folder.chmod(0o777)
        # The administrator may read anything: somebody else has to try.
        godwit = shutil.copy(setting("GODWIT"), self.folder / "godwit")
        somebody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
        for command in (["map", path], ["migrate", path, self.path("copy.raw")]):
            result = Running([*somebody, godwit, *command]).wait(20)
            self.assertEqual(result.rc, 77, result)
            self.assertIn("Permission denied", result.stderr)
        self.assertEqual(sorted(os.listdir(self.folder)), ["godwit", path.name])
