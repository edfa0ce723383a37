"""How a volume and its cluster are named, who may do what, and that no secret is ever shown."""

import os
import pathlib
import secrets
import shutil
import tempfile
import time

from harness import MIB, UNFINISHED, ClusterTest, cluster, run, setting, start

RBD_PROFILE = ("mon", "profile rbd", "osd", "profile rbd pool=fast, profile rbd pool=slow")


class User:
    """A cephx user with certain caps, and its keyring."""

    def __init__(self, name, folder, *caps):
        self.name = name
        self.entity = f"client.{name}"
        self.keyring = f"{folder}/{name}.keyring"
        cluster().tool("ceph", "auth", "get-or-create", self.entity, *caps, "-o", self.keyring)
        self.key = cluster().tool("ceph", "auth", "print-key", self.entity).stdout.strip()

    @property
    def suffix(self):
        return f":id={self.name}:keyring={self.keyring}"

    def remove(self):
        cluster().tool("ceph", "auth", "rm", self.entity)


class AddressTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="godwit-addresses-")
        self.addCleanup(shutil.rmtree, self.folder)

    def user(self, *caps):
        user = User(f"test-{secrets.token_hex(3)}", self.folder, *caps)
        self.addCleanup(user.remove)
        return user

    def written(self, size=8 * MIB, **options):
        volume = self.volume(size=size, **options)
        with volume:
            volume.fill(0, MIB, seed=1)
            volume.snap("one")
            volume.fill(MIB // 2, MIB, seed=2)
        return volume


class Forms(AddressTest):
    def test_conf_by_address(self):
        source, target = self.written(), self.target()
        conf = f":conf={source.cluster.conf}"
        for env in ({"CEPH_CONF": None}, {"CEPH_CONF": "/nonexistent/ceph.conf"}):
            self.godwit(0, "map", source.address + conf, env=env)
        self.godwit(0, "migrate", source.address + conf, target.address + conf, env={"CEPH_CONF": None})
        self.assert_same(source, target)

    def test_conf_by_environment(self):
        source = self.written()
        self.godwit(0, "map", source.address)
        nowhere = self.godwit(69, "map", source.address, env={"CEPH_CONF": "/nonexistent/ceph.conf"})
        self.assertIn("/nonexistent/ceph.conf", nowhere.stderr)

    def test_conf_by_ceph_args(self):
        source = self.written()
        for arguments in (f"--conf {source.cluster.conf}", f"-c {source.cluster.conf}", f"--conf={source.cluster.conf}"):
            self.godwit(0, "map", source.address, env={"CEPH_CONF": None, "CEPH_ARGS": arguments})

    def test_a_path_with_separators(self):
        source = self.written()
        path = pathlib.Path(self.folder, "a:b@c\\d", "my ceph.conf")
        path.parent.mkdir()
        shutil.copy(source.cluster.conf, path)
        escaped = str(path).replace("\\", "\\\\").replace(":", "\\:").replace("@", "\\@")
        self.godwit(0, "map", f"{source.address}:conf={escaped}", env={"CEPH_CONF": None})

    def test_user_by_address(self):
        user = self.user(*RBD_PROFILE)
        source, target = self.written(), self.target()
        self.godwit(0, "migrate", source.address + user.suffix, target.address + user.suffix)
        self.assert_same(source, target)

    def test_user_by_ceph_args(self):
        user = self.user(*RBD_PROFILE)
        source = self.written()
        for name in (f"--id {user.name}", f"--id={user.name}", f"--name client.{user.name}", f"-n client.{user.name}",
                     f"--user {user.name}"):
            env = {"CEPH_ARGS": f"{name} --keyring {user.keyring}"}
            result = self.godwit(0, "map", source.address, env=env)
            self.assertTrue(result.stdout, name)
        # That it was this user, and not the administrator, shows once it is no more.
        other = self.user("mon", "profile rbd", "osd", "profile rbd pool=slow")
        self.godwit(77, "map", source.address, env={"CEPH_ARGS": f"--id {other.name} --keyring {other.keyring}"})

    def test_the_address_before_the_environment(self):
        allowed, other = self.user(*RBD_PROFILE), self.user("mon", "profile rbd")
        source = self.written()
        self.godwit(
            0, "map", source.address + allowed.suffix,
            env={"CEPH_ARGS": f"--id {other.name} --keyring {other.keyring}"})

    def test_each_end_with_its_own_user(self):
        reader = self.user("mon", "profile rbd", "osd", "profile rbd pool=fast")
        writer = self.user("mon", "profile rbd", "osd", "profile rbd pool=slow")
        source, target = self.written(), self.target()
        self.godwit(0, "migrate", "--verify", source.address + reader.suffix, target.address + writer.suffix)
        self.assert_moved(source, target)

    def test_names_with_anything_in_them(self):
        for name in ("with space, co:lon and back\\slash", "quote'\"`$HOME", "日本語 🦤 e\u0301", "-dash=%41"):
            with self.subTest(name):
                suffix = secrets.token_hex(3)
                source = self.written(name=f"{name}-{suffix}")
                target = self.target(name=f"{name}-{suffix}")
                self.move(source, target)
                self.assert_same(source, target)
                self.godwit(0, "verify", source.address, target.address)

    def test_a_pool_and_a_snapshot_with_anything_in_them(self):
        pool = self.pool("p ö:o@l")
        source = self.volume(pool=pool)
        with source:
            source.fill(0, MIB)
            source.snap("a@b:c/d\\e")
        extents = self.godwit(0, "map", "--json", source.address + "@a\\@b\\:c\\/d\\\\e").json
        self.assertEqual(extents[0], {"offset": 0, "length": MIB, "type": 0, "description": "data"})
        self.move_and_compare(source, self.target(pool))

    def test_malformed(self):
        for address in (
                "", "rbd:", "rbd:fast", "rbd:fast/", "rbd:/image", "rbd:fast//image", "rbd:a/b/c/d", "rbd:fast/a@", "rbd:fast/a@b@c",
                "rbd:fast/a:conf", "rbd:fast/a:conf=", "rbd:fast/a:port=1", "rbd:fast/a:", "ssh://host/export",
                "http://host/image", "file:"):
            with self.subTest(address):
                for command in (["map", address], ["migrate", "rbd:fast/a", address], ["migrate", address, "rbd:fast/a"],
                                ["verify", address, "rbd:fast/a"], ["abort", address]):
                    result = self.godwit(64, *command, timeout=10)
                    self.assertEqual(result.stdout, "")
                    self.assertIn("rbd:POOL/", result.stderr)

    def test_a_snapshot_where_a_whole_volume_is_meant(self):
        for command in (["migrate", "rbd:fast/a@b", "rbd:slow/a"], ["migrate", "rbd:fast/a", "rbd:slow/a@b"],
                        ["verify", "rbd:fast/a@b", "rbd:slow/a"]):
            self.godwit(64, *command, timeout=10)


class Secrets(AddressTest):
    def test_no_key_is_ever_shown(self):
        user = self.user(*RBD_PROFILE)
        forbidden = self.user("mon", "profile rbd")
        source = self.written()
        wrong = "AQBwrongwrongwrongwrongwrongwrongwrongA=="
        outputs = []

        def note(*arguments, env=None):
            outputs.append(run(*arguments, env=env))

        address, target = source.address, self.target().address
        for extra in (f":key={user.key}", f":keyring={user.keyring}:key={user.key}", f":{user.key}", f":secret={user.key}",
                      f":id={user.name}:password={user.key}"):
            note("map", address + extra)
            note("migrate", address + extra, target)
            note("migrate", address, target + extra)
            note("verify", address + extra, target)
            note("abort", target + extra)
            note("abort", target, "--source", address + extra)
        for arguments in (f"--id {user.name} --key {user.key}", f"--id {user.name} --key={user.key}",
                          f"--id {forbidden.name} --key {forbidden.key}", f"--id {user.name} --key {forbidden.key}"):
            note("map", address, env={"CEPH_ARGS": arguments})
            note("migrate", "--progress", "plain", "--json", address, self.target().address, env={"CEPH_ARGS": arguments})
        bad = pathlib.Path(self.folder, "bad.keyring")
        bad.write_text(f"[{user.entity}]\n\tkey = {wrong}\n\tcaps nonsense = {user.key}\n")
        note("map", f"{address}:id={user.name}:keyring={bad}")
        conf = pathlib.Path(self.folder, "bad.conf")
        conf.write_text(f"[global]\nkey = {user.key}\nbroken line with {forbidden.key}\n")
        note("map", f"{address}:conf={conf}")
        self.assertTrue(all(result.output for result in outputs))
        for result in outputs:
            for secret in (user.key, forbidden.key, wrong):
                self.assertNotIn(secret, result.output)
                self.assertNotIn(secret.rstrip("="), result.output)

    def test_no_key_is_left_in_the_cluster(self):
        """The record of an unfinished move tells how to reach the source, but not with what key."""
        user = self.user(*RBD_PROFILE)
        source, target = self.written(size=64 * MIB), self.target()
        source.fill(0, 64 * MIB)
        moving = start(
            "migrate", source.address, target.address, "--bandwidth", "1M",
            env={"CEPH_ARGS": f"--id {user.name} --key {user.key}"})
        self.addCleanup(lambda: moving.has_ended or moving.kill())
        self.wait_until(lambda: target.unfinished.exists and target.unfinished.metadata.get("godwit.record"))
        for key, value in target.unfinished.metadata.items():
            self.assertNotIn(user.key, key + value)
        moving.send()
        self.assertEqual(moving.wait(60).rc, 75)
        self.godwit(0, "abort", target.address)


class LeastPrivilege(AddressTest):
    def test_all_of_it_with_the_rbd_profile(self):
        """mon 'profile rbd' and osd 'profile rbd' on the two pools are enough: no cap for the managers."""
        user = self.user(*RBD_PROFILE)
        env = {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}
        source, target = self.written(size=64 * MIB), self.target()
        source.fill(0, 64 * MIB, seed=3)
        before = source.portrait()
        self.godwit(0, "migrate", "--dry-run", source.address, target.address, env=env)
        # Killed, so that the next run has to evict the dead client.
        moving = start("migrate", source.address, target.address, "--bandwidth", "8M", env=env)
        self.wait_until(lambda: target.unfinished.exists and target.unfinished.metadata.get("godwit.holder"))
        time.sleep(1)
        moving.kill()
        moving.wait(10)
        self.godwit(0, "migrate", "--verify", source.address, target.address, env=env)
        self.assert_unchanged(source, before)
        self.assert_moved(source, target, before["states"])
        self.godwit(0, "verify", source.address, target.address, env=env)
        self.godwit(0, "map", target.address, "--from-snap", "one", env=env)

        given_up = self.target()
        moving = start("migrate", source.address, given_up.address, "--bandwidth", "8M", env=env)
        self.wait_until(lambda: given_up.unfinished.exists and given_up.unfinished.metadata.get("godwit.holder"))
        time.sleep(1)
        moving.kill()
        moving.wait(10)
        self.godwit(0, "abort", given_up.address, env=env)
        self.assertFalse(given_up.unfinished.exists)
        self.assert_unchanged(source, before)

    def test_data_pools_and_namespaces(self):
        data, namespace = self.erasure_coded_pool(), self.namespace("slow")
        user = self.user(
            "mon", "profile rbd", "osd",
            f"profile rbd pool=fast, profile rbd pool=slow namespace={namespace}, profile rbd pool={data}")
        env = {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}
        source, target = self.written(), self.target(namespace=namespace)
        self.move(source, target, "--data-pool", data, env=env)
        self.assert_moved(source, target)
        # The default namespace of that pool isn't this user's.
        self.refused_and_nothing_made(source, self.target(), env)

    def test_clones(self):
        user = self.user(*RBD_PROFILE)
        env = {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}
        parent = self.written()
        clone = self.clone(parent, "one")
        clone.fill(4 * MIB, MIB, seed=5)
        target = self.target()
        self.move(clone, target, env=env)
        self.assert_same(clone, target)

    def test_the_room_in_a_pool(self):
        """It is asked of the monitors, which this user may do."""
        pool = self.pool("little")
        cluster().tool("ceph", "osd", "pool", "set-quota", pool, "max_bytes", str(MIB // 2))
        user = self.user("mon", "profile rbd", "osd", f"profile rbd pool=fast, profile rbd pool={pool}")
        source, target = self.written(), self.target(pool)
        result = self.godwit(
            73, "migrate", source.address, target.address, env={"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"})
        self.assertIn("quota", result.stderr)
        self.assertFalse(target.unfinished.exists)

    def refused_and_nothing_made(self, source, target, env, names=None):
        """77, in a real and in a dry run; nothing was made, nothing changed."""
        before = source.portrait()
        for options in ([], ["--dry-run"], ["--json"]):
            result = self.godwit(77, "migrate", *options, source.address, target.address, env=env)
            self.assertRegex(result.output, "caps|permi")
            if names:
                self.assertIn(names, result.output)
            self.assertFalse(target.exists or target.unfinished.exists)
        self.assert_unchanged(source, before)
        self.assert_left_alone(source)

    def test_a_reader_may_compare_and_map(self):
        source, target = self.written(), self.target()
        self.move(source, target)
        user = self.user("mon", "profile rbd-read-only", "osd", "profile rbd-read-only pool=fast, profile rbd-read-only pool=slow")
        env = {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}
        self.godwit(0, "verify", source.address, target.address, env=env)
        self.godwit(0, "map", source.address + "@one", env=env)

    def test_a_reader_may_not_move(self):
        user = self.user("mon", "profile rbd-read-only", "osd", "profile rbd-read-only pool=fast, profile rbd-read-only pool=slow")
        self.refused_and_nothing_made(
            self.written(), self.target(), {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}, "profile rbd pool=")

    def test_a_reader_of_the_source(self):
        """The source's state is frozen by a snapshot, which takes more than reading."""
        user = self.user("mon", "profile rbd", "osd", "profile rbd-read-only pool=fast, profile rbd pool=slow")
        self.refused_and_nothing_made(
            self.written(), self.target(), {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}, "profile rbd pool=fast")

    def test_a_reader_of_the_target(self):
        user = self.user("mon", "profile rbd", "osd", "profile rbd pool=fast, profile rbd-read-only pool=slow")
        self.refused_and_nothing_made(
            self.written(), self.target(), {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}, "profile rbd pool=slow")

    def test_a_reader_of_the_data_pool(self):
        data = self.data_pool()
        user = self.user(
            "mon", "profile rbd", "osd", f"profile rbd pool=fast, profile rbd pool=slow, profile rbd-read-only pool={data}")
        env = {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"}
        source, target = self.written(), self.target()
        result = self.godwit(77, "migrate", source.address, target.address, "--data-pool", data, env=env)
        self.assertIn(data, result.stderr)
        self.assertFalse(target.unfinished.exists)

    def test_somebody_without_caps_for_a_pool(self):
        for osd in ("profile rbd pool=slow", "profile rbd pool=fast"):
            with self.subTest(osd):
                user = self.user("mon", "profile rbd", "osd", osd)
                self.refused_and_nothing_made(
                    self.written(), self.target(), {"CEPH_ARGS": f"--id {user.name} --keyring {user.keyring}"})

    def test_a_wrong_key(self):
        user, other = self.user(*RBD_PROFILE), self.user(*RBD_PROFILE)
        source = self.written()
        result = self.godwit(77, "map", source.address, env={"CEPH_ARGS": f"--id {user.name} --key {other.key}"}, timeout=40)
        self.assertIn(user.entity, result.stderr)
        self.assertIn("key", result.stderr)

    def test_a_user_that_the_cluster_does_not_know(self):
        source = self.written()
        keyring = pathlib.Path(self.folder, "stranger.keyring")
        keyring.write_text("[client.stranger]\n\tkey = AQBGz99eAAAAABAAoF7tA6sk3mPGN1xGAAAAAA==\n")
        result = self.godwit(77, "map", f"{source.address}:id=stranger:keyring={keyring}", timeout=40)
        self.assertIn("client.stranger", result.stderr)

    def test_a_user_without_a_keyring(self):
        source = self.written()
        for suffix in (":id=stranger", f":id=stranger:keyring={self.folder}/none"):
            result = self.godwit(77, "map", source.address + suffix, timeout=40)
            self.assertIn("client.stranger", result.stderr)
            self.assertIn("keyring", result.stderr)
