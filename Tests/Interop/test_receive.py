"""Moves to another Godwit: 'godwit receive' at the far side, godwit:// at the near one."""

import json
import pathlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from receiving import Process
from serving import CLUSTER, GODWIT, KIB, MIB, noise, run

SIZE = 24 * MIB


class ReceiveTest(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="godwit-receive-")).resolve()
        self.addCleanup(shutil.rmtree, self.folder)
        self.far = self.folder / "far"
        self.far.mkdir()
        self.socket = self.folder / "r.sock"

    def shortDescription(self):
        return None  # a test is known by its name

    def receive(self, *allowed):
        words = [word for what in allowed or self.allowed for word in ("--allow", what)]
        receiver = Process(self, "receive", "--listen", f"unix:{self.socket}", *words)
        self.assertEqual(receiver.line(), f"listening on unix:{self.socket}")
        return receiver

    def at(self, target):
        return f"godwit+unix:///{target}?socket={self.socket}"

    def migrate(self, *words, rc=0):
        """:returns: the report, or what was said"""
        said = run(GODWIT, "migrate", "--json", "--progress", "none", *words, rc=rc, timeout=120)
        return json.loads(said) if rc == 0 else said

    def wait_until(self, holds, limit=20):
        deadline = time.monotonic() + limit
        while not holds():
            self.assertLess(time.monotonic(), deadline, f"not within {limit} s")
            time.sleep(0.01)


