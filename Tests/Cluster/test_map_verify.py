"""'godwit map' against a model, librbd's own diff and the bytes; 'godwit verify' against differences planted by hand."""

import json

from harness import KIB, MIB, ClusterTest
from writers import Client


def merged(extents):
    """Sorted, with neighbours joined: the same bytes are then the same list."""
    result = []
    for offset, length in sorted(extents):
        if result and offset <= sum(result[-1]):
            start = result[-1][0]
            result[-1] = (start, max(sum(result[-1]), offset + length) - start)
        elif length:
            result.append((offset, length))
    return result


def rounded(extents, unit=4 * KIB):
    """Grown to whole blocks, as an OSD allocates them."""
    return merged((offset // unit * unit, -(-(offset + length) // unit) * unit - offset // unit * unit) for offset, length in extents)


class MapTest(ClusterTest):
    def map(self, volume, *options, snapshot=None):
        """The map as {type: extents}, after its form was checked; the text and the JSON say the same."""
        address = volume.address + (f"@{snapshot}" if snapshot else "")
        lines = self.godwit(0, "map", address, "--json", *options).json
        for line in lines:
            self.assertEqual(list(line), ["offset", "length", "type", "description"])
        text = self.godwit(0, "map", address, *options).stdout
        self.assertEqual(
            [line.split(None, 3) for line in text.splitlines()],
            [[str(line[key]) for key in ("offset", "length", "type", "description")] for line in lines])
        extents = [(line["offset"], line["length"]) for line in lines]
        self.assertEqual(extents, sorted(extents))
        for one, other in zip(extents, extents[1:]):
            self.assertLessEqual(sum(one), other[0], "extents overlap")
        for one, other in zip(lines, lines[1:]):
            joins = one["offset"] + one["length"] == other["offset"] and one["type"] == other["type"]
            self.assertFalse(joins, "neighbours of one type are one extent")
        size = volume.digests(snapshot)[0]
        if "--from-snap" not in options:
            self.assertEqual(merged(extents), [(0, size)] if size else [], "all of the volume is either data or a hole")
        self.assertTrue(all(length > 0 and offset + length <= size for offset, length in extents))
        kinds = {(line["type"], line["description"]) for line in lines}
        self.assertLessEqual(kinds, {(0, "data"), (3, "zero" if "--from-snap" in options else "hole,zero")})
        return {kind: [(line["offset"], line["length"]) for line in lines if line["type"] == kind] for kind in (0, 3)}

    def librbd_diff(self, volume, base, snapshot=None):
        """What 'rbd diff' says of the same question, as {exists: extents}."""
        options = ["--pool", volume.pool, "--image", volume.name, "--from-snap", base, "--format", "json"]
        options += ["--snap", snapshot] if snapshot else []
        found = json.loads(volume.cluster.tool("rbd", "diff", *options).stdout)
        return {kind: merged((int(e["offset"]), int(e["length"])) for e in found if e["exists"] == word)
                for kind, word in ((0, "true"), (3, "false"))}

    def differing(self, volume, base, snapshot=None):
        """Blocks of 512 bytes that differ between two states, by librbd's reads."""
        with volume.open(base) as one, volume.open(snapshot) as other:
            sizes = one.size(), other.size()
            left, right = one.read(0, sizes[0]).ljust(sizes[1], b"\0"), other.read(0, sizes[1])
        return merged((start, 512) for start in range(0, sizes[1], 512) if left[start:start + 512] != right[start:start + 512])

    def assert_covers(self, outer, inner):
        """Every byte of `inner` is in `outer`."""
        self.assertEqual(merged([*outer, *inner]), merged(outer))

    def assert_change_right(self, volume, base, snapshot=None):
        """Whatever differs is in the map; and it is what librbd says, or less."""
        found = self.map(volume, "--from-snap", base, snapshot=snapshot)
        everything = merged(found[0] + found[3])
        self.assert_covers(everything, self.differing(volume, base, snapshot))
        known = self.librbd_diff(volume, base, snapshot)
        self.assert_covers(merged(known[0] + known[3]), everything)
        self.assert_covers(known[0], found[0])
        return found


class Map(MapTest):
    def test_data_and_holes(self):
        volume = self.volume(size=24 * MIB)
        written = [(0, 8 * KIB), (64 * KIB, 4 * KIB), (4 * MIB - 4 * KIB, 8 * KIB), (9 * MIB, 2 * MIB), (24 * MIB - 4 * KIB, 4 * KIB)]
        with volume:
            for offset, length in written:
                volume.fill(offset, length, seed=offset)
        self.assertEqual(self.map(volume)[0], written)

    def test_writes_that_are_not_aligned(self):
        volume = self.volume(size=8 * MIB)
        written = [(512, 512), (10 * KIB + 1, 5000), (MIB - 1, 1), (3 * MIB + 77, 100 * KIB), (8 * MIB - 1, 1)]
        with volume:
            for offset, length in written:
                volume.fill(offset, length, seed=offset)
        found = self.map(volume)[0]
        self.assert_covers(found, written)
        self.assert_covers(rounded(written), found)

    def test_discards_and_zeros(self):
        volume = self.volume(size=16 * MIB)
        with volume:
            volume.fill(0, 16 * MIB, seed=1)
            volume.discard(64 * KIB, 128 * KIB)
            volume.zero(MIB, 8 * KIB)
            volume.discard(4 * MIB, 4 * MIB)
            volume.resize(15 * MIB + 4 * KIB)
        self.assertEqual(
            self.map(volume)[3], [(64 * KIB, 128 * KIB), (MIB, 8 * KIB), (4 * MIB, 4 * MIB)])

    def test_nothing_at_all(self):
        self.assertEqual(self.map(self.volume(size=8 * MIB)), {0: [], 3: [(0, 8 * MIB)]})
        self.assertEqual(self.map(self.volume(size=0)), {0: [], 3: []})

    def test_a_large_volume(self):
        volume = self.volume(size=1 << 40)
        with volume:
            volume.fill(0, 4 * KIB)
            volume.fill(1 << 39, 4 * KIB)
        result = self.godwit(0, "map", volume.address, "--json")
        self.assertEqual([(e["offset"], e["length"]) for e in result.json if e["type"] == 0], [(0, 4 * KIB), (1 << 39, 4 * KIB)])
        self.assertLess(result.seconds, 10)

    def test_snapshots(self):
        volume = self.volume(size=8 * MIB)
        with volume:
            volume.fill(0, 64 * KIB, seed=1)
            volume.snap("one")
            volume.fill(MIB, 64 * KIB, seed=2)
            volume.snap("two")
            volume.discard(0, 64 * KIB)
            volume.resize(12 * MIB)
        self.assertEqual(self.map(volume, snapshot="one")[0], [(0, 64 * KIB)])
        self.assertEqual(self.map(volume, snapshot="two")[0], [(0, 64 * KIB), (MIB, 64 * KIB)])
        self.assertEqual(self.map(volume)[0], [(MIB, 64 * KIB)])
        self.assertEqual(sum(length for _, length in self.map(volume, snapshot="one")[3]), 8 * MIB - 64 * KIB)

    def test_any_layout(self):
        written = [(0, 8 * KIB), (300 * KIB, 200 * KIB), (5 * MIB - 4 * KIB, 8 * KIB)]
        for layout in (
                {"order": 16}, {"order": 25}, {"stripe_unit": 64 * KIB, "stripe_count": 3, "order": 20},
                {"features": ("layering",)}, {"features": ()}, {"data_pool": "slow"}):
            with self.subTest(layout):
                volume = self.volume(size=8 * MIB, **layout)
                with volume:
                    for offset, length in written:
                        volume.fill(offset, length, seed=offset)
                self.assertEqual(self.map(volume)[0], written)

    def test_an_erasure_coded_pool(self):
        """It can't tell extents: what librbd says has to do, which is more than what was written, never less."""
        volume = self.volume(size=8 * MIB, data_pool=self.erasure_coded_pool())
        written = [(0, 8 * KIB), (4 * MIB, 8 * KIB)]
        with volume:
            for offset, length in written:
                volume.fill(offset, length, seed=offset)
            volume.snap("one")
            volume.fill(MIB, 4 * KIB)
        self.assert_covers(self.map(volume, snapshot="one")[0], written)
        self.assert_change_right(volume, "one")

    def test_a_clone(self):
        parent = self.volume(size=8 * MIB)
        with parent:
            parent.fill(0, MIB, seed=1)
            parent.snap("base", protect=True)
        clone = self.clone(parent, "base")
        clone.fill(4 * MIB, 64 * KIB, seed=2)
        found = self.map(clone)[0]
        self.assert_covers(found, [(0, MIB), (4 * MIB, 64 * KIB)])
        self.assert_covers([(0, MIB), (4 * MIB, 64 * KIB)], found)


class Changes(MapTest):
    def test_writes_discards_and_zeros(self):
        volume = self.volume(size=16 * MIB)
        with volume:
            volume.fill(0, 12 * MIB, seed=1)
            volume.snap("one")
            volume.fill(64 * KIB, 8 * KIB, seed=2)
            volume.fill(4 * MIB - 4 * KIB, 8 * KIB, seed=3)
            volume.discard(8 * MIB, 4 * MIB)
            volume.zero(MIB, 64 * KIB)
            volume.fill(13 * MIB, 4 * KIB, seed=4)
        found = self.assert_change_right(volume, "one")
        self.assertEqual(found[0], [(64 * KIB, 8 * KIB), (4 * MIB - 4 * KIB, 8 * KIB), (13 * MIB, 4 * KIB)])
        self.assertEqual(found[3], [(MIB, 64 * KIB), (8 * MIB, 4 * MIB)])

    def test_between_any_two_states(self):
        volume = self.volume(size=12 * MIB)
        with volume:
            for index in range(5):
                volume.fill(index * 700 * KIB, 100 * KIB + index * 512, seed=index)
                volume.discard((4 - index) * 2 * MIB, MIB)
                volume.snap(f"s{index}")
            volume.remove_snap("s2")
            volume.fill(MIB, 4 * KIB, seed=9)
        states = ["s0", "s1", "s3", "s4", None]
        for older, base in enumerate(states[:-1]):
            for snapshot in states[older + 1:]:
                with self.subTest(base=base, snapshot=snapshot):
                    self.assert_change_right(volume, base, snapshot)

    def test_growth_and_shrinking(self):
        volume = self.volume(size=8 * MIB)
        with volume:
            volume.fill(0, 8 * MIB, seed=1)
            volume.snap("large")
            volume.resize(3 * MIB + 512)
            volume.snap("small")
            volume.resize(10 * MIB)
            volume.fill(9 * MIB, 4 * KIB, seed=2)
        self.assert_change_right(volume, "large", "small")
        self.assert_change_right(volume, "small")
        self.assert_change_right(volume, "large")

    def test_nothing_changed(self):
        volume = self.volume(size=8 * MIB)
        with volume:
            volume.fill(0, MIB)
            volume.snap("one")
            volume.snap("two")
        self.assertEqual(self.map(volume, "--from-snap", "one", snapshot="two"), {0: [], 3: []})
        self.assertEqual(self.map(volume, "--from-snap", "two"), {0: [], 3: []})
        self.assertEqual(self.map(volume, "--from-snap", "two", snapshot="two"), {0: [], 3: []})

    def test_a_base_that_is_newer(self):
        volume = self.volume(size=8 * MIB)
        with volume:
            volume.snap("one")
            volume.fill(0, MIB)
            volume.snap("two")
        result = self.godwit(64, "map", volume.address + "@one", "--from-snap", "two")
        self.assertEqual(result.stdout, "")
        self.assertRegex(result.stderr, "two.*(newer|later|older|before)")

    def test_stripes_and_features(self):
        for layout in ({"stripe_unit": 64 * KIB, "stripe_count": 3, "order": 20}, {"features": ("layering",)}, {"order": 16}):
            with self.subTest(layout):
                volume = self.volume(size=8 * MIB, **layout)
                with volume:
                    volume.fill(0, 4 * MIB, seed=1)
                    volume.snap("one")
                    volume.fill(700 * KIB, 300 * KIB, seed=2)
                    volume.discard(2 * MIB, 512 * KIB)
                self.assert_change_right(volume, "one")

    def test_a_clone(self):
        parent = self.volume(size=8 * MIB)
        with parent:
            parent.fill(0, 6 * MIB, seed=1)
            parent.snap("base", protect=True)
        clone = self.clone(parent, "base")
        with clone:
            clone.snap("one")
            clone.fill(MIB, 64 * KIB, seed=2)
            clone.discard(4 * MIB, MIB)
            clone.snap("two")
            clone.resize(2 * MIB)
            clone.resize(8 * MIB)
        for base, snapshot in (("one", "two"), ("two", None), ("one", None)):
            found = self.map(clone, "--from-snap", base, snapshot=snapshot)
            self.assert_covers(found[0] + found[3], self.differing(clone, base, snapshot))


class Verify(ClusterTest):
    @staticmethod
    def same(volume):
        """Gives a volume the two snapshots and the bytes that all have here; without Godwit."""
        with volume:
            volume.fill(0, 5 * MIB, seed=1)
            volume.snap("one")
            volume.fill(6 * MIB, MIB, seed=2)
            volume.snap("two")
            volume.fill(MIB, 64 * KIB, seed=3)
        return volume

    def pair(self, **layout):
        return self.same(self.volume("fast", 12 * MIB, **layout)), self.same(self.volume("slow", 12 * MIB, **layout))

    def equal(self, source, target):
        self.assertEqual(self.godwit(0, "verify", source.address, target.address, "--json").json, [])
        self.assertIn("equal", self.godwit(0, "verify", source.address, target.address).stdout)

    def differences(self, source, target):
        """What verify finds, both ways round and as text: (snapshot, offset, length, description)."""
        found = self.godwit(65, "verify", source.address, target.address, "--json").json
        mirrored = self.godwit(65, "verify", target.address, source.address, "--json").json
        keys = ("snapshot", "offset", "length")
        self.assertEqual(
            sorted(([d.get(key) for key in keys] for d in found), key=str), sorted(([d.get(key) for key in keys] for d in mirrored), key=str))
        text = self.godwit(65, "verify", source.address, target.address).stdout
        self.assertEqual(text.splitlines(), [difference["description"] for difference in found])
        return [(d.get("snapshot"), d.get("offset"), d.get("length"), d["description"]) for d in found]

    def plant(self, volume, offset, byte=None):
        """Changes a byte in the object that holds it, past librbd; the image has no stripes."""
        with volume.open() as image:
            order, prefix = image.stat()["order"], image.block_name_prefix()
        name, place = f"{prefix}.{offset >> order:016x}", offset & (1 << order) - 1
        ioctx = volume.data_ioctx()
        old = ioctx.read(name, 1, place)
        ioctx.write(name, bytes([(old[0] if old else 0) ^ 0xff]) if byte is None else byte, place)

    def test_equal_volumes(self):
        self.equal(*self.pair())

    def test_a_hole_equals_zeros(self):
        source, target = self.pair()
        target.write_zeros(8 * MIB, MIB)
        source.write_zeros(9 * MIB - 512, 512)
        self.equal(source, target)

    def test_a_byte_of_the_head(self):
        """Wherever it is: at the ends of the volume, of objects, of blocks and of chunks that the OSDs hash."""
        source, target = self.pair()
        for offset in (0, 4095, 4096, 777777, MIB + 5, 4 * MIB - 1, 4 * MIB, 7 * MIB - 1, 7 * MIB, 12 * MIB - 1):
            with self.subTest(offset=offset):
                # A change of bytes that the snapshots share would be theirs as well: first a version of its own.
                target.write(offset, source.read(offset, 1))
                self.plant(target, offset)
                found = self.godwit(65, "verify", source.address, target.address, "--json").json
                self.assertEqual(
                    found, [{"description": f"head: differs first at bytes {offset} to {offset}", "offset": offset, "length": 1}])
                target.write(offset, source.read(offset, 1))
        self.equal(source, target)

    def test_a_byte_of_a_snapshot(self):
        source, target = self.pair()
        offset = 2 * MIB + 12345
        # Written without librbd's snapshot context, so that it is in the snapshots as well; then the head is put right.
        twin = self.volume("slow", 12 * MIB)
        with twin:
            twin.fill(0, 5 * MIB, seed=1)
            twin.snap("one")
        self.plant(twin, offset)
        with twin:
            twin.write(offset, source.read(offset, 1))
            twin.fill(6 * MIB, MIB, seed=2)
            twin.snap("two")
            twin.fill(MIB, 64 * KIB, seed=3)
        self.assertEqual(
            self.differences(source, twin), [("one", offset, 1, f"snapshot one: differs first at bytes {offset} to {offset}")])
        self.assertEqual(self.differences(target, twin), self.differences(source, twin))

    def test_a_byte_of_all_states(self):
        source, target = self.pair()
        self.plant(target, 3 * MIB)  # its object was not written since the snapshots... but for its first MiB
        found = self.differences(source, target)
        self.assertTrue(found)
        self.assertTrue(all(offset == 3 * MIB and length == 1 for _, offset, length, _ in found), found)

    def test_the_first_range_is_named(self):
        source, target = self.pair()
        with target:
            target.write(5 * MIB, b"?" * 700)
            target.write(9 * MIB, b"?" * 5)
        self.assertEqual(
            self.differences(source, target),
            [(None, 5 * MIB, 700, f"head: differs first at bytes {5 * MIB} to {5 * MIB + 699}")])

    def test_an_object_that_is_gone(self):
        source, target = self.pair()
        target.fill(8 * MIB, MIB, seed=5)
        source.fill(8 * MIB, MIB, seed=5)
        target.ioctx.remove_object(target.objects()[-1])
        (snapshot, offset, _, _), = self.differences(source, target)
        self.assertEqual((snapshot, offset), (None, 8 * MIB))

    def test_data_where_there_should_be_none(self):
        source, target = self.pair()
        target.write(11 * MIB, b"x")
        self.assertEqual(self.differences(source, target)[0][:3], (None, 11 * MIB, 1))

    def test_by_reading_where_objects_can_not_be_compared(self):
        """Stripes of another kind, another object size, an erasure-coded pool, other features."""
        source, _ = self.pair()
        for layout in (
                {"stripe_unit": 64 * KIB, "stripe_count": 3}, {"order": 20}, {"data_pool": self.erasure_coded_pool()},
                {"features": ("layering",)}):
            with self.subTest(layout):
                target = self.same(self.volume("slow", 12 * MIB, **layout))
                self.assertEqual(self.godwit(0, "verify", source.address, target.address, "--json").json, [])
                target.write(4 * MIB + 4321, b"??")
                found, = self.godwit(65, "verify", source.address, target.address, "--json").json
                self.assertEqual((found["offset"], found["length"]), (4 * MIB + 4321, 2))

    def test_stripes_of_the_same_kind(self):
        source, target = self.pair(order=20, stripe_unit=64 * KIB, stripe_count=3)
        self.equal(source, target)
        target.write(4 * MIB + 4321, b"??")
        self.assertEqual(self.differences(source, target)[0][:3], (None, 4 * MIB + 4321, 2))

    def test_a_snapshot_that_one_side_lacks(self):
        source, target = self.pair()
        target.remove_snap("one")
        (snapshot, _, _, description), = self.differences(source, target)
        self.assertEqual(snapshot, "one")
        self.assertIn("missing at " + target.address, self.differences(source, target)[0][3])
        self.assertIn("missing at " + target.address, self.differences(target, source)[0][3])

    def test_snapshots_in_another_order(self):
        volumes = self.volume(size=MIB), self.volume(size=MIB)
        for volume, names in zip(volumes, ("ab", "ba")):
            for name in names:
                volume.snap(name)
        self.assertIn("order", self.differences(*volumes)[0][3])

    def test_protection(self):
        source, target = self.pair()
        with target.writable() as image:
            image.protect_snap("one")
        self.assertIn("protected", self.differences(source, target)[0][3])

    def test_sizes(self):
        source, target = self.pair()
        target.resize(12 * MIB + 512)
        (snapshot, _, _, description), = self.differences(source, target)
        self.assertIsNone(snapshot)
        self.assertIn(f"{12 * MIB} bytes at {source.address}", description)
        self.assertIn(f"{12 * MIB + 512} at {target.address}", description)

    def test_the_size_of_a_snapshot(self):
        source, target = self.volume(size=4 * MIB), self.volume(size=2 * MIB)
        target.snap("one")
        target.resize(4 * MIB)
        source.snap("one")
        self.assertEqual([d[0] for d in self.differences(source, target)], ["one"])

    def test_several_differences(self):
        source, target = self.pair()
        with target:
            target.write(0, b"!")
            target.snap("three")
        found = self.differences(source, target)
        self.assertEqual(sorted(str(d[0]) for d in found), ["None", "three"])

    def test_a_planted_byte_keeps_a_move_from_ending_well(self):
        """'migrate --verify' of a sound move says so, and 'verify' afterwards finds what was done to it later."""
        source, target = self.volume(size=12 * MIB), self.target()
        source.fill(0, 5 * MIB, seed=1)
        self.move(source, target, "--verify")
        self.plant(target, 4 * MIB + 99)
        self.assertEqual(self.differences(source, target)[0][:3], (None, 4 * MIB + 99, 1))

    def test_while_a_client_has_them_open(self):
        source, target = self.pair()
        Client(self, source)
        self.equal(source, target)
