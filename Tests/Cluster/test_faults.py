"""Clusters and disks that fail in the middle of a move: it goes on by itself, or says why it can't, and never hangs."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from faults import InterruptedTest, when_kept
from harness import MIB, Running, cluster, dev_cluster, run, setting, start, tool

# A move of a history takes some 6 s at this rate: time for a fault in its middle.
RATE = ("--bandwidth", "16M")


class FaultTest(InterruptedTest):
    def under_way(self, *options, env=None):
        """A move in the middle of its second step. :returns: its source, the source's states, its target, and the run"""
        [move] = self.all_under_way([env], *options)
        return move

    def all_under_way(self, environments, *options):
        """As many moves, all in the middle of their second step or a little later."""
        moves = []
        for _ in environments:
            source = self.history()
            moves.append((source, self.states(source), self.target()))
        runs = [
            self.begin(source, target, *options, env=env, progress="plain")
            for env, (source, _, target) in zip(environments, moves)]
        for (source, _, target), moving in zip(moves, runs):
            when_kept(1, later=0.2).await_(moving, source, target)
            self.assertFalse(moving.has_ended, moving.text())
        return [(*move, moving) for move, moving in zip(moves, runs)]

    def finishes(self, moving, source, states, target, timeout=90):
        result = moving.wait(timeout)
        self.assertEqual(result.rc, 0, result)
        self.assert_right(source, target, states)
        return result

    @contextlib.contextmanager
    def away(self, osd, *options):
        """An OSD is away for the time of the block, and back in any case."""
        dev_cluster("osd-stop", str(osd), *options)
        try:
            yield
        finally:
            dev_cluster("osd-start", str(osd))

    def impatient(self, seconds):
        """A configuration with which an operation waits only so long for its OSD."""
        file = tempfile.NamedTemporaryFile("w", suffix=".conf")
        self.addCleanup(file.close)
        with open(cluster().conf) as usual:
            file.write(f"{usual.read()}\n[client]\nrados_osd_op_timeout = {seconds}\n")
        file.flush()
        return {"CEPH_CONF": file.name}


class OSDs(FaultTest):
    def test_stopped_and_started_again(self):
        late_source, late_target = self.history(), self.target()
        late_states = self.states(late_source)
        source, states, target, moving = self.under_way(*RATE)
        with self.away(0):
            late = self.begin(late_source, late_target, progress="plain")
            for each in moving, late:
                self.until(lambda: "no answer" in each.text(), "a word on what it waits for", limit=20, moving=each)
        self.finishes(late, late_source, late_states, late_target)
        result = self.finishes(moving, source, states, target)
        said = re.search(r"(?m)^.*no answer.* for ([0-9]+) s.*$", result.stderr)
        self.assertLessEqual(int(said[1]), 12, result.stderr)
        # What is left to wait for can't be told while nothing moves.
        self.assertNotIn("ETA", said[0])

    def test_crashed_and_away_for_long(self):
        """Four moves at once: each outlasts it, or ends as it is asked to, and loses nothing."""
        patient, impatient, asked_twice, asked_once = self.all_under_way(
            [None, self.impatient(6), None, None], "--bandwidth", "6M")
        with self.away(0, "--kill"):
            self.ends_when_an_operation_took_too_long(impatient, time.monotonic())
            for *_, moving in asked_twice, asked_once:
                moving.send(signal.SIGINT)
            asked = time.monotonic()
            self.ends_when_asked_twice(asked_twice[-1])
            result = asked_once[-1].wait(40)
            self.assertEqual(result.rc, 75, result)
            self.assertLess(time.monotonic() - asked, 35, result)
            self.assertIn("the same command goes on", result.stderr.lower())
        source, states, target, moving = patient
        self.finishes(moving, source, states, target)
        for source, states, target, _ in impatient, asked_twice, asked_once:
            self.go_on(source, target)
            self.assert_right(source, target, states)

    def ends_when_an_operation_took_too_long(self, move, gone):
        source, _, target, moving = move
        result = moving.wait(40)
        self.assertEqual(result.rc, 75, result)
        # A wait for what was under way, and not much of a farewell.
        self.assertLess(time.monotonic() - gone, 15, result)
        self.assertIn("timed out", result.stderr)
        self.assertIn("ceph -s", result.stderr)
        # As long as the OSD stays away, the same command says so, in bounded time.
        result = run("migrate", source.address, target.address, timeout=30, env=self.impatient(3))
        self.assertIn(result.rc, (69, 75), result)
        self.assertIn("ceph -s", result.stderr)

    def ends_when_asked_twice(self, moving):
        self.until(lambda: "once more: at once" in moving.text(), "it to hear", limit=3, moving=moving)
        time.sleep(2)
        # What is under way can't end.
        self.assertFalse(moving.has_ended, moving.text())
        moving.send(signal.SIGINT)
        asked = time.monotonic()
        self.assertEqual(moving.wait(10).rc, 75)
        self.assertLess(time.monotonic() - asked, 2)