class FileTests(ReceiveTest):
    @property
    def allowed(self):
        return [f"file:{self.far}"]

    def setUp(self):
        super().setUp()
        self.source = self.folder / "source"
        self.bytes = bytearray(SIZE)
        for seed, start, count in [(1, 0, 5 * KIB), (2, MIB - 77, 2000), (3, 3 * MIB, 6 * MIB), (4, SIZE - 100, 100)]:
            self.bytes[start:start + count] = noise(count, seed)
        self.bytes[12 * MIB:15 * MIB] = b"words and more words, " * (3 * MIB // 22) + bytes(3 * MIB % 22)
        with open(self.source, "wb") as file:
            file.truncate(SIZE)
            for start in range(0, SIZE, 64 * KIB):
                if any(self.bytes[start:start + 64 * KIB]):
                    file.seek(start)
                    file.write(self.bytes[start:start + 64 * KIB])
        self.path = self.far / "v.raw"
        self.target = self.at(f"file:{self.path}")

    def assert_moved(self):
        self.assertEqual(self.path.read_bytes(), bytes(self.bytes))
        self.assertEqual([entry.name for entry in self.far.iterdir()], ["v.raw"])

    def test_a_file(self):
        receiver = self.receive()
        for number, options in enumerate([
                [], ["--connections", 1, "--compress", "none"], ["--connections", 5, "--compress", "lz4"],
                ["--compress", "auto", "--compress-acceleration", 8, "--verify"]]):
            with self.subTest(options=options):
                self.path = self.far / f"v{number}.raw"
                report = self.migrate(self.source, self.at(f"file:{self.path}"), *options)
                self.assertEqual(report["outcome"], "moved")
                self.assertEqual(self.path.read_bytes(), bytes(self.bytes))
                # Thin: the holes are not there.
                self.assertLess(self.path.stat().st_blocks * 512, 11 * MIB)
                run("cmp", self.source, self.path)
        self.assertEqual(receiver.end(), 0)
        self.assertFalse(self.socket.exists())

    def test_verify(self):
        self.receive()
        self.migrate(self.source, self.target)
        self.assertIn("are equal", run(GODWIT, "verify", self.source, self.target))
        self.assertIn("are equal", run(GODWIT, "verify", self.target, self.source))
        with open(self.path, "r+b") as file:
            file.seek(12 * MIB + 5)
            file.write(b"#")
        for words in ([self.source, self.target], [self.target, self.source]):
            found = json.loads(run(GODWIT, "verify", "--json", *words, rc=65).split("\n]")[0] + "\n]")
            self.assertEqual([(entry["offset"], entry["length"]) for entry in found], [(12 * MIB + 5, 1)])

    def begin(self):
        """A move that has settled some of it, and has more to do."""
        move = Process(self, "migrate", "--progress", "none", "--bandwidth", "1M", self.source, self.target)
        unfinished = self.far / "v.raw.godwit-unfinished"
        self.wait_until(lambda: unfinished.exists() and unfinished.stat().st_blocks > 0)
        time.sleep(0.5)
        return move

    def test_the_near_side_is_killed(self):
        receiver = self.receive()
        self.begin().end(signal.SIGKILL)
        self.wait_until(lambda: not (self.far / "v.raw.godwit-holder").exists())
        self.assertFalse(self.path.exists())
        self.assertTrue(self.migrate(self.source, self.target)["resumed"])
        self.assert_moved()
        self.assertEqual(receiver.end(), 0)

    def test_the_receiver_is_killed(self):
        receiver = self.receive()
        move = self.begin()
        receiver.end(signal.SIGKILL)
        self.assertEqual(move.process.wait(30), 75, move.said())
        self.assertIn("The same command goes on", move.said())
        self.assertIn("Nobody listens there", self.migrate(self.source, self.target, rc=69))
        self.receive()
        self.assertTrue(self.migrate(self.source, self.target)["resumed"])
        self.assert_moved()

    def test_the_receiver_is_stopped(self):
        receiver = self.receive()
        move = self.begin()
        self.assertEqual(receiver.end(), 0, receiver.said())
        self.assertEqual(move.process.wait(30), 75, move.said())
        self.receive()
        self.assertTrue(self.migrate(self.source, self.target)["resumed"])
        self.assert_moved()

    def test_two_near_sides(self):
        self.receive()
        move = self.begin()
        self.assertIn("another move goes into it", self.migrate(self.source, self.target, rc=75))
        self.assertIn("another move goes into it", run(GODWIT, "abort", self.target, rc=75))
        move.end(signal.SIGINT)
        self.assertTrue(self.migrate(self.source, self.target)["resumed"])
        self.assert_moved()

    def test_abort(self):
        self.receive()
        self.begin().end(signal.SIGKILL)
        self.wait_until(lambda: not (self.far / "v.raw.godwit-holder").exists())
        run(GODWIT, "abort", self.target)
        self.assertEqual(list(self.far.iterdir()), [])
        run(GODWIT, "abort", self.target, rc=66)

    def test_what_is_not_allowed(self):
        receiver = self.receive()
        (self.folder / "secret").write_text("secret")
        (self.far / "link").symlink_to("/etc/passwd")
        (self.far / "out").symlink_to("/etc")
        words = set()
        for target in [
                f"file:{self.folder}/secret", f"file:{self.folder}/nothing", f"file:{self.far}/../secret",
                f"file:{self.far}/link", f"file:{self.far}/out/passwd", "rbd:slow/v", "rbd:slow/v:conf=/etc/shadow"]:
            said = self.migrate(self.source, self.at(target), rc=77)
            words.add(said[said.index("the receiver refused"):].splitlines()[0])
            run(GODWIT, "verify", self.source, self.at(target), rc=77)
        self.assertEqual(words, {"the receiver refused it: not allowed here"})
        self.assertEqual((self.folder / "secret").read_text(), "secret")
        self.assertEqual(receiver.end(), 0)

    def test_an_existing_file_is_never_touched(self):
        self.receive()
        self.path.write_text("mine")
        self.assertIn("exists", self.migrate(self.source, self.target, rc=73))
        self.assertEqual(self.path.read_text(), "mine")

    def test_a_server_that_is_no_receiver(self):
        disk = self.folder / "disk"
        with open(disk, "wb") as file:
            file.truncate(SIZE)
        server = Process(self, "export", disk, "--name", "any", "--listen", f"unix:{self.socket}")
        server.line()
        self.migrate(self.source, self.at("any"), "--verify")
        self.assertEqual(disk.read_bytes(), bytes(self.bytes))
        self.assertIn("are equal", run(GODWIT, "verify", self.source, self.at("any")))
        self.assertIn("holds data", self.migrate(self.source, self.at("any"), rc=73))
        self.migrate(self.source, self.at("any"), "--overwrite")
        self.assertIn("no such export", self.migrate(self.source, self.at("other"), rc=73).replace("the server has ", ""))

    def test_tcp(self):
        receiver = Process(self, "receive", "--listen", "127.0.0.1:0", "--allow", f"file:{self.far}")
        line = receiver.line()
        self.assertRegex(line, r"^listening on godwit://127\.0\.0\.1:[1-9][0-9]*/$")
        self.migrate(self.source, line.removeprefix("listening on ") + f"file:{self.path}", "--verify")
        self.assert_moved()
        self.assertIn(
            "--insecure", run(GODWIT, "receive", "--listen", "0.0.0.0:0", "--allow", f"file:{self.far}", rc=77))

    def test_usage(self):
        for words, said in [
                (["migrate", self.source, self.path, "--compress", "lz4"], "godwit:// target"),
                (["migrate", self.source, self.target, "--connections", "17"], "1 to 16"),
                (["migrate", self.source, self.target, "--compress-acceleration", "0"], "1 to 65537"),
                (["migrate", self.source, self.target, "--compress", "none", "--compress-acceleration", "2"], "auto or lz4"),
                (["migrate", self.target, self.path], "give the command there"),
                (["migrate", self.source, "godwit://host"], "target is missing"),
                (["receive", "--listen", "unix:/x"], "--allow"),
                (["receive", "--listen", "unix:/x", "--allow", "/x"], "file:/FOLDER"),
                (["receive", "--listen", "unix:/x", "--allow", "rbd:a/b/c"], "rbd:POOL/NAMESPACE")]:
            self.assertIn(said, run(GODWIT, *words, rc=64), words)
        self.assertIn(
            "no such folder", run(GODWIT, "receive", "--listen", "unix:/x", "--allow", "file:/no/where", rc=73))


@unittest.skipUnless(CLUSTER, "CEPH_CONF names no cluster")
class ImageTests(ReceiveTest):
    """Needs the pools `fast` and `slow`."""

    allowed = ["rbd:slow"]

    def setUp(self):
        super().setUp()
        self.name = f"receive-{secrets.token_hex(3)}"
        self.source = f"fast/{self.name}"
        self.target = self.at(f"rbd:slow/{self.name}")
        self.addCleanup(self.remove)
        run("rbd", "create", self.source, "--size", "64M")

    def remove(self):
        for spec in [f"fast/{self.name}", f"slow/{self.name}", f"slow/{self.name}.godwit-unfinished"]:
            subprocess.run(["rbd", "snap", "unprotect", f"{spec}@one"], capture_output=True)
            subprocess.run(["rbd", "snap", "purge", "--no-progress", spec], capture_output=True)
            subprocess.run(["rbd", "rm", "--no-progress", spec], capture_output=True)

    def write(self, offset, count, seed):
        with tempfile.NamedTemporaryFile() as file:
            file.write(noise(count, seed))
            file.flush()
            run("qemu-io", "-f", "raw", "-c", f"write -q -s {file.name} {offset} {count}", f"rbd:{self.source}")

    def fill(self):
        self.write(0, 3 * MIB, 1)
        self.write(20 * MIB + 777, 100 * KIB, 2)
        run("rbd", "snap", "create", "--no-progress", f"{self.source}@one")
        run("rbd", "snap", "protect", f"{self.source}@one")
        self.write(MIB, 2 * MIB, 3)
        run("rbd", "resize", "--no-progress", self.source, "--size", "80M")
        run("rbd", "snap", "create", "--no-progress", f"{self.source}@two words")
        self.write(70 * MIB, 4 * MIB, 4)
        run("rbd", "image-meta", "set", self.source, "key", "value")

    def export(self, spec):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "image"
            run("rbd", "export", "--no-progress", spec, path, timeout=120)
            return path.read_bytes()

    def assert_moved(self):
        there = f"slow/{self.name}"
        self.assertIn("are equal", run(GODWIT, "verify", f"rbd:{self.source}", f"rbd:{there}", timeout=120))
        for state in ("", "@one", "@two words"):
            self.assertEqual(self.export(self.source + state), self.export(there + state), state)
        self.assertEqual(run("rbd", "image-meta", "get", there, "key").strip(), "value")
        self.assertNotIn("godwit", run("rbd", "image-meta", "list", there))
        self.assertNotIn("godwit.", run("rbd", "snap", "ls", self.source) + run("rbd", "snap", "ls", there))
        self.assertNotIn("unfinished", run("rbd", "ls", "slow"))
        self.assertEqual(run("rbd", "object-map", "check", "--no-progress", there).strip(), "")

    def test_an_image_with_its_snapshots(self):
        self.fill()
        receiver = self.receive()
        report = self.migrate(f"rbd:{self.source}", self.target, "--verify")
        self.assertEqual([step.get("snapshot") for step in report["steps"]], ["one", "two words", None])
        self.assert_moved()
        self.assertIn("are equal", run(GODWIT, "verify", f"rbd:{self.source}", self.target, timeout=120))
        self.assertEqual(receiver.end(), 0)

    def begin(self):
        move = Process(self, "migrate", "--progress", "none", "--bandwidth", "1M", f"rbd:{self.source}", self.target)
        self.wait_until(lambda: f"{self.name}.godwit-unfinished" in run("rbd", "ls", "slow"))
        time.sleep(2)
        return move

    def test_the_near_side_is_killed(self):
        self.fill()
        self.receive()
        self.begin().end(signal.SIGKILL)
        time.sleep(0.5)
        self.assertTrue(self.migrate(f"rbd:{self.source}", self.target)["resumed"])
        self.assert_moved()

    def test_the_receiver_is_killed(self):
        self.fill()
        receiver = self.receive()
        move = self.begin()
        receiver.end(signal.SIGKILL)
        self.assertEqual(move.process.wait(30), 75, move.said())
        self.receive()
        self.assertTrue(self.migrate(f"rbd:{self.source}", self.target)["resumed"])
        self.assert_moved()

    def test_two_near_sides(self):
        self.fill()
        self.receive()
        move = self.begin()
        self.assertIn("another move goes into it", self.migrate(f"rbd:{self.source}", self.target, rc=75))
        move.end(signal.SIGINT)
        self.assertTrue(self.migrate(f"rbd:{self.source}", self.target)["resumed"])
        self.assert_moved()

    def test_abort(self):
        self.fill()
        self.receive()
        self.begin().end(signal.SIGKILL)
        time.sleep(0.5)
        run(GODWIT, "abort", self.target, timeout=60)
        self.assertNotIn(self.name, run("rbd", "ls", "slow"))
        self.assertNotIn("godwit.", run("rbd", "snap", "ls", self.source))

    def test_while_a_client_writes(self):
        self.fill()
        self.receive()
        writer = subprocess.Popen(
            ["rbd", "bench", "--io-type", "write", "--io-size", "16K", "--io-total", "64M", "--io-pattern", "rand",
             self.source], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(writer.kill)
        report = self.migrate(f"rbd:{self.source}", self.target, "--live", "--verify")
        writer.wait(60)
        self.assertIn("pause", report)
        self.assertEqual(self.export(self.source), self.export(f"slow/{self.name}"))
        self.assertEqual(self.export(f"{self.source}@one"), self.export(f"slow/{self.name}@one"))

    def test_a_data_pool_that_is_not_allowed(self):
        run("rbd", "rm", "--no-progress", self.source)
        run("rbd", "create", self.source, "--size", "8M", "--data-pool", "slow")
        self.receive("rbd:fast")
        there = f"fast/{self.name}-there"
        self.addCleanup(subprocess.run, ["rbd", "rm", "--no-progress", there], capture_output=True)
        target = self.at(f"rbd:{there}")
        self.assertIn("doesn't allow data in the pool 'slow'", self.migrate(f"rbd:{self.source}", target, rc=77))
        self.assertNotIn(there, run("rbd", "ls", "fast"))
        self.migrate(f"rbd:{self.source}", target, "--data-pool", "fast")
        self.assertNotIn("data_pool: slow", run("rbd", "info", there))


if __name__ == "__main__":
    unittest.main()
