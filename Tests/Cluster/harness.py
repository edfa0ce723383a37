"""The base of every test on a real cluster: makes images, moves them, and knows what must be true afterwards.

  class Moves(ClusterTest):
      def test_it(self):
          source = self.volume("fast", 16 * MIB)
          source.fill(0, MIB)
          source.snap("monday")
          target = self.target("slow")
          report = self.move(source, target)
          self.assert_moved(source, target)
"""

import faulthandler
import re
import secrets
import time
import unittest

import rbd

from environment import (  # what tests need is had from here alone
    Cluster, Result, Running, cluster, dev_cluster, run, setting, start, tool)
from volumes import FEATURES, GIB, KIB, MIB, PIECE, STANDARD, UNFINISHED, Volume, has_head, noise, objects_named

__all__ = [
    "Cluster", "ClusterTest", "FEATURES", "GIB", "KIB", "MIB", "PIECE", "Result", "Running", "STANDARD", "UNFINISHED",
    "Volume", "cluster", "dev_cluster", "noise", "run", "setting", "start", "tool"]


def make_pool(name, clean, *kind):
    """Makes a pool for RBD, and has it removed by `clean`."""
    name = f"{name}-{secrets.token_hex(3)}"
    cluster().tool("ceph", "osd", "pool", "create", name, "8", "8", *kind)
    clean(cluster().tool, "ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
    cluster().tool("ceph", "osd", "pool", "application", "enable", name, "rbd")
    return name


class ClusterTest(unittest.TestCase):
    """A test that leaves the clusters as it found them."""

    # Seconds after which the whole run is ended with a traceback: a test that waits for ever is a failure.
    limit = 240
    # Whether nothing else may run meanwhile, as it is about how long something takes.
    alone = False
    maxDiff = 4000

    def setUp(self):
        self.begin_waiting()
        self.addCleanup(faulthandler.cancel_dump_traceback_later)

    def begin_waiting(self):
        """Begins the time anew that the test may take: for one of many parts."""
        faulthandler.dump_traceback_later(self.limit, exit=True)

    def shortDescription(self):
        return None  # a test is known by its name

    # Making

    def _name(self):
        return f"{self.id().rsplit('.', 1)[-1].removeprefix('test_')[:40]}-{secrets.token_hex(3)}"

    def target(self, pool="slow", namespace="", on=1, name=None):
        """A volume that doesn't exist yet; whatever comes to be under that name is removed after the test."""
        volume = Volume(pool, name or self._name(), namespace, on)
        self.addCleanup(self._remove, volume)
        return volume

    def volume(self, pool="fast", size=16 * MIB, namespace="", on=1, name=None, **layout):
        """An image, made as Volume.create does, and removed after the test."""
        return self.target(pool, namespace, on, name).create(size, **layout)

    def clone(self, parent, snapshot, pool="fast", **options):
        return self.target(pool).clone_of(parent, snapshot, **options)

    def pool(self, name):
        """A pool of the test's own, removed after it."""
        return make_pool(name, self.addCleanup, "replicated")

    @classmethod
    def data_pool(cls):
        """A pool for data objects, which all tests of a class share."""
        if "_data_pool" not in cls.__dict__:
            cls._data_pool = make_pool("data", cls.addClassCleanup, "replicated")
        return cls._data_pool

    @classmethod
    def erasure_coded_pool(cls):
        """The same, erasure-coded over three OSDs: no more than a part of what librados does is done there."""
        if "_erasure_coded_pool" not in cls.__dict__:
            profile = "godwit-test-2-1"
            cluster().tool(
                "ceph", "osd", "erasure-code-profile", "set", profile, "k=2", "m=1", "crush-failure-domain=osd", "--force")
            cls.addClassCleanup(cluster().tool, "ceph", "osd", "erasure-code-profile", "rm", profile)
            name = make_pool("erasure-coded", cls.addClassCleanup, "erasure", profile)
            cluster().tool("ceph", "osd", "pool", "set", name, "allow_ec_overwrites", "true")
            cls._erasure_coded_pool = name
        return cls._erasure_coded_pool

    def namespace(self, pool, on=1):
        """A new namespace in a pool, removed after the test."""
        name = "ns-" + secrets.token_hex(3)
        ioctx = cluster(on).ioctx(pool)
        rbd.RBD().namespace_create(ioctx, name)
        self.addCleanup(rbd.RBD().namespace_remove, ioctx, name)
        return name

    def _remove(self, volume):
        """Removes a volume, and sees to it that no object of it outlives it: its object map named them all."""
        for image in (volume, volume.unfinished):
            if not image.exists:
                continue
            with image.open() as opened:
                prefix, data = opened.block_name_prefix(), image.data_ioctx()
            image.remove()
            left = [name for name in objects_named(prefix + ".", data) if has_head(name, data)]
            self.assertEqual(left, [], f"{image}: removed, but these objects of it are still there")
        trash = [item["name"] for item in rbd.RBD().trash_list(volume.ioctx)]
        self.assertNotIn(volume.name, trash, f"{volume}: in the trash")

    # Moving

    def move(self, source, target, *options, timeout=90, env=None):
        """Moves, which has to succeed.

        :returns: the report, as --json has it
        """
        result = run(
            "migrate", source.address, target.address, "--json", "--progress", "none", *options, timeout=timeout, env=env)
        self.assertEqual(result.rc, 0, result)
        return result.json

    def move_and_compare(self, source, target, *options, timeout=90, env=None, thin=True):
        """Moves, then asserts all that must be true of both. :returns: the report"""
        before = source.portrait()
        report = self.move(source, target, *options, timeout=timeout, env=env)
        self.assert_unchanged(source, before)
        self.assert_moved(source, target, before["states"], thin, by_librbd=report["route"] != "object to object")
        return report

    def godwit(self, rc, *arguments, timeout=90, env=None):
        """Runs godwit, and asserts its exit status, if one is given. :returns: the Result"""
        result = run(*arguments, timeout=timeout, env=env)
        if rc is not None:
            self.assertEqual(result.rc, rc, result)
        return result

    def wait_until(self, holds, limit=30):
        """Waits for something that another process does."""
        deadline = time.monotonic() + limit
        while not holds():
            self.assertLess(time.monotonic(), deadline, f"not within {limit} s")
            time.sleep(0.02)

    # What must be true

    def assert_moved(self, source, target, states=None, thin=True, by_librbd=False):
        """The target is finished, the same as the source, right inside and thin; nothing of the move is left.

        :param thin: False where the OSDs can't tell what is allocated: in erasure-coded pools
        :param by_librbd: Whether the move's bytes went through librbd
        """
        self.assert_same(source, target, states)
        self.assert_object_map_right(target, by_librbd)
        if thin:
            self.assert_thin(target, source)
        self.assert_left_alone(source)
        self.assert_left_alone(target)
        self.assertFalse(target.unfinished.exists, f"{target.unfinished}: still there")

    def assert_same(self, source, target, states=None):
        """Sizes, snapshots (names, order, sizes, protection) and every byte of every snapshot and of the head.

        :param states: what the source was, if that was looked at already
        """
        ours, theirs = states or source.states(), target.states()
        self.assertEqual(
            [(name, protected, size) for name, protected, size, _ in ours],
            [(name, protected, size) for name, protected, size, _ in theirs],
            f"{source} and {target}: (snapshot, is protected, size), the head last")
        for (name, _, _, left), (_, _, _, right) in zip(ours, theirs):
            wrong = [index for index, pair in enumerate(zip(left, right)) if pair[0] != pair[1]]
            if wrong:
                self.fail(f"{name or 'head'}: {self._difference(source, target, name, wrong)}")

    def _difference(self, source, target, snapshot, pieces):
        offset = pieces[0] * PIECE
        length = min(PIECE, target.size - offset) if snapshot is None else PIECE
        with source.open(snapshot) as one, target.open(snapshot) as other:
            length = min(PIECE, one.size() - offset)
            left, right = one.read(offset, length), other.read(offset, length)
        wrong = [index for index in range(length) if left[index] != right[index]]
        if not wrong:
            return f"{source} isn't any more what it was, in the 4 MiB from {offset}"
        first = wrong[0]
        return (f"{len(pieces)} pieces of 4 MiB differ; in the first, {len(wrong)} bytes from {offset + first}: "
                f"{left[first:first + 8].hex()} at {source}, {right[first:first + 8].hex()} at {target}")

    def assert_unchanged(self, volume, before):
        """The volume is what volume.portrait() said earlier."""
        after = volume.portrait()
        for key, value in before.items():
            self.assertEqual(value, after[key], f"{volume}: {key} changed")

    def assert_left_alone(self, volume):
        """Nothing of Godwit's is on the volume, and nobody holds it."""
        with volume.open() as image:
            names = [snapshot["name"] for snapshot in image.list_snaps()]
            self.assertEqual([name for name in names if name.startswith("godwit.")], [], f"{volume}: snapshots left")
            keys = [key for key in volume.metadata if key.startswith("godwit.")]
            self.assertEqual(keys, [], f"{volume}: metadata left")
            self.assertEqual(image.list_lockers() or [], [], f"{volume}: locked")
            # An OSD may list a client that was evicted for good (test_lost_watches).
            watchers = [watcher["addr"] for watcher in image.watchers_list()]
            left = [address for address in watchers if address not in volume.cluster.evicted()]
            self.assertEqual(left, [], f"{volume}: watched")

    def assert_object_map_right(self, volume, by_librbd=False):
        """Every state's object map passes 'rbd object-map check', and has no object that isn't there.

        The check itself minds only objects that are there and not in the map.

        :param by_librbd: Whether librbd wrote the volume. Where it zeroes or discards past an object's end, it marks the
            object as written (1) though nothing changed (3), which the check finds wrong.
        """
        invalid = rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID
        if "object-map" not in volume.features:
            return
        for snapshot in [*volume.snapshots, None]:
            with volume.open(snapshot) as image:
                self.assertEqual(image.flags() & invalid, 0, f"{volume}@{snapshot}: object map flagged as invalid")
            options = ["--pool", volume.pool, "--image", volume.name]
            options += ["--namespace", volume.namespace] if volume.namespace else []
            options += ["--snap", snapshot] if snapshot else []
            found = volume.cluster.tool("rbd", "object-map", "check", "--no-progress", *options).output
            wrong = re.findall("marked as ([0-9]), but should be ([0-9])", found)
            if by_librbd and wrong and set(wrong) == {("1", "3")}:
                continue
            self.assertEqual(found.strip(), "", f"{volume}@{snapshot}: object map")
            with volume.open(snapshot) as image:
                self.assertEqual(image.flags() & invalid, 0, f"{volume}@{snapshot}: the check found its object map wrong")
            if "fast-diff" in volume.features and not volume.has_stripes:
                self.assertEqual(
                    volume.mapped_objects(snapshot), volume.present_objects(snapshot),
                    f"{volume}@{snapshot}: objects in its object map, and objects that are there")

    def allocated(self, volume, snapshot=None):
        """Extents with data in a state, as (offset, length); test_map_verify.py proves this map itself."""
        address = volume.address
        if snapshot is not None:
            escaped = "".join("\\" + c if c in ":/@\\" else c for c in snapshot)
            path, colon, options = address[4:].partition(":conf=")
            address = f"rbd:{path}@{escaped}{colon}{options}"
        extents = self.godwit(0, "map", address, "--json").json
        return [(extent["offset"], extent["length"]) for extent in extents if extent["type"] == 0]

    def assert_thin(self, target, source=None, at_most=None):
        """The target's head has no more data than the source's, or than `at_most` bytes; nor has it more objects."""
        if at_most is not None:
            total = sum(length for _, length in self.allocated(target))
            self.assertLessEqual(total, at_most, f"{target}: bytes allocated")
            return
        with source.open() as one, target.open() as other:
            is_clone = any(self._has_parent(source, name) for name in [*source.snapshots, None])
            same_layout = (one.stat()["order"], one.stripe_unit(), one.stripe_count()) == (
                other.stat()["order"], other.stripe_unit(), other.stripe_count())
        if is_clone:
            return  # what the parent holds is the target's own now
        ours, theirs = (sum(length for _, length in self.allocated(volume)) for volume in (source, target))
        self.assertLessEqual(theirs, ours, f"{target}: bytes allocated")
        if same_layout:
            self.assertLessEqual(len(target.objects()), len(source.objects()), f"{target}: objects")

    @staticmethod
    def _has_parent(volume, snapshot):
        with volume.open(snapshot) as image:
            return image.overlap() > 0