class Monitors(FaultTest):
    def test_away_for_some_seconds(self):
        """Between the steps, snapshots are made: only the monitor gives them their numbers."""
        source, states, target, moving = self.under_way(*RATE)
        status = dev_cluster_status()
        os.kill(int(re.search(r"(?m)^mon\.a +pid ([0-9]+)$", status)[1]), signal.SIGKILL)
        time.sleep(8)
        self.assertFalse(moving.has_ended, moving.text())
        dev_cluster("start")
        self.finishes(moving, source, states, target)

    def test_none_when_it_begins(self):
        source, target = self.history(snapshots=[], size=8 * MIB, pieces=1, length=MIB), self.target()
        before = source.portrait()
        result = run(
            "migrate", source.address, target.address, timeout=45, env={"CEPH_ARGS": "--mon-host 127.0.0.1:9"})
        self.assertEqual(result.rc, 69, result)
        self.assertIn("No monitor answered", result.stderr)
        self.assert_unchanged(source, before)


def dev_cluster_status():
    command = [pathlib.Path(__file__).parents[2] / "Deploy/dev-cluster", "status", "--dir", setting("GODWIT_CLUSTER_DIR")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


class FullPools(FaultTest):
    def quota(self, limit):
        """Limits what the target's pool may hold; 0 for no limit."""
        if limit:
            self.addCleanup(self.quota, 0)
        cluster().tool("ceph", "osd", "pool", "set-quota", "slow", "max_bytes", str(limit))
        # The monitor finds the pool full, or not full any more, by the next statistics.
        self.until(lambda: ("full_quota" in self.pool_flags()) == (limit > 0), f"a quota of {limit} to take effect")

    @staticmethod
    def pool_flags():
        dump = cluster().tool("ceph", "osd", "pool", "ls", "detail").stdout
        return re.search(r"(?m)^pool [0-9]+ 'slow' .*$", dump)[0]

    def full_in_the_middle(self, *options):
        source, states, target, moving = self.under_way("--bandwidth", "6M", *options)
        self.quota(1)
        result = moving.wait(60)
        self.assertEqual(result.rc, 75, result)
        self.assertIn("quota", result.stderr)
        self.assertIn("Make room", result.stderr)
        return source, states, target

    def test_object_by_object(self):
        source, states, target = self.full_in_the_middle()
        result = run("migrate", source.address, target.address, timeout=60)
        self.assertIn(result.rc, (73, 75), result)
        self.assertRegex(result.stderr, "quota|room")
        self.quota(0)
        self.go_on(source, target)
        self.assert_right(source, target, states)

    def test_by_librbd(self):
        """Objects of another size are written through librbd."""
        source, states, target = self.full_in_the_middle("--object-size", "2M")
        self.quota(0)
        self.go_on(source, target, "--object-size", "2M")
        self.assert_right(source, target, states)

    def test_abort_makes_room(self):
        source, _, target = self.full_in_the_middle()
        image_id = target.unfinished.id
        self.abort(target)
        self.assert_nothing(target, image_id)
        self.assert_clean(source)

    def test_full_when_it_begins(self):
        source, target = self.history(), self.target()
        before = source.portrait()
        filler = self.volume("slow")
        filler.fill(0, MIB)
        self.quota(1)
        result = self.godwit(73, "migrate", source.address, target.address, timeout=60)
        self.assertRegex(result.stderr, "pool slow has room for 0 bytes")
        self.assert_unchanged(source, before)
        self.assertFalse(target.unfinished.exists)


class PoolsThatGo(FaultTest):
    def pool(self):
        name = "gone-" + self._name()[-6:]
        cluster().tool("ceph", "osd", "pool", "create", name, "8")
        cluster().tool("rbd", "pool", "init", name)
        self.addCleanup(self.remove_pool, name)
        return name

    def remove_pool(self, name):
        if cluster().has_pool(name):
            cluster().tool("ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
            cluster().rados.wait_for_latest_osdmap()

    def test_the_target_pool_is_deleted(self):
        name = self.pool()
        source = self.history()
        address = f"rbd:{name}/goes"
        moving = start("migrate", source.address, address, *RATE)
        self.addCleanup(lambda: moving.has_ended or moving.kill())
        self.until(lambda: self.transients(source), "the source to be frozen", moving=moving)
        time.sleep(1)
        self.remove_pool(name)
        result = moving.wait(60)
        self.assertEqual(result.rc, 75, result)
        result = self.godwit(66, "abort", address)
        self.assertIn(name, result.stderr)
        # Nobody has the record of what is left on the source any more: the next move of it does no harm.
        target = self.target()
        states = self.states(source)
        self.go_on(source, target)
        self.assert_same(source, target, states)


class Files(FaultTest):
    def folder(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        return pathlib.Path(folder.name)

    def within_a_small_disk(self, folder, size, *arguments):
        """Runs godwit where a folder is a file system of its own, of so many bytes, that goes with it."""
        script = f'mount -t tmpfs -o size={size} none "$1" && shift && "$@"; status=$?; ls -s "{folder}" >&2; exit $status'
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", folder, setting("GODWIT"), *arguments]
        return Running(command).wait(60)

    def test_a_full_disk(self):
        source, folder = self.history(snapshots=[], pieces=8), self.folder()
        before = source.portrait()
        result = self.within_a_small_disk(
            folder, 4 * MIB, "migrate", source.address, folder / "image", "--snapshots", "none")
        self.assertIn(result.rc, (73, 75), result)
        self.assertRegex(result.stderr, "No space left on device|room for")
        self.assertNotRegex(result.stderr, r"(?m)^ *[0-9]+ image$")
        if result.rc == 73:
            self.assert_unchanged(source, before)

    def test_a_disk_that_fills_up(self):
        """There was room when it began."""
        folder = self.folder()
        source = self.history(snapshots=[], pieces=8)
        script = ('mount -t tmpfs -o size=32M none "$1"; folder=$1; shift; '
                  '"$@" & sleep 1; head -c 32M /dev/zero >"$folder/other"; wait $!; status=$?; '
                  'ls "$folder" >&2; rm "$folder/other"; "$@"; echo "then $?" >&2; exit $status')
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", folder, setting("GODWIT"),
                   "migrate", source.address, folder / "image", "--snapshots", "none", "--bandwidth", "4M"]
        result = Running(command).wait(60)
        self.assertEqual(result.rc, 75, result)
        self.assertIn("No space left on device", result.stderr)
        self.assertNotRegex(result.stderr, r"(?m)^image$")
        self.assertIn("then 0", result.stderr)
        self.assert_clean(source)

    def test_an_unreadable_file(self):
        """As a user that may not read it: root may read everything."""
        folder = self.folder()
        secret = folder / "secret"
        secret.write_bytes(bytes(MIB))
        secret.chmod(0)
        program = folder / "godwit"
        program.write_bytes(pathlib.Path(setting("GODWIT")).read_bytes())
        program.chmod(0o755)
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
        result = Running([*user, program, "migrate", secret, folder / "copy"]).wait(20)
        self.assertEqual(result.rc, 77, result)
        self.assertIn(str(secret), result.stderr)
        self.assertIn("Permission denied", result.stderr)
        result = self.godwit(66, "migrate", folder / "none", folder / "copy")
        self.assertIn("No such file", result.stderr)
        self.assertEqual(sorted(path.name for path in folder.iterdir()), ["godwit", "secret"])

    def test_a_folder_is_no_source(self):
        folder = self.folder()
        result = run("migrate", folder, folder / "copy", timeout=20)
        self.assertIn(result.rc, (66, 73), result)
        self.assertIn(str(folder), result.stderr)

    def test_a_file_that_shrinks_meanwhile(self):
        folder = self.folder()
        path, copy = folder / "source", folder / "copy"
        path.write_bytes(os.urandom(24 * MIB))
        moving = start("migrate", path, copy, "--bandwidth", "8M")
        self.addCleanup(lambda: moving.has_ended or moving.kill())
        time.sleep(1)
        os.truncate(path, 5 * MIB)
        result = moving.wait(30)
        self.assertIn(result.rc, (73, 75), result)
        self.assertIn(str(path), result.stderr)
        self.assertFalse(copy.exists())

    def test_kills_between_files(self):
        """The same holds for files as for images: the same command goes on, and the target appears when it's whole."""
        folder = self.folder()
        path, copy = folder / "source", folder / "copy"
        path.write_bytes(os.urandom(16 * MIB) + bytes(16 * MIB) + os.urandom(8 * MIB + 512))
        for part in range(5):
            copy.unlink(missing_ok=True)
            moving = start("migrate", path, copy, "--bandwidth", "16M")
            time.sleep(0.02 + 0.3 * part)
            moving.kill()
            self.assertEqual(moving.wait(10).rc, -9)
            self.assertFalse(copy.exists())
            self.godwit(0, "migrate", path, copy)
            self.assertEqual(copy.read_bytes(), path.read_bytes())
            self.assertEqual(sorted(file.name for file in folder.iterdir()), ["copy", "source"])
