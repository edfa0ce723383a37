"""What belongs to an image besides its bytes: carried, or else listed, by the report and by --dry-run."""

import rbd

from harness import KIB, MIB, STANDARD, ClusterTest, cluster, noise
from writers import Client

TIMESTAMPS = "timestamps of creation, access and snapshots"


class Metadata(ClusterTest):
    def carried(self, pairs, **layout):
        source = self.volume(size=4 * MIB, **layout)
        with source:
            source.fill(0, 64 * KIB)
            for key, value in pairs.items():
                source.set_metadata(key, value)
        target = self.target()
        self.move_and_compare(source, target, "--verify")
        self.assertEqual(target.metadata, pairs)
        return target

    def test_pairs(self):
        self.carried({
            "key": "value", "owner": "Jürgen 🦤", "ключ": "значение", "with space": " spaces ", "a=b:c/d@e": "x=y",
            "lines": "one\ntwo\n", "quotes": "'\"`\\", "caf\u00e9": "1", "cafe\u0301": "2"})

    def test_an_empty_value(self):
        self.carried({"empty": "", "full": "x"})

    def test_more_pairs_than_librbd_lists_at_once(self):
        self.carried({f"key {index:03}": f"value {index}" * (index % 7) for index in range(150)})

    def test_long_values(self):
        self.carried({"long": "ä" * 50_000, "longer": "x" * 300_000, "short": "y"})

    def test_a_value_that_is_no_text(self):
        source = self.volume(size=MIB)
        cluster().tool("rbd", "image-meta", "set", source.spec, "binary", b"\xff\xfe raw \x80")
        target = self.target()
        self.move(source, target)
        self.assertEqual(target.metadata, {"binary": "\udcff\udcfe raw \udc80"})

    def test_configuration_of_the_image(self):
        target = self.carried({
            "conf_rbd_qos_write_bps_limit": "4194304", "conf_rbd_cache": "false", "conf_rbd_qos_iops_limit": "100"})
        shown = cluster().tool("rbd", "config", "image", "get", target.spec, "rbd_qos_write_bps_limit").stdout
        self.assertEqual(shown.strip(), "4194304")

    def test_a_limit_on_the_image_does_not_slow_its_move(self):
        """It is for the guest, not for Godwit."""
        source = self.volume(size=32 * MIB)
        source.fill(0, 32 * MIB)
        for key in ("conf_rbd_qos_bps_limit", "conf_rbd_qos_write_bps_limit", "conf_rbd_qos_read_bps_limit"):
            source.set_metadata(key, str(MIB))
        target = self.target()
        report = self.move(source, target, "--verify")
        self.assertLess(report["seconds"], 15)
        self.assertEqual(target.metadata, source.metadata)

    def test_keys_that_look_like_godwits_own(self):
        self.carried({"godwit": "a", "godwits": "b", "Godwit.record": "c"})


class Journaling(ClusterTest):
    FEATURES = (*STANDARD, "journaling")

    def test_a_journaled_image(self):
        source = self.volume(size=12 * MIB, features=self.FEATURES)
        with source:
            for index in range(4):
                source.fill(index * 2 * MIB, 3 * MIB, seed=index)
                source.snap(f"s{index}")
            source.discard(4 * MIB, 4 * MIB)
        target = self.target()
        self.move_and_compare(source, target, "--verify")
        self.assertEqual(target.features, set(self.FEATURES))
        # The target's journal works.
        target.fill(0, 64 * KIB, seed=9)
        self.assertEqual(target.read(0, 64 * KIB), noise(64 * KIB, 9))

    def test_a_journaled_image_whose_writer_was_killed(self):
        """What is in the journal alone is replayed, as any other client's opening would."""
        source = self.volume(size=12 * MIB, features=self.FEATURES)
        source.fill(0, 12 * MIB, seed=1)
        writer = Client(
            self, source, "opened.write(b'A' * 65536, 0); [opened.aio_write(b'B' * 65536, n << 18, lambda c: None) for n in range(40)]")
        writer.evict()
        target = self.target()
        report = self.move(source, target)
        self.assertEqual(report["outcome"], "moved")
        self.assertEqual(target.read(0, 4), source.read(0, 4))
        self.assert_same(source, target)
        self.assert_left_alone(source)
        self.assert_left_alone(target)
        self.assert_object_map_right(target)


