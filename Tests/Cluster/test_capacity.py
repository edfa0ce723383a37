"""'godwit capacity' against a model of what was written, against 'rbd du', and among images that can't be measured."""

import contextlib
import csv
import io
import itertools
import json
import random
import re
import secrets
import signal
import struct
import threading
import time
import unicodedata

import rados
import rbd

from faults import on_terminal
from harness import FEATURES, GIB, KIB, MIB, ClusterTest, cluster, make_pool, noise, setting, start
from test_addresses import AddressTest

BLOCK = 4 * KIB  # what an OSD allocates
OBJECT = 4 * MIB  # of an image for which nothing else was asked
HELD = {"allocatedBytes", "headBytes", "heldBySnapshotsBytes"}
KINDS = {"object extents", "object sizes", "object map", "objects", "diff"}


class Model:
    """What the states of an image hold, by the blocks that an OSD allocates: a write takes new ones, and a snapshot
    keeps those that it was made with."""

    def __init__(self):
        self.head, self.snapshots, self._numbers = {}, {}, itertools.count()

    def write(self, offset, length):
        for block in range(offset // BLOCK, -(-(offset + length) // BLOCK)):
            self.head[block] = next(self._numbers)

    def discard(self, offset, length):
        for block in range(offset // BLOCK, (offset + length) // BLOCK):
            self.head.pop(block, None)

    def resize(self, size):
        self.head = {block: number for block, number in self.head.items() if block * BLOCK < size}

    def snap(self, name):
        self.snapshots[name] = dict(self.head)

    def remove_snap(self, name):
        del self.snapshots[name]

    def held(self, without=None):
        """Bytes that all states hold, or all but one snapshot."""
        numbers = set(self.head.values())
        for name, blocks in self.snapshots.items():
            if name != without:
                numbers.update(blocks.values())
        return len(numbers) * BLOCK

    @property
    def figures(self):
        """As figures() takes them from a row."""
        head = len(self.head) * BLOCK
        return {
            "allocatedBytes": self.held(), "headBytes": head, "heldBySnapshotsBytes": self.held() - head,
            "alone": {name: self.held() - self.held(without=name) for name in self.snapshots}}


class CloneModel(Model):
    """A clone's: the first write to an object gives it all that it showed of the parent, in the snapshots as well."""

    def __init__(self, parent, object_size):
        super().__init__()
        self.shown, self._in_object = set(parent), object_size // BLOCK
        self._copied = set()

    def write(self, offset, length):
        first, last = offset // BLOCK // self._in_object, (offset + length - 1) // BLOCK // self._in_object
        for number in set(range(first, last + 1)) - self._copied:
            blocks = range(number * self._in_object, (number + 1) * self._in_object)
            copied = {block: next(self._numbers) for block in self.shown.intersection(blocks)}
            for state in (self.head, *self.snapshots.values()):
                state.update(copied)
            self.shown.difference_update(blocks)
            self._copied.add(number)
        super().write(offset, length)


def figures(row):
    """What a row says an image holds."""
    return {**{key: row[key] for key in HELD}, "alone": {s["snapshot"]: s["aloneBytes"] for s in row["snapshots"]}}


class Modelled:
    """A volume and its model: what happens to one happens to the other."""

    def __init__(self, volume, object_size=OBJECT):
        self.volume, self.model, self.object_size = volume, Model(), object_size
        self.told, self._names = [], itertools.count(1)

    def write(self, offset, length):
        self.volume.fill(offset, length, seed=next(self._names))
        self.model.write(offset, length)

    def discard(self, offset, length):
        self.volume.discard(offset, length)
        self.model.discard(offset, length)

    def resize(self, size):
        self.volume.resize(size)
        self.model.resize(size)

    def snap(self, name):
        self.volume.snap(name)
        self.model.snap(name)

    def remove_snap(self, name):
        self.volume.remove_snap(name)
        self.model.remove_snap(name)

    def step(self, draw, limit):
        """Something, drawn at random; the size stays a multiple of a block."""
        size = self.volume.current_size
        blocks, objects = size // BLOCK, size // self.object_size
        kind = draw.choices(
            ("write", "write anywhere", "discard", "discard objects", "resize", "snap", "remove snap"),
            (9, 5, 4, 2, 1, 5, 3))[0]
        if kind == "write" and blocks:
            start = draw.randrange(blocks)
            self._do("write", start * BLOCK, min(draw.randint(1, 64), blocks - start) * BLOCK)
        elif kind == "write anywhere" and size:
            start = draw.randrange(size)
            self._do("write", start, min(draw.choice((1, 512, 5000, 20_000, 300_000)), size - start))
        elif kind == "discard" and size >= 64 * KIB:
            start = draw.randrange(size // (64 * KIB))
            self._do("discard", start * 64 * KIB, 64 * KIB * min(draw.randint(1, 3), size // (64 * KIB) - start))
        elif kind == "discard objects" and objects:
            start = draw.randrange(objects)
            self._do("discard", start * self.object_size, min(draw.randint(1, 2), objects - start) * self.object_size)
        elif kind == "resize":
            self._do("resize", draw.randrange(limit // 2, limit + 1, BLOCK))
        elif kind == "snap":
            self._do("snap", f"s{next(self._names)}")
        elif kind == "remove snap" and len(self.model.snapshots) > 1:
            self._do("remove_snap", draw.choice(list(self.model.snapshots)))

    def _do(self, what, *arguments):
        self.told.append(" ".join(map(str, (what, *arguments))))
        getattr(self, what)(*arguments)


def spec(row):
    """How rbd writes the image of a row."""
    return "/".join(part for part in (row["pool"], row["namespace"], row["image"]) if part)


def sums(rows, is_exact=True):
    """Totals, as a report has them."""
    keys = ["provisionedBytes", "usedBytes"] + (["allocatedBytes", "heldBySnapshotsBytes"] if is_exact else [])
    return {
        "images": len(rows), "unanswered": sum("problem" in row for row in rows),
        **{key: sum(row.get(key, 0) for row in rows) for key in keys}}


def documents(text):
    """The JSON documents that stand one after the other in a text, up to one that isn't all there yet."""
    decoder, found = json.JSONDecoder(), []
    with contextlib.suppress(json.JSONDecodeError):
        while text := text.lstrip():
            document, end = decoder.raw_decode(text)
            found.append(document)
            text = text[end:]
    return found


def columns(line):
    """How wide a terminal shows a line."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in line)


class CapacityTest(ClusterTest):
    @classmethod
    def shared_pool(cls):
        """A pool for the tests of a class: each leaves it empty, so what is measured there is one test's."""
        if "_shared_pool" not in cls.__dict__:
            cls._shared_pool = make_pool("capacity", cls.addClassCleanup, "replicated")
        return cls._shared_pool

    def capacity(self, *arguments, rc=0, env=None):
        """Measures, and asserts what is true of every report. :returns: the report, as --format json has it"""
        result = self.godwit(rc, "capacity", *arguments, "--format", "json", "--progress", "none", env=env)
        report = result.json
        self.assert_sound(report, is_exact="--fast" not in arguments, is_whole="--top" not in arguments)
        return report

    def row(self, volume, *options, rc=0, env=None):
        """The row of a volume that is measured alone."""
        rows = self.capacity(volume.address, *options, rc=rc, env=env)["images"]
        self.assertEqual([spec(row) for row in rows], [volume.spec])
        return rows[0]

    def rows(self, *arguments, rc=0, env=None):
        """All rows, by what rbd calls the image."""
        rows = self.capacity(*arguments, rc=rc, env=env)["images"]
        return {spec(row): row for row in rows}

    # What must be true

    def assert_sound(self, report, is_exact=True, is_whole=True):
        """Each row has all its figures or says why not, they agree with one another, and the totals sum them up."""
        for row in report["images"]:
            if "problem" in row:
                self.assertTrue(row["problem"], row)
                continue
            self.assertIn(row["means"], KINDS, row)
            self.assertLessEqual({"provisionedBytes", "usedBytes"}, set(row), row)
            self.assertTrue(all("usedBytes" in snapshot for snapshot in row["snapshots"]), row)
            if not is_exact:
                self.assertEqual(HELD & set(row), set(), row)
                self.assertFalse(any("aloneBytes" in snapshot for snapshot in row["snapshots"]), row)
                continue
            self.assertLessEqual(HELD, set(row), row)
            self.assertEqual(row["allocatedBytes"], row["headBytes"] + row["heldBySnapshotsBytes"], row)
            if row["means"] != "diff":
                self.assertLessEqual(
                    sum(snapshot["aloneBytes"] for snapshot in row["snapshots"]), row["heldBySnapshotsBytes"], row)
            if not row["snapshots"]:
                self.assertEqual(row["heldBySnapshotsBytes"], 0, row)
        if is_whole:
            self.assertEqual(report["totals"], sums(report["images"], is_exact))
        for pool in report["pools"]:
            if is_whole:
                rows = [row for row in report["images"] if row["pool"] == pool["pool"]]
                self.assertEqual(pool["totals"], sums(rows, is_exact), pool["pool"])
                for namespace in pool["namespaces"]:
                    name = namespace["namespace"]
                    self.assertEqual(
                        namespace["totals"], sums([row for row in rows if row["namespace"] == name], is_exact), name)
            self.assert_sum(pool["totals"], [namespace["totals"] for namespace in pool["namespaces"]])
        self.assert_sum(report["totals"], [pool["totals"] for pool in report["pools"]])

    def assert_sum(self, total, parts):
        self.assertEqual(total, {key: sum(part[key] for part in parts) for key in total})

    def assert_as_modelled(self, modelled):
        row = self.row(modelled.volume)
        self.assertEqual(figures(row), modelled.model.figures, "what the row says, and what was written")
        return row

    def assert_as_rbd_du(self, volume, row=None):
        """Sizes and whole objects, of each snapshot, of the head and in all, are what rbd says."""
        row = row or self.row(volume)
        found = json.loads(volume.cluster.tool("rbd", "du", "--format", "json", volume.spec).stdout)
        head = row["usedBytes"] - sum(snapshot["usedBytes"] for snapshot in row["snapshots"])
        self.assertEqual(
            [(s["snapshot"], s["sizeBytes"], s["usedBytes"]) for s in row["snapshots"]]
            + [(None, row["provisionedBytes"], head)],
            [(s.get("snapshot"), s["provisioned_size"], s["used_size"]) for s in found["images"]],
            "(snapshot, size, used) here and from 'rbd du', the head last")
        if "total_used_size" in found:
            self.assertEqual(row["usedBytes"], found["total_used_size"])


class Held(CapacityTest):
    """What the head, the snapshots and each snapshot alone hold, to the block."""

    LAYOUTS = [
        {}, {"order": 16}, {"order": 20, "features": ("layering",)}, {"order": 25}, {"data_pool": "slow", "order": 21},
        {"order": 20, "stripe_unit": 64 * KIB, "stripe_count": 3},
        {"order": 20, "features": ("layering", "exclusive-lock")}]

    def test_random_histories(self):
        """Writes, discards, snapshots, removals and resizes, then one more removal; a seed is a history."""
        for seed in range(14):
            layout = self.LAYOUTS[seed % len(self.LAYOUTS)]
            with self.subTest(seed=seed, **layout):
                draw = random.Random(seed)
                modelled = Modelled(self.volume(size=8 * MIB, **layout), 1 << layout.get("order", 22))
                try:
                    with modelled.volume:
                        for _ in range(32):
                            modelled.step(draw, limit=12 * MIB)
                    row = self.assert_as_modelled(modelled)
                    if "features" not in layout:
                        self.assert_as_rbd_du(modelled.volume, row)
                    if modelled.model.snapshots:
                        name = draw.choice(list(modelled.model.snapshots))
                        modelled.told.append(f"remove {name}")
                        modelled.remove_snap(name)
                        self.assert_as_modelled(modelled)
                except AssertionError as error:
                    raise AssertionError(f"{error}\nseed {seed}:\n  " + "\n  ".join(modelled.told)) from error

    def test_nothing_at_all(self):
        for size in (0, 8 * MIB):
            row = self.row(self.volume(size=size))
            self.assertEqual(
                figures(row), {"allocatedBytes": 0, "headBytes": 0, "heldBySnapshotsBytes": 0, "alone": {}})
            self.assertEqual((row["provisionedBytes"], row["usedBytes"], row["inTrash"]), (size, 0, False))
            self.assertEqual(row["means"], "object extents")

    def test_an_overwritten_block(self):
        """It is there twice: the snapshot's and the head's."""
        modelled = Modelled(self.volume(size=8 * MIB))
        modelled.write(0, MIB)
        modelled.snap("one")
        modelled.write(64 * KIB, BLOCK)
        row = self.assert_as_modelled(modelled)
        self.assertEqual(
            figures(row), {
                "allocatedBytes": MIB + BLOCK, "headBytes": MIB, "heldBySnapshotsBytes": BLOCK,
                "alone": {"one": BLOCK}})

    def test_writes_that_are_not_aligned(self):
        """A byte takes a block."""
        modelled = Modelled(self.volume(size=16 * MIB))
        for offset, length in ((512, 512), (10 * KIB + 1, 5000), (MIB - 1, 1), (4 * MIB - 1, 2), (16 * MIB - 1, 1)):
            modelled.write(offset, length)
        row = self.assert_as_modelled(modelled)
        self.assertEqual(row["allocatedBytes"], 7 * BLOCK)

    def test_a_part_of_a_block_that_a_snapshot_has(self):
        """Overwriting a byte of it takes a block more."""
        modelled = Modelled(self.volume(size=8 * MIB))
        modelled.write(0, 8 * BLOCK)
        modelled.snap("one")
        modelled.write(BLOCK + 77, 1)
        modelled.write(4 * BLOCK + 512, 1024)
        self.assert_as_modelled(modelled)

    def test_a_shrink_within_a_block(self):
        """What is left of it is the snapshot's still: the OSD takes no other for it."""
        modelled = Modelled(self.volume(size=8 * MIB))
        modelled.write(0, 64 * BLOCK)
        modelled.snap("one")
        modelled.resize(32 * BLOCK + 512)
        row = self.assert_as_modelled(modelled)
        self.assertEqual((row["allocatedBytes"], row["headBytes"]), (64 * BLOCK, 33 * BLOCK))
        modelled.resize(8 * MIB)
        modelled.write(33 * BLOCK, BLOCK)
        self.assert_as_modelled(modelled)

    def test_what_two_snapshots_share_belongs_to_neither(self):
        modelled = Modelled(self.volume(size=8 * MIB))
        modelled.write(0, MIB)
        modelled.snap("one")
        modelled.snap("two")
        modelled.discard(0, 4 * MIB)
        row = self.assert_as_modelled(modelled)
        self.assertEqual(row["heldBySnapshotsBytes"], MIB)
        self.assertEqual(figures(row)["alone"], {"one": 0, "two": 0})
        modelled.remove_snap("one")
        self.assertEqual(figures(self.assert_as_modelled(modelled))["alone"], {"two": MIB})

    def test_removing_a_snapshot_gives_back_what_it_alone_held(self):
        """First, last or in the middle, one after the other, until none is left."""
        modelled = Modelled(self.volume(size=16 * MIB))
        with modelled.volume:
            for index in range(6):
                modelled.write(index * 700 * KIB, 900 * KIB)
                modelled.write(4 * MIB + index * 64 * KIB, 256 * KIB)
                modelled.discard(index * MIB, 512 * KIB)
                modelled.snap(f"s{index}")
        before = self.assert_as_modelled(modelled)
        for name in ("s2", "s0", "s5", "s3", "s1", "s4"):
            modelled.volume.remove_snap(name)
            modelled.model.remove_snap(name)
            after = self.row(modelled.volume)
            self.assertEqual(before["allocatedBytes"] - after["allocatedBytes"], figures(before)["alone"][name], name)
            self.assertEqual(figures(after), modelled.model.figures, f"without {name}")
            before = after

    def test_snapshots_that_the_osds_have_not_trimmed_yet(self):
        """What only a removed snapshot showed is being given back; what others show as well stays theirs."""
        modelled = Modelled(self.volume(size=8 * MIB))
        modelled.write(0, MIB)
        modelled.snap("one")
        modelled.snap("same as one")
        modelled.write(0, 64 * KIB)
        modelled.snap("two")
        modelled.write(MIB // 2, MIB)
        modelled.snap("three")
        modelled.discard(0, 4 * MIB)
        self.assert_as_modelled(modelled)
        cluster().tool("ceph", "osd", "set", "nosnaptrim")
        self.addCleanup(cluster().tool, "ceph", "osd", "unset", "nosnaptrim")
        for name in ("same as one", "two", "three", "one"):
            with self.subTest(removed=name):
                modelled.remove_snap(name)
                self.assert_as_modelled(modelled)

    def test_many_snapshots(self):
        modelled = Modelled(self.volume(size=8 * MIB))
        with modelled.volume:
            for index in range(40):
                modelled.write(index * 20 * KIB, 64 * KIB)
                modelled.snap(f"s{index}")
        self.assert_as_rbd_du(modelled.volume, self.assert_as_modelled(modelled))

    def test_a_large_image(self):
        modelled = Modelled(self.volume(size=1 << 40))
        modelled.write(0, BLOCK)
        modelled.snap("one")
        modelled.write(1 << 39, BLOCK)
        modelled.write((1 << 40) - BLOCK, BLOCK)
        begin = time.monotonic()
        self.assert_as_modelled(modelled)
        self.assertLess(time.monotonic() - begin, 10)

    def test_any_parallelism_gives_the_same(self):
        volume = self.volume(size=64 * MIB, order=16)
        with volume:
            for index in range(100):
                volume.fill(index * 600 * KIB, 70 * KIB, seed=index)
            volume.snap("one")
            volume.fill(0, MIB, seed=1)
        rows = [self.row(volume, "--parallel", number) for number in ("1", "7", "1024")]
        self.assertEqual(rows[0], rows[1])
        self.assertEqual(rows[0], rows[2])


class WholeObjects(CapacityTest):
    """USED is what 'rbd du' shows, by object maps or without them."""

    SIZE = 30 * MIB + 5 * KIB

    def history(self, volume=None, **layout):
        """Writes in the first, in the last and in other objects; the last is cut by the size."""
        volume = volume or self.volume(size=self.SIZE, **layout)
        with volume:
            volume.fill(0, BLOCK)
            volume.fill(9 * MIB, 5 * MIB)
            volume.fill(30 * MIB, 5 * KIB)
            volume.snap("one")
            volume.fill(MIB, BLOCK)
            volume.discard(8 * MIB, 4 * MIB)
            volume.snap("two")
            volume.snap("three")
            volume.resize(21 * MIB + 512)
            volume.fill(21 * MIB, 512)
        return volume

    def test_as_rbd_du(self):
        for layout in (
                {}, {"order": 20}, {"order": 25}, {"data_pool": "slow"},
                {"order": 20, "stripe_unit": 64 * KIB, "stripe_count": 3},
                {"order": 22, "stripe_unit": MIB, "stripe_count": 2}):
            with self.subTest(layout):
                self.assert_as_rbd_du(self.history(**layout))

    def test_snapshots_removed_and_rolled_back_to(self):
        volume = self.history()
        volume.remove_snap("two")
        self.assert_as_rbd_du(volume)
        volume.remove_snap("one")
        self.assert_as_rbd_du(volume)
        volume.snap("four")
        volume.rollback("three")
        self.assert_as_rbd_du(volume)

    def test_by_object_maps_alone(self):
        """--fast says the same of PROVISIONED and USED, and nothing of what is allocated."""
        for layout in ({}, {"order": 20, "stripe_unit": 64 * KIB, "stripe_count": 3}, {"features": ("layering",)}):
            with self.subTest(layout):
                volume = self.history(**layout)
                exact, fast = self.row(volume), self.row(volume, "--fast")
                self.assertEqual(fast["means"], "objects" if "features" in layout else "object map")
                for key in ("provisionedBytes", "usedBytes", "id", "image", "pool", "namespace", "inTrash"):
                    self.assertEqual(fast[key], exact[key], key)
                self.assertEqual(
                    [(s["snapshot"], s["id"], s["sizeBytes"], s["usedBytes"]) for s in fast["snapshots"]],
                    [(s["snapshot"], s["id"], s["sizeBytes"], s["usedBytes"]) for s in exact["snapshots"]])

    def assert_as_with_maps(self, volume):
        """What is said of an image with the same history and valid maps is said of this one."""
        whole = self.history()
        for options in ([], ["--fast"]):
            ours, theirs = self.row(volume, *options), self.row(whole, *options)
            keys = {"provisionedBytes", "usedBytes"} | (set() if options else HELD)
            self.assertEqual({key: ours[key] for key in keys}, {key: theirs[key] for key in keys}, options)
            for one, other in zip(ours["snapshots"], theirs["snapshots"], strict=True):
                self.assertEqual({**one, "id": 0}, {**other, "id": 0}, options)

    def test_no_object_map(self):
        self.assert_as_with_maps(self.history(features=("layering",)))
        self.assert_as_with_maps(self.history(features=()))

    def test_an_object_map_without_fast_diff(self):
        """It doesn't tell what was written since a snapshot."""
        volume = self.volume(size=self.SIZE)
        # librbd switches both off, or none.
        request = struct.pack("<QQ", 0, FEATURES["fast-diff"])
        volume.ioctx.execute(f"rbd_header.{volume.id}", "rbd", "set_features", request)
        self.assertEqual(volume.features & {"object-map", "fast-diff"}, {"object-map"})
        self.assert_as_with_maps(self.history(volume))

    def test_an_object_map_that_is_flagged_as_invalid(self):
        """What such a map says is not believed."""
        modelled = Modelled(self.volume(size=16 * MIB))
        modelled.write(0, MIB)
        modelled.snap("one")
        modelled.write(MIB, MIB)
        self.stray(modelled.volume, 2)
        modelled.model.write(8 * MIB, 8 * KIB)
        cluster().tool("rbd", "object-map", "check", "--no-progress", modelled.volume.spec)
        with modelled.volume.open() as image:
            self.assertTrue(image.flags() & rbd.RBD_FLAG_OBJECT_MAP_INVALID)
        row = self.assert_as_modelled(modelled)
        self.assertEqual(row["usedBytes"], 3 * OBJECT)
        fast = self.row(modelled.volume, "--fast")
        self.assertEqual((fast["usedBytes"], fast["means"]), (3 * OBJECT, "objects"))

    @staticmethod
    def stray(volume, number):
        """Writes 8 KiB into a data object, past librbd and its object map."""
        with volume.open() as image:
            name = f"{image.block_name_prefix()}.{number:016x}"
        ioctx = cluster().rados.open_ioctx(volume.pool)
        snapshots = [snapshot["id"] for snapshot in volume.all_snapshots()]
        if snapshots:
            ioctx.set_self_managed_snap_write(sorted(snapshots, reverse=True))
        ioctx.write_full(name, noise(8 * KIB, seed=7))
        ioctx.close()

    def test_an_object_map_that_is_lost(self):
        for state in ("head", "one"):
            with self.subTest(state):
                modelled = Modelled(self.volume(size=16 * MIB))
                modelled.write(0, MIB)
                modelled.snap("one")
                modelled.write(4 * MIB, MIB)
                suffix = "" if state == "head" else f".{modelled.volume.all_snapshots()[0]['id']:016x}"
                modelled.volume.ioctx.remove_object(f"rbd_object_map.{modelled.volume.id}{suffix}")
                row = self.assert_as_modelled(modelled)
                self.assertEqual(row["usedBytes"], 2 * OBJECT)
                self.assertEqual(self.row(modelled.volume, "--fast")["usedBytes"], 2 * OBJECT)

    def test_an_object_map_that_is_garbage(self):
        """It is measured without, or says why not; the other images are listed."""
        pool = self.shared_pool()
        modelled, other = Modelled(self.volume(pool)), self.volume(pool)
        modelled.write(0, MIB)
        other.fill(0, BLOCK)
        for garbage in (b"", b"garbage", noise(4096)):
            modelled.volume.ioctx.write_full(f"rbd_object_map.{modelled.volume.id}", garbage)
            rows = self.rows(f"rbd:{pool}", rc=None)
            self.assertEqual(rows[other.spec]["allocatedBytes"], BLOCK)
            row = rows[modelled.volume.spec]
            if "problem" not in row:
                self.assertEqual(figures(row), modelled.model.figures)


class Clones(CapacityTest):
    """PARENT is what the head shows of a parent, and hasn't itself."""

    def parent(self, pool="fast", **layout):
        """16 MiB, with 6 MiB in its first two objects and 2 MiB in the third."""
        parent = self.volume(pool, 16 * MIB, **layout)
        with parent:
            parent.fill(0, 6 * MIB, seed=1)
            parent.fill(9 * MIB, 2 * MIB, seed=2)
            parent.snap("base", protect=True)
            parent.fill(7 * MIB, MIB, seed=3)  # not what a clone shows
            parent.fill(12 * MIB, MIB, seed=3)
        return parent

    def assert_shows(self, clone, parent, allocated, **options):
        row = self.row(clone, **options)
        self.assertEqual((row["parentBytes"], row["allocatedBytes"]), (parent, allocated), "(parent, allocated)")
        return row

    def test_a_clone_never_written(self):
        parent = self.parent()
        clone = self.clone(parent, "base")
        row = self.assert_shows(clone, 8 * MIB, 0)
        self.assertEqual((row["provisionedBytes"], row["usedBytes"]), (16 * MIB, 0))
        self.assert_as_rbd_du(clone, row)
        self.assertNotIn("parentBytes", self.row(parent))

    def test_a_clone_written_to(self):
        """An object that is written holds all that it showed of the parent."""
        clone = self.clone(self.parent(), "base")
        clone.fill(5 * MIB, BLOCK, seed=4)
        self.assert_shows(clone, 6 * MIB, 2 * MIB)
        clone.fill(12 * MIB, BLOCK, seed=4)
        self.assert_shows(clone, 6 * MIB, 2 * MIB + BLOCK)
        clone.discard(8 * MIB, 4 * MIB)  # hides a whole object
        self.assert_as_rbd_du(clone, self.assert_shows(clone, 4 * MIB, 2 * MIB + BLOCK))

    def test_a_clone_with_snapshots(self):
        clone = self.clone(self.parent(), "base")
        clone.snap("as cloned")
        clone.fill(5 * MIB, BLOCK, seed=4)
        clone.snap("written")
        clone.fill(5 * MIB, BLOCK, seed=5)
        row = self.assert_shows(clone, 6 * MIB, 2 * MIB + 2 * BLOCK)
        self.assertEqual(row["headBytes"], 2 * MIB)
        self.assertEqual(figures(row)["alone"], {"as cloned": BLOCK, "written": BLOCK})
        before = row
        clone.remove_snap("as cloned")
        self.assertEqual(before["allocatedBytes"] - self.row(clone)["allocatedBytes"], BLOCK)

    def test_random_writes_to_a_clone(self):
        for seed in range(3):
            with self.subTest(seed=seed):
                draw = random.Random(seed)
                parent = Modelled(self.volume(size=16 * MIB, order=20))
                with parent.volume:
                    for _ in range(20):
                        parent.write(draw.randrange(15 * MIB // BLOCK) * BLOCK, draw.randint(1, 64) * BLOCK)
                    parent.snap("base")
                clone = Modelled(self.clone(parent.volume, "base"))
                clone.model = CloneModel(parent.model.head, 1 << 20)
                with clone.volume:
                    for index in range(24):
                        clone.write(draw.randrange(15 * MIB), draw.choice((1, 5000, 100_000)))
                        if index % 4 == 1:
                            clone.snap(f"s{index}")
                        if index % 8 == 7:
                            clone.remove_snap(draw.choice(list(clone.model.snapshots)))
                row = self.assert_as_modelled(clone)
                self.assertEqual(row["parentBytes"], len(clone.model.shown) * BLOCK)
                self.assert_as_rbd_du(clone.volume, row)

    def test_a_clone_that_was_shrunk(self):
        """Where it was cut off, nothing of the parent shows any more."""
        clone = self.clone(self.parent(), "base")
        clone.resize(8 * MIB)
        self.assert_shows(clone, 6 * MIB, 0)
        clone.resize(5 * MIB)  # librbd copies what is left of the object that it cuts
        self.assert_shows(clone, 4 * MIB, MIB)
        clone.resize(4 * MIB)
        clone.resize(16 * MIB)
        self.assert_shows(clone, 4 * MIB, 0)
        clone.resize(0)
        clone.resize(16 * MIB)
        self.assertEqual(self.row(clone).get("parentBytes", 0), 0)

    def test_a_clone_that_was_grown(self):
        clone = self.clone(self.parent(), "base")
        clone.resize(30 * MIB)
        clone.fill(20 * MIB, MIB, seed=4)
        self.assert_shows(clone, 8 * MIB, MIB)

    def test_a_clone_that_was_flattened(self):
        clone = self.clone(self.parent(), "base")
        clone.flatten()
        row = self.row(clone)
        self.assertNotIn("parentBytes", row)
        self.assertEqual(row["allocatedBytes"], 8 * MIB)

    def test_a_clone_of_a_clone(self):
        """What the parent hasn't is its own parent's, unless the parent hides it."""
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.fill(5 * MIB, BLOCK, seed=4)
            clone.discard(8 * MIB, 4 * MIB)
            clone.fill(13 * MIB, MIB, seed=5)
            clone.snap("branch", protect=True)
        grandchild = self.clone(clone, "branch")
        self.assert_shows(grandchild, (4 + 2 + 1) * MIB, 0)
        grandchild.fill(MIB, BLOCK, seed=6)
        self.assert_shows(grandchild, (2 + 1) * MIB, 4 * MIB)
        self.assertEqual(self.row(grandchild, "--fast")["usedBytes"], OBJECT)

    def test_a_clone_of_a_clone_that_was_shrunk(self):
        """What the parent was cut off of its own parent doesn't show in the child."""
        clone = self.clone(self.parent(), "base")
        with clone:
            clone.resize(4 * MIB)
            clone.resize(16 * MIB)
            clone.fill(13 * MIB, BLOCK, seed=4)
            clone.snap("branch", protect=True)
            clone.resize(0)
        self.assert_shows(self.clone(clone, "branch"), 4 * MIB + BLOCK, 0)

    def test_parents_elsewhere(self):
        namespace = self.namespace("slow")
        stripes = {"stripe_unit": 64 * KIB, "stripe_count": 4}
        # The clone has the parent's layout: what it copies is what the one object shows.
        for where, copied in (
                ({"pool": "slow"}, 4), ({"pool": "slow", "namespace": namespace}, 4), ({"data_pool": "slow"}, 4),
                ({"order": 20}, 1), (stripes, 2), ({"features": ("layering",)}, 4),
                ({"order": 20, "features": ("layering",), **stripes}, 1)):
            with self.subTest(where):
                clone = self.clone(self.parent(**where), "base")
                self.assert_shows(clone, 8 * MIB, 0)
                clone.fill(MIB, BLOCK, seed=4)
                self.assert_shows(clone, (8 - copied) * MIB, copied * MIB)

    def test_clones_of_other_layouts(self):
        parent = self.parent()
        for options, copied in (({"order": 23}, 6), ({"order": 24}, 8), ({"features": ("layering",)}, 4)):
            with self.subTest(options):
                clone = self.clone(parent, "base", **options)
                self.assert_shows(clone, 8 * MIB, 0)
                clone.fill(0, BLOCK, seed=4)
                self.assert_shows(clone, (8 - copied) * MIB, copied * MIB)

    def test_a_parent_that_can_not_tell_extents(self):
        """It is an upper bound, as for an image there."""
        clone = self.clone(self.parent(data_pool=self.erasure_coded_pool()), "base")
        shown = self.row(clone)["parentBytes"]
        self.assertGreaterEqual(shown, 8 * MIB)
        self.assertLessEqual(shown, 12 * MIB)

    def test_a_parent_in_the_trash(self):
        parent = self.parent()
        clone = self.clone(parent, "base")
        number = parent.id
        rbd.RBD().trash_move(parent.ioctx, parent.name, 0)
        self.addCleanup(rbd.RBD().trash_restore, parent.ioctx, number, parent.name)
        self.assert_shows(clone, 8 * MIB, 0)

    def test_a_parent_snapshot_in_the_trash(self):
        """It holds what it held, under the name that it had, and the clone shows as much of it."""
        parent = self.volume(size=16 * MIB)
        parent.fill(0, 6 * MIB, seed=1)
        parent.snap("base")
        clone = self.clone(parent, "base")
        parent.remove_snap("base")
        parent.discard(0, 16 * MIB)
        self.assert_shows(clone, 6 * MIB, 0)
        row = self.row(parent)
        self.assertEqual(
            figures(row), {
                "allocatedBytes": 6 * MIB, "headBytes": 0, "heldBySnapshotsBytes": 6 * MIB, "alone": {"base": 6 * MIB}})


class Layouts(CapacityTest):
    def test_stripes(self):
        for unit, count, order in ((64 * KIB, 4, 22), (4 * KIB, 3, 16), (512 * KIB, 5, 20)):
            with self.subTest(stripe_unit=unit, stripe_count=count, object_size=1 << order):
                modelled = Modelled(
                    self.volume(size=12 * MIB, order=order, stripe_unit=unit, stripe_count=count), 1 << order)
                with modelled.volume:
                    modelled.write(0, 3 * MIB)
                    modelled.snap("one")
                    modelled.write(MIB, 256 * KIB)
                    modelled.discard(2 * MIB, 512 * KIB)
                    modelled.resize(10 * MIB)
                    modelled.write(9 * MIB + 100, 5000)
                self.assert_as_rbd_du(modelled.volume, self.assert_as_modelled(modelled))

    def test_an_erasure_coded_data_pool(self):
        """At most so much: an object counts up to its last byte."""
        data = self.erasure_coded_pool()
        modelled = Modelled(self.volume(size=16 * MIB, data_pool=data))
        modelled.write(0, 64 * KIB)
        modelled.write(5 * MIB, 64 * KIB)
        row = self.row(modelled.volume)
        self.assertEqual((row["means"], row["dataPool"]), ("object sizes", data))
        self.assertEqual(row["allocatedBytes"], 64 * KIB + MIB + 64 * KIB)
        modelled.snap("one")
        modelled.write(16 * KIB, 16 * KIB)
        row = self.row(modelled.volume)
        self.assertGreaterEqual(row["allocatedBytes"], modelled.model.held())
        self.assertGreaterEqual(figures(row)["alone"]["one"], 16 * KIB)
        self.assertLessEqual(row["allocatedBytes"], 2 * (64 * KIB + MIB + 64 * KIB))
        self.assertEqual(row["usedBytes"], 3 * OBJECT)
        before = row
        modelled.remove_snap("one")
        after = self.row(modelled.volume)
        self.assertEqual(before["allocatedBytes"] - after["allocatedBytes"], figures(before)["alone"]["one"])

    def test_a_data_pool(self):
        """The row names it, and stands with the image's own pool."""
        modelled = Modelled(self.volume(data_pool="slow"))
        modelled.write(0, 5 * MIB)
        row = self.assert_as_modelled(modelled)
        self.assertEqual((row["pool"], row["dataPool"]), ("fast", "slow"))
        self.assertNotIn("dataPool", self.row(self.volume()))

    def test_namespaces(self):
        pool = self.shared_pool()
        one, other = self.namespace(pool), self.namespace(pool)
        self.namespace(pool)  # an empty one
        sizes = {"": (1, 2), one: (3,), other: (4, 5)}
        for namespace, lengths in sizes.items():
            for length in lengths:
                self.volume(pool, namespace=namespace).fill(0, length * BLOCK)
        report = self.capacity(f"rbd:{pool}")
        self.assertEqual([entry["pool"] for entry in report["pools"]], [pool])
        found = {entry["namespace"]: entry["totals"] for entry in report["pools"][0]["namespaces"]}
        for namespace, lengths in sizes.items():
            self.assertEqual(found[namespace]["allocatedBytes"], sum(lengths) * BLOCK)
            self.assertEqual(found[namespace]["images"], len(lengths))
        self.assertEqual(report["totals"]["allocatedBytes"], 15 * BLOCK)
        self.assertEqual(report["totals"]["provisionedBytes"], 5 * 16 * MIB)

    def test_a_namespace_and_a_data_pool(self):
        modelled = Modelled(self.volume(namespace=self.namespace("fast"), data_pool="slow"))
        modelled.write(0, MIB)
        modelled.snap("one")
        modelled.write(0, BLOCK)
        self.assert_as_modelled(modelled)


class Obstacles(CapacityTest):
    """What can't be measured as the rest is doesn't keep the rest from being measured."""

    @contextlib.contextmanager
    def trashed(self, volume, source=0):
        """The image is in the trash meanwhile, put there by the user (0) or by a removal that was killed (3)."""
        number = volume.id
        rbd.RBD().trash_move(volume.ioctx, volume.name, 0)
        self.set_trash_source(volume, number, source)
        try:
            yield number
        finally:
            self.set_trash_source(volume, number, 0)
            rbd.RBD().trash_restore(volume.ioctx, number, volume.name)

    @staticmethod
    def set_trash_source(volume, number, source):
        """cls::rbd::TrashImageSpec begins with its version, the oldest that reads it, its length and its source."""
        with rados.ReadOpCtx() as operation:
            values, _ = volume.ioctx.get_omap_vals_by_keys(operation, (f"id_{number}",))
            volume.ioctx.operate_read_op(operation, "rbd_trash")
            value = dict(values)[f"id_{number}"]
        with rados.WriteOpCtx() as operation:
            volume.ioctx.set_omap(operation, (f"id_{number}",), (value[:6] + bytes([source]) + value[7:],))
            volume.ioctx.operate_write_op(operation, "rbd_trash")

    def without_header(self, pool):
        """An image as a killed removal leaves it: its name stands in the directory, its header is gone."""
        volume = self.volume(pool, MIB, features=("layering",))
        volume.ioctx.remove_object(f"rbd_header.{volume.id}")
        self.addCleanup(rbd.RBD().remove, volume.ioctx, volume.name)
        return volume

    def opened(self, volume, read_only=False):
        """The image, as another client has it open until the test is over; it takes the lock once it writes."""
        client = rados.Rados(conffile=cluster().conf, conf={"rbd_cache": "false"})
        client.connect()
        self.addCleanup(client.shutdown)
        ioctx = client.open_ioctx(volume.pool)
        self.addCleanup(ioctx.close)
        image = rbd.Image(ioctx, volume.name, read_only=read_only)
        self.addCleanup(image.close)
        return image

    def old_format(self, pool, size=16 * MIB):
        volume = self.target(pool)
        cluster().tool(
            "rbd", "create", volume.spec, "--image-format", "1", "--size", f"{size}B",
            env={"RBD_FORCE_ALLOW_V1": "1"})
        return volume

    def test_all_of_them(self):
        """Each image that can be measured is, and each that can't says why; the status tells."""
        pool = self.shared_pool()
        measured = {"plain": self.volume(pool), "without maps": self.volume(pool, features=())}
        measured |= {"lost map": self.volume(pool), "open": self.volume(pool), "trash": self.volume(pool)}
        measured["old format"] = self.old_format(pool)
        for length, volume in enumerate(measured.values(), 1):
            volume.fill(0, length * BLOCK)
        self.opened(measured["open"]).write(noise(BLOCK), 0)
        measured["lost map"].ioctx.remove_object(f"rbd_object_map.{measured['lost map'].id}")
        header_lost = self.without_header(pool)
        with self.trashed(measured["trash"]):
            report = self.capacity(f"rbd:{pool}", rc=75)
            rows = {spec(row): row for row in report["images"]}
            self.assertEqual({name for name, row in rows.items() if "problem" in row}, {header_lost.spec})
            for length, volume in enumerate(measured.values(), 1):
                self.assertEqual(rows[volume.spec]["allocatedBytes"], length * BLOCK)
            self.assertEqual(len(rows), len(measured) + 1)
            self.assertEqual(report["totals"]["unanswered"], 1)
            table = self.godwit(75, "capacity", f"rbd:{pool}", "--progress", "none").stdout
            self.assertIn(rows[header_lost.spec]["problem"], table)

    def test_an_image_in_the_trash(self):
        """It holds its bytes until it is purged; by its name alone it isn't found."""
        pool = self.shared_pool()
        modelled = Modelled(self.volume(pool))
        modelled.write(0, MIB)
        modelled.snap("one")
        modelled.write(0, BLOCK)
        with self.trashed(modelled.volume) as number:
            report = self.capacity(f"rbd:{pool}")
            [row] = report["images"]
            self.assertEqual((row["inTrash"], row["id"], row["image"]), (True, number, modelled.volume.name))
            self.assertEqual(figures(row), modelled.model.figures)
            self.assertEqual(report["totals"]["allocatedBytes"], modelled.model.held())
            self.assertIn("(trash)", self.godwit(0, "capacity", f"rbd:{pool}").stdout)
            self.godwit(66, "capacity", modelled.volume.address)

    def test_images_of_one_name_in_the_trash(self):
        """They are told apart by their ids, and from the one that has the name now."""
        pool = self.shared_pool()
        one, ids = self.volume(pool), []
        other, third = one.sibling(one.name), one.sibling(one.name)
        with contextlib.ExitStack() as stack:
            for length, volume in enumerate((one, other, third), 1):
                if not volume.exists:
                    volume.create(16 * MIB)
                volume.fill(0, length * BLOCK)
                ids.append(volume.id)
                if volume is not third:
                    rbd.RBD().trash_move(volume.ioctx, volume.name, 0)
                    stack.callback(rbd.RBD().trash_remove, volume.ioctx, ids[-1], True)
            report = self.capacity(f"rbd:{pool}")
            self.assertEqual(
                {row["id"]: (row["allocatedBytes"], row["inTrash"]) for row in report["images"]},
                {ids[0]: (BLOCK, True), ids[1]: (2 * BLOCK, True), ids[2]: (3 * BLOCK, False)})

    def test_an_image_that_is_being_removed(self):
        """As a killed removal leaves it: in the trash, where 'rbd trash ls' doesn't show it."""
        pool = self.shared_pool()
        volume = self.volume(pool)
        volume.fill(0, 5 * MIB)
        with self.trashed(volume, source=3):
            [row] = self.capacity(f"rbd:{pool}")["images"]
            self.assertEqual((row["inTrash"], row["allocatedBytes"]), (True, 5 * MIB))

    def test_an_image_without_a_header(self):
        pool = self.shared_pool()
        volume = self.without_header(pool)
        for scope in (f"rbd:{pool}", volume.address):
            [row] = self.capacity(scope, rc=75)["images"]
            self.assertRegex(row["problem"], "header")
            self.assertEqual(row["image"], volume.name)
        self.assertEqual(self.godwit(75, "capacity", f"rbd:{pool}", "--fast", "--progress", "none").stderr, "")

    def test_an_image_of_format_1(self):
        """At most so much: librbd counts each of its objects up to the last byte, and knows no snapshot's own."""
        pool = self.shared_pool()
        volume = self.old_format(pool, size=14 * MIB)
        volume.fill(0, MIB)
        volume.fill(5 * MIB, BLOCK)
        volume.fill(13 * MIB, BLOCK)
        for scope in (f"rbd:{pool}", volume.address):
            [row] = self.capacity(scope)["images"]
            self.assertEqual((row["provisionedBytes"], row["inTrash"], row["image"]), (14 * MIB, False, volume.name))
            self.assertEqual(row["means"], "diff")
            self.assertNotIn("id", row)
            self.assertGreaterEqual(row["allocatedBytes"], MIB + 2 * BLOCK)
            self.assertLessEqual(row["allocatedBytes"], row["usedBytes"])
        self.assert_as_rbd_du(volume, row)
        volume.snap("one")
        volume.fill(0, BLOCK)
        row = self.row(volume)
        self.assertGreaterEqual(row["allocatedBytes"], MIB + 3 * BLOCK)
        self.assertGreaterEqual(row["headBytes"], MIB + 2 * BLOCK)
        self.assertNotIn("aloneBytes", row["snapshots"][0])
        self.assert_as_rbd_du(volume, row)
        fast = self.row(volume, "--fast")
        self.assertEqual((fast["usedBytes"], fast["provisionedBytes"]), (row["usedBytes"], 14 * MIB))

    def test_many_entries(self):
        """More images than one answer of a pool holds, and namespaces; all but one have no header."""
        pool = self.pool("capacity")
        last = self.volume(pool, name="zzz-" + secrets.token_hex(3))
        last.fill(0, BLOCK)

        def text(word):
            return struct.pack("<I", len(word)) + word.encode()

        entries, count = {}, 2500
        for number in range(count):
            name, id_ = f"image-{number}", f"{number:x}ffff"
            entries |= {f"name_{name}": text(id_), f"id_{id_}": text(name)}
        namespaces = [f"a-namespace-with-a-long-name-{number}" for number in range(300)]
        inside = self.volume(pool, namespace=self.namespace(pool))
        inside.fill(0, BLOCK)
        for object_, keys, values in (
                ("rbd_directory", tuple(entries), tuple(entries.values())),
                ("rbd_namespace", tuple(f"name_{name}" for name in namespaces), (b"",) * len(namespaces))):
            with rados.WriteOpCtx() as operation:
                last.ioctx.set_omap(operation, keys, values)
                last.ioctx.operate_write_op(operation, object_)
        report = self.capacity(f"rbd:{pool}", rc=75)
        self.assertEqual((report["totals"]["images"], report["totals"]["unanswered"]), (count + 2, count))
        self.assertEqual(report["totals"]["allocatedBytes"], 2 * BLOCK)
        self.assertEqual(
            {spec(row) for row in report["images"] if "problem" not in row}, {last.spec, inside.spec})

    def test_an_image_that_others_hold(self):
        """It is measured as any other."""
        for holds in ("to read", "to write", "to write, and its lock"):
            with self.subTest(holds):
                modelled = Modelled(self.volume())
                modelled.write(0, MIB)
                modelled.snap("one")
                image = self.opened(modelled.volume, read_only=holds == "to read")
                if "lock" in holds:
                    image.write(noise(BLOCK), MIB)
                    modelled.model.write(MIB, BLOCK)
                    self.assertTrue(image.is_exclusive_lock_owner())
                self.assert_as_modelled(modelled)
                self.assertEqual(image.is_exclusive_lock_owner(), "lock" in holds)

    def noticed(self, volume):
        """All of it that a client that opens it, or writes to it, changes."""
        number = volume.id
        with volume.open() as image:
            watchers, lockers = sorted(w["addr"] for w in image.watchers_list()), image.list_lockers()
        versions = []
        for name in (f"rbd_header.{number}", f"rbd_object_map.{number}"):
            volume.ioctx.stat(name)
            versions.append(volume.ioctx.get_last_version())
        return watchers, lockers, versions

    def test_nobody_notices(self):
        """While an image is measured it has no more watchers, no other lock, and nothing in it is written."""
        held, free = self.volume(), self.volume()
        for volume in (held, free):
            volume.fill(0, 8 * MIB)
            volume.snap("one")
            volume.fill(0, MIB, seed=1)
        self.opened(held).write(noise(BLOCK), 0)
        before = [self.noticed(volume) for volume in (held, free)]
        self.assertEqual((len(before[0][0]), len(before[1][0])), (1, 0))
        measuring = start(
            "capacity", held.address, free.address, "--watch", "0.1", "--format", "json", "--progress", "none")
        self.addCleanup(lambda: measuring.has_ended or measuring.kill())
        while len(documents(measuring.text(0))) < 5:
            self.assertFalse(measuring.has_ended, "it ended")
            self.assertEqual([self.noticed(volume) for volume in (held, free)], before)
        measuring.send(signal.SIGINT)
        measuring.wait(10)
        self.assertEqual([self.noticed(volume) for volume in (held, free)], before)

    def test_images_that_come_and_go(self):
        """Those that stay are measured right each time; of the others a row may be missing, or say why."""
        pool = self.shared_pool()
        lasting = [Modelled(self.volume(pool)) for _ in range(3)]
        for modelled in lasting:
            modelled.write(0, MIB)
            modelled.snap("one")
            modelled.write(64 * KIB, 64 * KIB)
        busy = self.volume(pool)
        busy.fill(0, MIB)
        over, errors = threading.Event(), []

        def churn():
            ioctx = cluster().rados.open_ioctx(pool)
            try:
                for number in itertools.count():
                    if over.is_set():
                        break
                    name = f"passing-{number}"
                    rbd.RBD().create(ioctx, name, 16 * MIB, old_format=False)
                    with rbd.Image(ioctx, name) as image:
                        image.write(noise(BLOCK), 0)
                    with rbd.Image(ioctx, busy.name) as image:
                        image.create_snap(name)
                        image.write(noise(BLOCK), 0)
                        image.remove_snap(name)
                    rbd.RBD().remove(ioctx, name)
            except Exception as error:  # the thread that waits for this one tells it
                errors.append(error)
            finally:
                ioctx.close()

        thread = threading.Thread(target=churn)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(over.set)
        seen = set()
        for _ in range(20):
            result = self.godwit(None, "capacity", f"rbd:{pool}", "--format", "json", "--progress", "none")
            self.assertIn(result.rc, (0, 75), result)
            rows = {spec(row): row for row in result.json["images"]}
            self.assertEqual(result.stderr, "")
            for modelled in lasting:
                self.assertEqual(figures(rows.pop(modelled.volume.spec)), modelled.model.figures)
            row = rows.pop(busy.spec)
            self.assertNotIn("problem", row)
            self.assertEqual(row["headBytes"], MIB)
            self.assertLessEqual(row["allocatedBytes"], MIB + 2 * BLOCK)
            for row in rows.values():
                self.assertRegex(row["image"], "^passing-")
                if "problem" in row:
                    self.assertEqual(result.rc, 75, result)
                    self.assertRegex(row["problem"], "being made or removed")
                else:
                    self.assertIn(row["allocatedBytes"], (0, BLOCK))
                seen.add(row["image"])
            self.assertEqual(errors, [])
        self.assertGreater(len(seen), 1, "none of the images that come and go was ever seen")


class Scopes(CapacityTest):
    def test_scopes(self):
        """A pool, a namespace, an image, some of them; what several name is counted once."""
        pool = self.shared_pool()
        namespace = self.namespace(pool)
        one, other = self.volume(pool), self.volume(pool)
        inside = self.volume(pool, namespace=namespace)
        for length, volume in enumerate((one, other, inside), 1):
            volume.fill(0, length * BLOCK)
        whole = f"rbd:{pool}"
        for scopes, expected in (
                ([whole], (one, other, inside)), ([f"{whole}/{namespace}"], (inside,)),
                ([f"{whole}/{namespace}/"], (inside,)), ([one.address], (one,)), ([inside.address], (inside,)),
                ([one.address, inside.address], (one, inside)), ([one.address, f"{whole}/{namespace}"], (one, inside)),
                ([one.address, one.address], (one,)), ([whole, whole], (one, other, inside)),
                ([inside.address, whole, one.address, f"{whole}/{namespace}"], (one, other, inside))):
            with self.subTest(scopes):
                report = self.capacity(*scopes)
                self.assertEqual(
                    sorted(spec(row) for row in report["images"]), sorted(volume.spec for volume in expected))
                blocks = sum((one, other, inside).index(volume) + 1 for volume in expected)
                self.assertEqual(report["totals"]["allocatedBytes"], blocks * BLOCK)

    def test_everything(self):
        """Without a scope, the images of all pools that are marked as RBD's, data pools among them."""
        data, pool = self.erasure_coded_pool(), self.shared_pool()
        unmarked = f"unmarked-{secrets.token_hex(3)}"
        cluster().tool("ceph", "osd", "pool", "create", unmarked, "8", "8")
        self.addCleanup(
            cluster().tool, "ceph", "osd", "pool", "rm", unmarked, unmarked, "--yes-i-really-really-mean-it")
        volumes = [self.volume(), self.volume("slow"), self.volume(pool), self.volume(pool, data_pool=data)]
        for volume in volumes:
            volume.fill(0, BLOCK)
        for scopes in ([], [f"rbd::conf={cluster().conf}"], ["rbd:"]):
            with self.subTest(scopes):
                report = self.capacity(*scopes)
                names = {entry["pool"] for entry in report["pools"]}
                self.assertLessEqual({"fast", "slow", pool, data}, names)
                self.assertNotIn(unmarked, names)
                self.assertLessEqual(
                    {volume.spec for volume in volumes}, {spec(row) for row in report["images"]})

    def test_a_data_pool_alone(self):
        """An erasure-coded pool can't hold an image's header: it has no images, which is no error."""
        self.assertEqual(self.capacity(f"rbd:{self.erasure_coded_pool()}")["images"], [])

    def test_a_namespace_and_an_image_of_one_name(self):
        """The image is meant, unless a slash follows."""
        namespace = self.namespace("fast")
        image = self.volume(name=namespace)
        inside = self.volume(namespace=namespace)
        self.assertEqual(set(self.rows(f"rbd:fast/{namespace}")), {image.spec})
        self.assertEqual(set(self.rows(f"rbd:fast/{namespace}/")), {inside.spec})
        self.assertEqual(set(self.rows(inside.address)), {inside.spec})

    def test_an_empty_pool(self):
        pool = self.pool("capacity")
        report = self.capacity(f"rbd:{pool}")
        self.assertEqual(report["images"], [])
        self.assertEqual([entry["pool"] for entry in report["pools"]], [pool])
        self.godwit(0, "capacity", f"rbd:{pool}")
        self.assertEqual(len(self.godwit(0, "capacity", f"rbd:{pool}", "--format", "csv").stdout.splitlines()), 1)

    def test_names_with_anything_in_them(self):
        pool = self.pool("p ö:o@l")
        escaped = pool.replace(":", "\\:").replace("@", "\\@")
        volumes = [
            self.volume(pool, name=f"{name}-{secrets.token_hex(3)}")
            for name in ("with space, co:lon and back\\slash", "quote'\"`$HOME", "日本語 🦤 e\u0301", "-dash=%41")]
        for volume in volumes:
            volume.fill(0, BLOCK)
            self.assertEqual(self.row(volume)["allocatedBytes"], BLOCK)
        self.assertEqual(set(self.rows(f"rbd:{escaped}")), {volume.spec for volume in volumes})

    def test_what_is_not_there(self):
        namespace = self.namespace("fast")
        volume = self.volume()
        for scope in (
                "rbd:no-such-pool", "rbd:no-such-pool/image", "rbd:fast/no-such-image",
                "rbd:fast/no-such-namespace/image", f"rbd:fast/{namespace}/no-such-image",
                "rbd:fast/no-such-namespace/"):
            for scopes in ([scope], [volume.address, scope]):
                with self.subTest(scopes):
                    result = self.godwit(66, "capacity", *scopes, timeout=20)
                    self.assertEqual(result.stdout, "")
                    self.assertIn("no-such", result.stderr)

    def test_wrong_usage(self):
        volume = self.volume()
        volume.snap("one")
        for arguments in (
                ["fast"], [""], ["rbd:fast//"], ["rbd:/image"], ["rbd:a/b/c/d"], ["rbd:fast:port=1"],
                ["rbd:fast:conf="], ["nbd://host/export"], [f"{volume.address}@one"],
                ["--top", "0"], ["--top", "-1"], ["--top", "x"],
                ["--parallel", "0"], ["--parallel", "1025"], ["--watch", "0"], ["--watch", "-1"], ["--watch", "nan"],
                ["--sort", "colour"], ["--format", "xml"], ["--no-such-option"],
                ["rbd:fast", f"rbd:fast:conf={setting('CEPH_CONF_2')}"],
                ["rbd:fast:id=one", "rbd:fast:id=other"]):
            with self.subTest(arguments):
                result = self.godwit(64, "capacity", *arguments, timeout=10)
                self.assertEqual(result.stdout, "")
                self.assertTrue(result.stderr)

    def test_a_cluster_that_is_not_there(self):
        for scopes in ([], ["rbd:fast"]):
            result = self.godwit(69, "capacity", *scopes, env={"CEPH_CONF": "/nonexistent/ceph.conf"})
            self.assertEqual(result.stdout, "")
            self.assertIn("/nonexistent/ceph.conf", result.stderr)


class Rights(CapacityTest, AddressTest):
    """Reading is enough; what may not be read is told."""

    def reader(self, *pools):
        """The environment of a user who may only read these pools, or namespaces of them."""
        user = self.user(
            "mon", "profile rbd-read-only", "osd", ", ".join(f"profile rbd-read-only pool={pool}" for pool in pools))
        return {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}

    def test_a_reader_sees_all(self):
        """An image with snapshots, one with a data pool, a clone, one in a namespace, one in the trash, the pool."""
        pool = self.shared_pool()
        namespace = self.namespace(pool)
        parent = self.written(pool=pool)
        clone = self.target(pool).clone_of(parent, "one")
        clone.fill(0, BLOCK)
        volumes = [
            parent, clone, self.written(pool=pool, namespace=namespace), self.written(pool=pool, data_pool="slow")]
        trashed = self.written(pool=pool, features=())
        number = trashed.id
        rbd.RBD().trash_move(trashed.ioctx, trashed.name, 0)
        self.addCleanup(rbd.RBD().trash_restore, trashed.ioctx, number, trashed.name)
        ours = self.capacity(f"rbd:{pool}", env=self.reader(pool, "slow"))
        theirs = self.capacity(f"rbd:{pool}")
        self.assertEqual(ours["images"], theirs["images"])
        self.assertEqual(len(ours["images"]), len(volumes) + 1)
        self.assertEqual(ours["pools"][0].keys(), theirs["pools"][0].keys())
        self.assertEqual(ours["pools"][0]["redundancy"], "1 copy")

    def test_a_user_by_address(self):
        user = self.user("mon", "profile rbd-read-only", "osd", "profile rbd-read-only pool=fast")
        volume = self.written()
        self.assertEqual(set(self.rows(volume.address + user.suffix)), {volume.spec})

    def test_pools_that_may_not_be_read(self):
        """Named, such a pool is an error; among all pools it is told on stderr, and the others are shown."""
        env, volume, other = self.reader("fast"), self.written(), self.written(pool="slow")
        for scope in ("rbd:slow", other.address, "rbd:slow/no-such-image"):
            result = self.godwit(77, "capacity", scope, env=env)
            self.assertEqual(result.stdout, "")
        result = self.godwit(75, "capacity", "--format", "json", "--progress", "none", env=env)
        self.assertIn("slow", result.stderr)
        self.assertIn(volume.spec, [spec(row) for row in result.json["images"]])
        self.assertNotIn(other.spec, [spec(row) for row in result.json["images"]])

    def test_a_namespace_alone(self):
        namespace = self.namespace("fast")
        env, volume = self.reader(f"fast namespace={namespace}"), self.written(namespace=namespace)
        for scope in (volume.address, f"rbd:fast/{namespace}", f"rbd:fast/{namespace}/"):
            with self.subTest(scope):
                self.assertEqual(set(self.rows(scope, env=env)), {volume.spec})
        self.godwit(77, "capacity", "rbd:fast", env=env)

    def test_a_parent_that_may_not_be_read(self):
        """What the clone itself holds is told all the same."""
        pool = self.shared_pool()
        parent = self.written(pool="slow")
        clone = self.target(pool).clone_of(parent, "one")
        clone.fill(4 * MIB, BLOCK)
        row = self.row(clone, rc=75, env=self.reader(pool))
        self.assertEqual((row["provisionedBytes"], row["allocatedBytes"]), (8 * MIB, BLOCK))
        self.assertNotIn("parentBytes", row)
        self.assertTrue(row["problem"])

    def test_a_data_pool_that_may_not_be_read(self):
        """The row says so, and the others are measured."""
        pool = self.shared_pool()
        volume, other = self.written(pool=pool, data_pool="slow"), self.written(pool=pool)
        rows = self.rows(f"rbd:{pool}", rc=75, env=self.reader(pool))
        self.assertTrue(rows[volume.spec]["problem"])
        self.assertEqual(rows[volume.spec]["provisionedBytes"], 8 * MIB)
        self.assertNotIn("problem", rows[other.spec])


class PoolsOwnView(CapacityTest):
    def view(self, pool, *scopes):
        report = self.capacity(*(scopes or [f"rbd:{pool}"]))
        return next(entry for entry in report["pools"] if entry["pool"] == pool)

    def test_copies_and_a_quota(self):
        pool = self.pool("capacity")
        view = self.view(pool)
        self.assertEqual((view["redundancy"], view["overhead"]), ("1 copy", 1))
        self.assertNotIn("quotaBytes", view)
        cluster().tool("ceph", "osd", "pool", "set-quota", pool, "max_bytes", str(100 * MIB))
        cluster().tool("ceph", "osd", "pool", "set", pool, "size", "2")
        view = self.view(pool)
        self.assertEqual((view["redundancy"], view["overhead"], view["quotaBytes"]), ("2 copies", 2, 100 * MIB))
        table = self.godwit(0, "capacity", f"rbd:{pool}").stdout
        self.assertIn("2 copies", table)
        self.assertIn("100.0 MiB", table)

    def test_an_erasure_coded_pool(self):
        view = self.view(self.erasure_coded_pool())
        self.assertEqual((view["redundancy"], view["overhead"]), ("erasure-coded 2+1", 1.5))

    def test_a_data_pool_is_shown_with_the_images_in_it(self):
        """Their bytes take room there, and with its overhead."""
        data = self.erasure_coded_pool()
        volume = self.volume(data_pool=data)
        self.assertEqual(self.view(data, volume.address)["redundancy"], "erasure-coded 2+1")

    def test_as_the_cluster_says(self):
        pool = self.pool("capacity")
        self.volume(pool).fill(0, 4 * MIB)

        def said():
            pools = json.loads(cluster().tool("ceph", "df", "--format", "json").stdout)["pools"]
            return next(
                ((entry["stats"]["stored"], entry["stats"]["bytes_used"]) for entry in pools if entry["name"] == pool),
                (0, 0))

        def agree():
            before, view, after = said(), self.view(pool), said()
            return before != after or (view.get("storedBytes"), view.get("usedBytes")) == after != (0, 0)

        self.wait_until(agree)
        self.assertGreater(self.view(pool)["availableBytes"], GIB)

    def test_what_is_stored_grows_by_what_is_allocated(self):
        """In a pool of its own, apart from what headers take; with a second copy it takes twice as much."""
        pool = self.pool("capacity")
        volume = self.volume(pool, 64 * MIB)
        with volume:
            for index in range(200):
                volume.fill(index * 300 * KIB, 64 * KIB, seed=index)
        allocated = self.row(volume)["allocatedBytes"]
        self.assertEqual(allocated, 200 * 64 * KIB)
        self.wait_until(lambda: abs(self.view(pool).get("storedBytes", 0) - allocated) < 64 * KIB)

    def test_what_the_osds_really_give_back(self):
        """Removing a snapshot frees what it alone held, as the OSDs themselves count."""
        pool = self.pool("capacity")
        volume = self.volume(pool, 64 * MIB)
        with volume:
            volume.fill(0, 16 * MIB)
            volume.snap("one")
            volume.fill(4 * MIB, 8 * MIB, seed=1)
            volume.snap("two")
            volume.fill(6 * MIB, 4 * MIB, seed=2)
        row = self.row(volume)
        self.assertEqual(row["allocatedBytes"], 28 * MIB)
        for name in (None, "one", "two"):
            if name:
                row = self.row(volume)
                volume.remove_snap(name)
            expected = row["allocatedBytes"] - (figures(row)["alone"][name] if name else 0)
            self.wait_until(lambda: abs(self.view(pool).get("usedBytes", 0) - expected) < 256 * KIB)


class Output(CapacityTest):
    def some(self):
        """A pool of five images, each first in another order."""
        pool = self.shared_pool()
        sizes = {"a": (8, 1, 0), "b": (64, 2, 0), "c": (16, 24, 0), "d": (32, 4, 8), "e": (12, 3, 0)}
        for name, (size, pieces, overwritten) in sizes.items():
            volume = self.volume(pool, size * MIB, name=f"{name}-{secrets.token_hex(2)}", order=20)
            with volume:
                for index in range(pieces):
                    volume.fill(index * MIB % (size * MIB) + index * 16 * KIB, 16 * KIB, seed=index)
                if overwritten:
                    volume.snap("one")
                    volume.fill(0, overwritten * 64 * KIB)
        clone = self.target(pool, name=f"f-{secrets.token_hex(2)}")
        parent = next(name for name in rbd.RBD().list(clone.ioctx) if name.startswith("d-"))
        clone.clone_of(clone.sibling(parent), "one")
        return pool

    KEYS = {
        "size": "provisionedBytes", "used": "usedBytes", "allocated": "allocatedBytes",
        "snapshots": "heldBySnapshotsBytes", "parent": "parentBytes"}

    def test_order_and_the_first_so_many(self):
        """Names ascend, bytes descend, and what has no such figure comes last; sums are of all."""
        pool = self.some()
        whole = self.capacity(f"rbd:{pool}")
        names = [row["image"] for row in whole["images"]]
        self.assertEqual(names, sorted(names))
        self.assertEqual(names, [row["image"] for row in self.capacity(f"rbd:{pool}", "--sort", "name")["images"]])
        for order, key in self.KEYS.items():
            with self.subTest(order):
                report = self.capacity(f"rbd:{pool}", "--sort", order)
                expected = sorted(whole["images"], key=lambda row: (-row.get(key, -1), row["image"]))
                self.assertEqual(report["images"], expected)
                self.assertEqual(report["totals"], whole["totals"])
                for top in (1, 3, 100):
                    first = self.capacity(f"rbd:{pool}", "--sort", order, "--top", str(top))
                    self.assertEqual(first["images"], expected[:top])
                    self.assertEqual(first["totals"], whole["totals"])
        self.assertNotEqual(
            [row["image"] for row in self.capacity(f"rbd:{pool}", "--sort", "allocated")["images"]], names)

    def test_csv(self):
        """It holds what the JSON holds."""
        pool = self.some()
        volume = self.volume(pool, name=f"g, \"quoted\"\r\nand more-{secrets.token_hex(2)}")
        volume.fill(0, BLOCK)
        volume.snap("a,b")
        names = {
            "pool": "pool", "namespace": "namespace", "image": "image", "data_pool": "dataPool", "means": "means",
            "provisioned": "provisionedBytes", "used": "usedBytes", "allocated": "allocatedBytes", "head": "headBytes",
            "held_by_snapshots": "heldBySnapshotsBytes", "parent": "parentBytes", "problem": "problem"}
        for options in ([], ["--fast"]):
            report = self.capacity(f"rbd:{pool}", *options)
            text = self.godwit(
                0, "capacity", f"rbd:{pool}", *options, "--format", "csv", "--snapshots", "--progress", "none").stdout
            records = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
            self.assertEqual(text.replace("\r\nand more", "").count("\r\n"), len(records) + 1)
            images = [record for record in records if not record["snapshot"]]
            self.assertEqual(
                [{column: record[column] for column in names} for record in images],
                [{column: str(row.get(key, "")) for column, key in names.items()} for row in report["images"]])
            self.assertEqual({record["in_trash"] for record in records}, {"false"})
            self.assertEqual(
                [(record["image"], record["snapshot"], record["provisioned"], record["used"], record["alone"])
                 for record in records if record["snapshot"]],
                [(row["image"], s["snapshot"], str(s["sizeBytes"]), str(s["usedBytes"]), str(s.get("aloneBytes", "")))
                 for row in report["images"] for s in row["snapshots"]])
            short = self.godwit(0, "capacity", f"rbd:{pool}", *options, "--format", "csv", "--progress", "none").stdout
            self.assertEqual(list(csv.DictReader(io.StringIO(short, newline=""), strict=True)), images)

    def test_the_table(self):
        """A line for each image, in units for people or in bytes; snapshots and sums if there are any."""
        pool = self.shared_pool()
        volume = self.volume(pool, 10 * MIB)
        with volume:
            volume.fill(0, MIB)
            volume.snap("one")
            volume.fill(0, 64 * KIB)
        spec_, known = re.escape(volume.spec), lambda: self.capacity(f"rbd:{pool}")["pools"][0].get("storedBytes")
        self.wait_until(known)
        table = self.godwit(0, "capacity", f"rbd:{pool}", "--progress", "none").stdout
        self.assertRegex(table, r"^NAME +PROVISIONED +USED +ALLOCATED +SNAPSHOTS\n")
        self.assertRegex(table, rf"(?m)^{spec_} +10\.0 MiB +8\.0 MiB +1\.1 MiB +64\.0 KiB$")
        self.assertNotIn("@one", table)
        self.assertRegex(table, r"(?m)^in all: 1 image +10\.0 MiB +8\.0 MiB +1\.1 MiB +64\.0 KiB$")
        self.assertRegex(table, rf"(?m)^pool {pool}: .* stored .*1 copy.* available")
        table = self.godwit(0, "capacity", f"rbd:{pool}", "--bytes", "--snapshots").stdout
        self.assertRegex(table, rf"(?m)^{spec_} +{10 * MIB} +{8 * MIB} +{MIB + 64 * KIB} +{64 * KIB}$")
        self.assertRegex(table, rf"(?m)^ +@one +{10 * MIB} +{4 * MIB} +- +{64 * KIB}$")
        table = self.godwit(0, "capacity", f"rbd:{pool}", "--fast").stdout
        self.assertRegex(table, rf"(?m)^{spec_} +10\.0 MiB +8\.0 MiB$")
        self.assertNotIn("ALLOCATED", table)

    def test_sums_by_namespace(self):
        pool = self.shared_pool()
        namespace = self.namespace(pool)
        self.volume(pool).fill(0, BLOCK)
        for _ in range(2):
            self.volume(pool, namespace=namespace).fill(0, BLOCK)
        table = self.godwit(0, "capacity", f"rbd:{pool}").stdout
        self.assertRegex(table, rf"(?m)^{pool}: 1 image +16\.0 MiB +4\.0 MiB +4\.0 KiB +0 B$")
        self.assertRegex(table, rf"(?m)^{pool}/{namespace}: 2 images +32\.0 MiB +8\.0 MiB +8\.0 KiB +0 B$")
        self.assertRegex(table, r"(?m)^in all: 3 images +48\.0 MiB +12\.0 MiB +12\.0 KiB +0 B$")

    def test_a_terminal(self):
        """No line is wider than it, and a name that is too long for it is cut in the middle."""
        pool = self.pool("capacity")
        cluster().tool("ceph", "osd", "pool", "set-quota", pool, "max_bytes", str(100 * GIB))
        long = self.volume(pool, 3 << 40, name="begin-" + "long-" * 30 + "end")
        long.fill(0, BLOCK)
        long.snap("first-" + "very-" * 30 + "last", protect=True)
        self.target(pool).clone_of(long, long.snapshots[0])
        self.volume(pool, data_pool=self.erasure_coded_pool()).fill(0, 5000)
        self.volume(pool, name="日本語" * 15 + secrets.token_hex(2)).fill(0, BLOCK)
        lost = self.volume(pool, MIB, features=("layering",), name="lost-" + "header-" * 12 + secrets.token_hex(2))
        lost.ioctx.remove_object(f"rbd_header.{lost.id}")
        self.addCleanup(rbd.RBD().remove, lost.ioctx, lost.name)
        command = [setting("GODWIT"), "capacity", f"rbd:{pool}", "--snapshots", "--progress", "none"]
        for width in (80, 120):
            shown, status = on_terminal(command, columns=width)
            self.assertEqual(status, 75)
            lines = shown.replace("\r\n", "\n").splitlines()
            self.assertEqual([line for line in lines if columns(line) > width], [], f"wider than {width} columns")
            start_, end = pool[:6], "end"
            self.assertTrue(any(re.match(rf"{start_}.*….*{end} +3\.0 TiB", line) for line in lines), shown)
            self.assertTrue(any(re.match(r"  @first-.*….*last +3\.0 TiB", line) for line in lines), shown)
        piped = self.godwit(75, *command[1:]).stdout
        self.assertIn(long.spec, piped)

    def test_names_do_not_reach_the_terminal_as_commands(self):
        """What a name holds besides letters breaks no line and moves no cursor."""
        pool = self.shared_pool()
        for name in ("new\nline", "escape\x1b[2J", "return\rto"):
            self.volume(pool, MIB, name=f"{name}-{secrets.token_hex(2)}", features=())
        table = self.godwit(0, "capacity", f"rbd:{pool}", "--progress", "none").stdout
        self.assertEqual([c for c in table if unicodedata.category(c) == "Cc" and c != "\n"], [])
        self.assertEqual(len(re.findall(rf"(?m)^{pool}/.* 1\.0 MiB .*$", table)), 3, table)

    def test_progress(self):
        """It goes to stderr, so that what is measured stays alone on stdout."""
        volume = self.volume(size=12 * GIB, features=("layering",))
        volume.fill(0, BLOCK)
        result = self.godwit(
            0, "capacity", volume.address, "--format", "json", "--progress", "bar", "--parallel", "1")
        self.assertEqual(result.json["totals"]["allocatedBytes"], BLOCK)
        self.assertRegex(result.stderr, "measuring +[01] of 1 image")
        self.assertEqual(self.godwit(0, "capacity", volume.address, "--progress", "none").stderr, "")

    def test_again_and_again(self):
        """--watch measures anew until it is interrupted."""
        volume = self.volume()
        volume.fill(0, BLOCK)
        watching = start("capacity", volume.address, "--watch", "0.2", "--format", "json", "--progress", "none")
        self.addCleanup(lambda: watching.has_ended or watching.kill())

        def allocated():
            self.assertFalse(watching.has_ended, "it ended")
            return [document["totals"]["allocatedBytes"] for document in documents(watching.text(0))]

        self.wait_until(lambda: len(allocated()) >= 2)
        volume.fill(0, 8 * BLOCK)
        self.wait_until(lambda: allocated()[-1] == 8 * BLOCK)
        watching.send(signal.SIGINT)
        result = watching.wait(5)
        self.assertIn(result.rc, (0, -signal.SIGINT, 128 + signal.SIGINT), result)
        self.assertEqual(result.stderr, "")

    def test_again_and_again_on_a_terminal(self):
        """The table is drawn where the last one was; Ctrl-C ends it."""
        volume = self.volume()
        volume.fill(0, BLOCK)
        shown, status = on_terminal(
            [setting("GODWIT"), "capacity", volume.address, "--watch", "0.2"],
            [(r"(?s)\x1b\[H.*in all: 1 image.*\x1b\[H.*in all: 1 image", b"\x03")])
        self.assertIn(status, (0, -signal.SIGINT, 128 + signal.SIGINT))
