"""What stands against a move, and bad input: refused with the right status and words, before anything is made."""

import pathlib
import socket
import tempfile

from harness import KIB, MIB, STANDARD, ClusterTest, cluster, start
from writers import Client


class RefusalTest(ClusterTest):
    def written(self, size=8 * MIB, **options):
        volume = self.volume(size=size, **options)
        with volume:
            volume.fill(0, MIB, seed=1)
            volume.snap("one")
            volume.fill(MIB // 2, MIB, seed=2)
        return volume

    def everything(self, *volumes):
        """All that a refused command might have changed."""
        return {
            image.spec: image.portrait() if image.exists else None
            for volume in volumes for image in (volume, volume.unfinished)}

    def refused(self, rc, source, target, *options, says=(), env=None):
        """Both runs are refused alike: the real one says why, the dry one lists it as a blocker, and nothing changes."""
        before = self.everything(source, target)
        real = self.godwit(rc, "migrate", source.address, target.address, *options, env=env)
        dry = self.godwit(rc, "migrate", "--dry-run", source.address, target.address, *options, env=env)
        plan = self.godwit(rc, "migrate", "--dry-run", "--json", source.address, target.address, *options, env=env)
        self.assertEqual(real.stdout, "")
        blockers = plan.json["blockers"]
        self.assertTrue(blockers)
        for blocker in blockers:
            self.assertTrue(blocker["fact"] and blocker["remedy"], blocker)
            self.assertIn(blocker["fact"], real.stderr)
            self.assertIn(blocker["remedy"], real.stderr)
            self.assertIn(blocker["fact"], dry.stdout)
        for words in says:
            self.assertIn(words, real.stderr)
        self.assertEqual(self.everything(source, target), before)


class NotThere(RefusalTest):
    def missing(self, rc, *command, says):
        result = self.godwit(rc, *command)
        self.assertEqual(result.stdout, "")
        for words in says:
            self.assertIn(words, result.stderr)

    def test_no_such_source_pool(self):
        for command in (["map", "rbd:nopool/a"], ["migrate", "rbd:nopool/a", "rbd:slow/a"],
                        ["migrate", "--dry-run", "rbd:nopool/a", "rbd:slow/a"], ["verify", "rbd:nopool/a", "rbd:slow/a"]):
            self.missing(66, *command, says=["nopool", "No such file or directory", "ceph osd pool ls"])

    def test_no_such_source_image(self):
        for command in (["map", "rbd:fast/noimage"], ["migrate", "rbd:fast/noimage", "rbd:slow/a"],
                        ["migrate", "--dry-run", "rbd:fast/noimage", "rbd:slow/a"],
                        ["verify", "rbd:fast/noimage", "rbd:slow/a"]):
            self.missing(66, *command, says=["fast/noimage", "rbd_open", "No such file or directory"])
        self.assertNotIn("a.godwit-unfinished", [o.key for o in cluster().ioctx("slow").list_objects()])

    def test_no_such_namespace(self):
        self.missing(66, "map", "rbd:fast/nonamespace/a", says=["fast/nonamespace/a", "No such file or directory"])

    def test_no_such_snapshot(self):
        volume = self.written()
        self.missing(66, "map", volume.address + "@two", says=["two", "no such snapshot", "It has: one."])
        self.missing(66, "map", volume.address, "--from-snap", "two", says=["two", "no such snapshot", "It has: one."])

    def test_no_such_image_to_compare_with(self):
        volume = self.written()
        self.missing(66, "verify", volume.address, "rbd:slow/noimage", says=["slow/noimage"])

    def test_nothing_to_abort(self):
        self.missing(66, "abort", "rbd:slow/noimage", says=["slow/noimage", "nothing to abort"])

    def test_no_such_target_pool(self):
        source = self.written()
        before = source.portrait()
        for options in ([], ["--dry-run"]):
            self.missing(73, "migrate", *options, source.address, "rbd:nopool/a", says=["nopool", "ceph osd pool ls"])
        self.assert_unchanged(source, before)

    def test_no_such_target_namespace(self):
        source = self.written()
        before = source.portrait()
        self.missing(
            73, "migrate", source.address, "rbd:slow/nonamespace/a", says=["nonamespace", "rbd namespace create slow/nonamespace"])
        self.assert_unchanged(source, before)

    def test_no_such_data_pool(self):
        self.refused(73, self.written(), self.target(), "--data-pool", "nopool", says=["nopool", "--data-pool"])

    def test_no_such_configuration(self):
        source = self.written()
        for command in (["map", source.address + ":conf=/none.conf"], ["migrate", source.address + ":conf=/none.conf", "rbd:slow/a"],
                        ["migrate", source.address, "rbd:slow/a:conf=/none.conf"]):
            self.missing(69, *command, says=["/none.conf", "No such file or directory", ":conf="])

    def test_a_cluster_that_does_not_answer(self):
        """A dead monitor and one that is silent: within the limit of 20 s, not for ever."""
        source = self.written()
        before = source.portrait()
        silent = socket.socket()
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        commands = []
        for port in (9, silent.getsockname()[1]):
            conf = tempfile.NamedTemporaryFile("w", suffix=".conf")
            self.addCleanup(conf.close)
            keyring = pathlib.Path(source.cluster.conf).with_name("keyring")
            conf.write(f"[global]\nmon host = [v2:127.0.0.1:{port}]\nkeyring = {keyring}\n")
            conf.flush()
            away = f":conf={conf.name}"
            commands += [
                start("map", f"rbd:fast/a{away}"), start("migrate", source.address, f"rbd:slow/a{away}"),
                start("migrate", "--dry-run", f"rbd:fast/a{away}", "rbd:slow/a"),
                start("verify", source.address, f"rbd:slow/a{away}"), start("abort", f"rbd:slow/a{away}")]
        for running in commands:
            result = running.wait(45)
            self.assertEqual(result.rc, 69, result)
            for words in ("rados_connect", "timed out", ".conf"):
                self.assertIn(words, result.stderr)
        self.assert_unchanged(source, before)


class Usage(RefusalTest):
    def test_malformed_options(self):
        for options in (
                ["--granularity", "3K"], ["--granularity", "2K"], ["--granularity", "64M"], ["--granularity", "0"],
                ["--granularity", "some"], ["--granularity", "-4K"], ["--granularity", "64Q"], ["--granularity", "4 K"],
                ["--granularity", ""], ["--granularity", "99999999999999999999"], ["--granularity", "9999999T"],
                ["--bandwidth", "fast"], ["--bandwidth", "1.5M"], ["--bandwidth", "-1"], ["--in-flight", "4K"],
                ["--in-flight", "0"], ["--object-size", "3M"], ["--object-size", "2K"], ["--object-size", "64M"],
                ["--stripe-unit", "100"], ["--stripe-unit", "x"], ["--stripe-count", "0"], ["--stripe-count", "-1"],
                ["--stripe-count", "many"], ["--image-feature", "nonsense"], ["--image-feature", "layering,nonsense"],
                ["--snapshots", "some"], ["--progress", "fancy"], ["--nonsense"], ["third"]):
            with self.subTest(options):
                result = self.godwit(64, "migrate", "rbd:fast/a", "rbd:slow/a", *options, timeout=10)
                self.assertEqual(result.stdout, "")
                self.assertIn("Usage:", result.stderr)
                self.assertIn(options[0].removeprefix("--"), result.stderr)

    def test_missing_arguments(self):
        for command in (["migrate"], ["migrate", "rbd:fast/a"], ["verify", "rbd:fast/a"], ["map"], ["abort"], ["nonsense"],
                        ["map", "rbd:fast/a", "rbd:fast/b"], ["migrate", "rbd:fast/a", "rbd:slow/a", "--granularity"]):
            with self.subTest(command):
                self.assertEqual(self.godwit(64, *command, timeout=10).stdout, "")

    def test_source_and_target_are_the_same(self):
        volume = self.written()
        before = volume.portrait()
        for other in (
                volume.address, volume.address.replace("fast", "fas\\t"), volume.address + f":conf={volume.cluster.conf}",
                volume.address + ":id=admin"):
            for options in ([], ["--dry-run"]):
                result = self.godwit(64, "migrate", *options, volume.address, other)
                self.assertIn("the same", result.stderr)
        self.assert_unchanged(volume, before)
        self.assertFalse(volume.unfinished.exists)

    def test_source_and_target_are_the_same_within_a_namespace(self):
        volume = self.written(namespace=self.namespace("fast"))
        self.godwit(64, "migrate", volume.address, volume.address)
        # The same name elsewhere is another volume.
        self.move(volume, self.target("fast", name=volume.name))


class Layout(RefusalTest):
    def test_stripes_that_do_not_fit(self):
        for options in (["--stripe-unit", "8M", "--stripe-count", "2"], ["--stripe-unit", "3K", "--stripe-count", "2"],
                        ["--stripe-unit", "1536", "--stripe-count", "2"]):
            with self.subTest(options):
                self.refused(73, self.written(), self.target(), *options, says=["stripe", "--stripe-unit"])

    def test_features_that_need_others(self):
        for features, says in (("layering,object-map", "exclusive-lock"), ("layering,journaling", "exclusive-lock"),
                               ("layering,exclusive-lock,fast-diff", "object-map")):
            with self.subTest(features):
                self.refused(73, self.written(), self.target(), "--image-feature", features, says=[says, "--image-feature"])

    def test_a_protected_snapshot_needs_layering(self):
        source = self.written()
        source.snap("kept", protect=True)
        self.refused(73, source, self.target(), "--image-feature", "exclusive-lock", says=["kept", "layering"])


class Target(RefusalTest):
    def test_it_exists(self):
        source, target = self.written(), self.written(pool="slow")
        self.refused(73, source, target, says=[target.spec, "exists", "never overwrites"])

    def test_it_exists_and_is_the_sources_equal(self):
        source, target = self.written(), self.target()
        self.move(source, target)
        self.refused(73, source, target, says=[target.spec, "exists"])

    def test_somebody_elses_image_has_the_name_of_the_unfinished_one(self):
        source, target = self.written(), self.target()
        foreign = target.unfinished.create(8 * MIB)
        foreign.fill(MIB, MIB, seed=9)
        before = foreign.portrait()
        for command in (["migrate", source.address, target.address], ["migrate", "--dry-run", source.address, target.address],
                        ["abort", target.address]):
            result = self.godwit(73, *command)
            self.assertIn(target.spec, result.output)
            self.assert_unchanged(foreign, before)
        self.assertFalse(target.exists)

    def test_abort_leaves_other_images_alone(self):
        target = self.written(pool="slow")
        before = target.portrait()
        result = self.godwit(73, "abort", target.address)
        self.assertIn("no unfinished target", result.stderr)
        self.assert_unchanged(target, before)

    def test_abort_leaves_a_finished_target_alone(self):
        source, target = self.written(), self.target()
        self.move(source, target)
        before = target.portrait()
        self.godwit(73, "abort", target.address)
        self.assert_unchanged(target, before)

    def test_its_pool_has_too_little_room(self):
        pool = self.pool("little")
        cluster().tool("ceph", "osd", "pool", "set-quota", pool, "max_bytes", str(4 * MIB))
        source = self.volume(size=16 * MIB)
        with source:
            source.fill(0, 3 * MIB, seed=1)
            source.snap("one")
            source.fill(0, 3 * MIB, seed=2)
        # Both states together are too much, though neither is by itself.
        self.refused(73, source, self.target(pool), says=[pool, f"room for {4 * MIB} bytes", f"{6 * MIB} are to be written", "quota"])
        self.move_and_compare(source, self.target("slow"))

    def test_its_data_pool_has_too_little_room(self):
        pool = self.pool("little")
        cluster().tool("ceph", "osd", "pool", "set-quota", pool, "max_bytes", str(MIB))
        self.refused(73, self.written(), self.target("slow"), "--data-pool", pool, says=[pool, "quota"])

    def test_room_is_reckoned_by_what_is_allocated(self):
        """Not by the size, and not by whole objects."""
        pool = self.pool("little")
        cluster().tool("ceph", "osd", "pool", "set-quota", pool, "max_bytes", str(4 * MIB))
        source = self.volume(size=1 << 30)
        with source:
            for index in range(16):
                source.fill(index * 64 * MIB, 4 * KIB, seed=index)
        self.move_and_compare(source, self.target(pool))


class Source(RefusalTest):
    def test_a_writer_holds_it(self):
        for action in ("open", "opened.write(b'x', 0)"):
            with self.subTest(action):
                source, target = self.written(), self.target()
                writer = Client(self, source, action)
                self.refused(
                    75, source, target, says=[f"client.{writer.id}", writer.address, "open for writing", "Stop that client"])
                writer.evict()
                self.move(source, target)
                self.assert_same(source, target)

    def test_writers_hold_an_image_without_locks(self):
        source, target = self.written(features=("layering",)), self.target()
        writers = [Client(self, source), Client(self, source)]
        self.refused(75, source, target, says=[word for writer in writers for word in (f"client.{writer.id}", writer.address)])

    def test_a_reader_does_not_matter(self):
        source = self.written()
        Client(self, source, "read")
        self.move(source, self.target())

    def test_a_writer_is_no_matter_to_map(self):
        source = self.written()
        Client(self, source, "opened.write(b'x', 0)")
        self.godwit(0, "map", source.address)

    def test_a_non_primary_mirror(self):
        pool = self.pool("mirrored")
        cluster().tool("rbd", "mirror", "pool", "enable", pool, "image")
        source = self.written(pool=pool)
        cluster().tool("rbd", "mirror", "image", "enable", source.spec, "snapshot")
        cluster().tool("rbd", "mirror", "image", "demote", source.spec)
        self.addCleanup(cluster().tool, "rbd", "mirror", "image", "disable", "--force", source.spec)
        self.refused(73, source, self.target(), says=[source.spec, "non-primary mirror", "rbd mirror image promote"])

    def test_an_image_that_is_being_migrated(self):
        origin, source = self.written(), self.target()
        cluster().tool("rbd", "migration", "prepare", origin.spec, source.spec)
        self.addCleanup(cluster().tool, "rbd", "migration", "abort", "--no-progress", source.spec)
        self.refused(73, source, self.target(), says=[source.spec, "rbd migration"])


class Output(RefusalTest):
    def test_stdout_holds_json_alone(self):
        source, target = self.written(), self.target()
        for progress in ("plain", "bar", "auto", "none"):
            plan = self.godwit(0, "migrate", "--json", "--dry-run", "--progress", progress, source.address, target.address)
            self.assertEqual(plan.json["blockers"], [])
        report = self.godwit(0, "migrate", "--json", "--progress", "bar", "--verify", source.address, target.address)
        self.assertEqual(report.json["outcome"], "moved")
        blocked = self.godwit(73, "migrate", "--json", "--dry-run", "--progress", "plain", source.address, target.address)
        self.assertEqual(len(blocked.json["blockers"]), 1)
        failed = self.godwit(73, "migrate", "--json", "--progress", "plain", source.address, target.address)
        self.assertEqual(failed.stdout, "")
        equal = self.godwit(0, "verify", "--json", "--progress", "bar", source.address, target.address)
        self.assertEqual(equal.json, [])
        target.write(0, b"?")
        differs = self.godwit(65, "verify", "--json", "--progress", "plain", source.address, target.address)
        self.assertEqual(len(differs.json), 1)

    def test_progress_is_no_part_of_the_output(self):
        """Lines off a terminal are test_interruption.py's."""
        source = self.volume(size=16 * MIB)
        source.fill(0, 14 * MIB)
        for style in ("bar", "none", "auto"):
            result = self.godwit(0, "migrate", "--verify", "--progress", style, source.address, self.target().address)
            self.assertNotRegex(result.stdout, "%|\r")
            self.assertEqual("\r" in result.stderr, style == "bar", result)
            self.assertTrue(style == "bar" or result.stderr == "", result)

    @staticmethod
    def names(source, target):
        """Objects in the target's pool that have to do with either image."""
        words = source.id, source.name, target.name
        return sorted(o.key for o in target.ioctx.list_objects() if any(word in o.key for word in words))

    def test_a_dry_run_changes_nothing(self):
        source = self.volume(size=32 * MIB)
        with source:
            source.fill(0, 5 * MIB, seed=1)
            source.snap("one", protect=True)
            source.fill(4 * MIB, 2 * MIB, seed=2)
            source.set_metadata("key", "value")
        target = self.target()
        before = self.everything(source, target), self.names(source, target)
        plan = self.godwit(0, "migrate", "--dry-run", "--json", source.address, target.address).json
        text = self.godwit(0, "migrate", "--dry-run", source.address, target.address).stdout
        self.assertEqual((self.everything(source, target), self.names(source, target)), before)
        self.assertEqual(
            [(step.get("snapshot"), step["dirtyBytes"], step["sizeBytes"]) for step in plan["steps"]],
            [("one", 5 * MIB, 32 * MIB), (None, 2 * MIB, 32 * MIB)])
        self.assertGreater(plan["seconds"], 0)
        self.assertIn("nothing stands against it", text)
        self.assertIn("7.0 MiB", text)

    def test_several_blockers_are_told_at_once(self):
        source, target = self.written(), self.written(pool="slow")
        writer = Client(self, source)
        plan = self.godwit(
            75, "migrate", "--dry-run", "--json", source.address, target.address, "--data-pool", "nopool").json
        facts = "\n".join(blocker["fact"] for blocker in plan["blockers"])
        for words in (f"client.{writer.id}", target.spec, "nopool"):
            self.assertIn(words, facts)

    def test_features_are_as_librbd_names_them(self):
        self.godwit(0, "migrate", "--dry-run", self.written().address, self.target().address, "--image-feature", ",".join(STANDARD))

    def test_help_and_version(self):
        for command in ([], ["--help"], ["migrate", "--help"], ["verify", "--help"], ["map", "--help"], ["abort", "--help"],
                        ["--version"]):
            self.assertTrue(self.godwit(0, *command, timeout=10).stdout)