class Encryption(ClusterTest):
    def test_an_encrypted_image_stays_so(self):
        """Its bytes are carried as they are: no key is needed, and the same one opens the target."""
        source = self.volume(size=24 * MIB)
        with source.writable() as image:
            image.encryption_format(rbd.RBD_ENCRYPTION_FORMAT_LUKS1, "secret", rbd.RBD_ENCRYPTION_ALGORITHM_AES256)
            image.write(noise(64 * KIB, 3), MIB)
        source.snap("one")
        target = self.target()
        self.move_and_compare(source, target, "--verify")
        with target.writable() as image:
            image.encryption_load(rbd.RBD_ENCRYPTION_FORMAT_LUKS1, "secret")
            self.assertEqual(image.read(MIB, 64 * KIB), noise(64 * KIB, 3))


class Listed(ClusterTest):
    """What can't be carried is never dropped silently."""

    def listed(self, source, *, changed=()):
        """What the dry run and the report say; they have to say the same, in text as in JSON."""
        target = self.target()
        plan = self.godwit(0, "migrate", "--dry-run", "--json", source.address, target.address).json
        text = self.godwit(0, "migrate", "--dry-run", source.address, target.address).stdout
        report = self.move(source, target)
        self.assertEqual(plan["notCarried"], report["notCarried"])
        self.assertEqual(plan["changed"], report["changed"])
        self.assertEqual(report["changed"], list(changed))
        for item in report["notCarried"]:
            self.assertIn(f"not carried: {item}", text)
        self.assert_same(source, target)
        self.assert_left_alone(source)
        self.assert_left_alone(target)
        self.assertIn(TIMESTAMPS, report["notCarried"])
        return [item for item in report["notCarried"] if item != TIMESTAMPS], target

    def written(self, pool="fast", **layout):
        source = self.volume(pool, 8 * MIB, **layout)
        with source:
            source.fill(0, MIB, seed=1)
            source.snap("one")
            source.fill(MIB // 2, MIB, seed=2)
        return source

    def test_nothing_but_timestamps(self):
        self.assertEqual(self.listed(self.written())[0], [])

    def group(self, *members):
        name = f"group-{members[0].name}"
        ioctx = members[0].ioctx
        rbd.RBD().group_create(ioctx, name)
        group = rbd.Group(ioctx, name)
        for member in members:
            group.add_image(ioctx, member.name)
        self.addCleanup(rbd.RBD().group_remove, ioctx, name)
        return group, name

    def test_membership_of_a_group(self):
        source = self.written()
        _, name = self.group(source)
        listed, _ = self.listed(source)
        self.assertEqual(listed, [f"membership of the group {name}"])

    def test_snapshots_of_a_group(self):
        source = self.written()
        group, name = self.group(source)
        group.create_snap("together")
        self.addCleanup(group.remove_snap, "together")
        source.fill(2 * MIB, MIB, seed=3)
        group.create_snap("again")
        self.addCleanup(group.remove_snap, "again")
        source.fill(3 * MIB, MIB, seed=4)
        source.snap("two")
        listed, target = self.listed(source)
        self.assertEqual(sorted(listed), ["2 group snapshots", f"membership of the group {name}"])
        self.assertEqual(target.snapshots, ["one", "two"])
        with target.open() as image:
            self.assertEqual(len(list(image.list_snaps())), 2)

    def test_snapshots_in_the_trash(self):
        """A snapshot that was removed while a clone of format 2 hung on it."""
        source = self.written()
        clone = self.clone(source, "one")
        with source:
            source.fill(2 * MIB, MIB, seed=3)
            source.remove_snap("one")
            source.snap("two")
        self.assertIn(rbd.RBD_SNAP_NAMESPACE_TYPE_TRASH, [s["namespace"] for s in source.all_snapshots()])
        before = clone.states()
        listed, target = self.listed(source)
        self.assertEqual(listed[0], "1 trash snapshot")
        self.assertEqual(target.snapshots, ["two"])
        self.assertEqual(clone.states(), before)

    def test_clones_of_the_image(self):
        source = self.written()
        self.clone(source, "one")
        listed, _ = self.listed(source)
        self.assertEqual(listed, ["clones made from snapshots of this image stay its own"])

    def test_clones_of_format_1(self):
        source = self.written()
        with source.writable() as image:
            image.protect_snap("one")
        child = self.target("fast")
        cluster().tool("rbd", "clone", "--rbd-default-clone-format", "1", source.spec + "@one", child.spec)
        listed, _ = self.listed(source)
        self.assertEqual(listed, ["clones made from snapshots of this image stay its own"])

    def test_mirroring(self):
        pool = self.pool("mirrored")
        cluster().tool("rbd", "mirror", "pool", "enable", pool, "image")
        source = self.written(pool)
        cluster().tool("rbd", "mirror", "image", "enable", source.spec, "snapshot")
        self.addCleanup(cluster().tool, "rbd", "mirror", "image", "disable", "--force", source.spec)
        source.fill(2 * MIB, MIB, seed=3)
        listed, target = self.listed(source)
        self.assertEqual(listed, ["1 mirror snapshot", "the mirroring state"])
        self.assertEqual(target.snapshots, ["one"])
        with target.open() as image:
            self.assertEqual(image.mirror_image_get_info()["state"], rbd.RBD_MIRROR_IMAGE_DISABLED)

    def test_mirroring_by_a_journal(self):
        pool = self.pool("mirrored")
        cluster().tool("rbd", "mirror", "pool", "enable", pool, "image")
        source = self.written(pool, features=(*STANDARD, "journaling"))
        cluster().tool("rbd", "mirror", "image", "enable", source.spec, "journal")
        self.addCleanup(cluster().tool, "rbd", "mirror", "image", "disable", "--force", source.spec)
        listed, target = self.listed(source)
        self.assertEqual(listed, ["the mirroring state"])
        self.assertIn("journaling", target.features)

    def test_a_limit_of_snapshots(self):
        source = self.written()
        with source.writable() as image:
            image.set_snap_limit(5)
        target = self.target()
        report = self.move(source, target)
        with target.open() as image:
            carried = image.get_snap_limit() == 5
        self.assertTrue(carried or any("limit" in item for item in report["notCarried"]), report["notCarried"])

    def test_a_limit_of_snapshots_that_is_reached(self):
        """Godwit needs one more, for a while: it says what stands against that, and leaves nothing."""
        source = self.written()
        with source.writable() as image:
            image.set_snap_limit(1)
        target = self.target()
        result = self.godwit(75, "migrate", source.address, target.address)
        self.assertRegex(result.stderr, "quota|limit")
        self.assert_left_alone(source)
        with source.writable() as image:
            image.remove_snap_limit()
        self.move_and_compare(source, target)


class OldFormat(ClusterTest):
    def test_an_image_of_format_1(self):
        """Which librbd makes no more, but serves: its target is of format 2."""
        source = self.target("fast")
        cluster().tool(
            "rbd", "create", "--image-format", "1", "--size", "8M", source.spec, env={"RBD_FORCE_ALLOW_V1": "1"})
        with source:
            source.fill(0, 5 * MIB, seed=1)
            source.snap("one")
            source.discard(MIB, MIB)
            source.fill(6 * MIB, 4 * KIB, seed=2)
        target = self.target()
        states = source.states()
        report = self.move(source, target, "--verify")
        self.assertTrue(report["verified"])
        self.assert_same(source, target, states)
        self.assertEqual(source.states(), states)
        self.assert_left_alone(target)
        self.assertIn("format", " ".join(report["changed"]))
