"""`godwit migrate --live --export`: images that are moved beneath the clients of their export."""

import json
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import tempfile
import time
import unittest

import nbd

from receiving import Process
from serving import CLUSTER, GODWIT, KIB, MIB, ServingTest, run

SIZE = 64 * MIB
# What the issue of the gap allows on a machine that has nothing else to do; tests run beside each other.
SWITCHES = 20


def spread(data):
    """Bytes that are no zeros in places all over the volume."""
    for start in range(0, SIZE, 4 * MIB):
        data[start + 12345:start + 12345 + 200 * KIB] = random.Random(start).randbytes(200 * KIB)
    return data


class Client:
    """A client that remembers what it wrote, and what of it was acknowledged."""

    def __init__(self, uri, data):
        self.data, self.random = data, random.Random(7)
        # What a write that failed may have left: either.
        self.unsure = None
        self.connect(uri)

    def connect(self, uri, limit=40):
        deadline = time.monotonic() + limit
        while True:
            self.handle = nbd.NBD()
            try:
                self.handle.connect_uri(uri)
                break
            except nbd.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        if self.unsure:
            # As a guest's disk does that reconnects: what wasn't acknowledged is sent once more.
            start, piece = self.unsure
            self.handle.pwrite(piece, start)
            self.data[start:start + len(piece)] = piece
            self.unsure = None

    def write(self):
        count = self.random.choice([512, 4 * KIB, 4 * KIB, 60 * KIB])
        start = self.random.randrange(0, SIZE - count)
        kind = self.random.random()
        piece = bytes(count) if kind > 0.9 else self.random.randbytes(count)
        self.unsure = (start, piece)
        if kind > 0.9:
            self.handle.zero(count, start)
        else:
            self.handle.pwrite(piece, start, nbd.CMD_FLAG_FUA if kind < 0.1 else 0)
        self.unsure = None
        self.data[start:start + count] = piece
        if kind < 0.02:
            self.handle.flush()

    def writes_until(self, holds, limit=60, pause=0.004):
        deadline = time.monotonic() + limit
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {limit} s")
            self.write()
            time.sleep(pause)

    def check(self, test):
        for start in range(0, SIZE, MIB):
            test.assertEqual(self.handle.pread(MIB, start), self.data[start:start + MIB], f"at {start}")

    def leave(self):
        self.handle.shutdown()


@unittest.skipUnless(CLUSTER, "no cluster")
class SwitchTest(ServingTest):
    class Volume:
        """Made by each test for itself."""

        def __init__(self, _):
            self.name = f"switch-{secrets.token_hex(3)}"

        def remove(self):
            for pool in ("fast", "slow"):
                for name in run("rbd", "ls", pool).split():
                    if name.startswith(self.name):
                        subprocess.run(["rbd", "snap", "purge", "--no-progress", f"{pool}/{name}"], capture_output=True)
                        # A client that was killed is watched for a while.
                        for _ in range(40):
                            if subprocess.run(["rbd", "rm", "--no-progress", f"{pool}/{name}"],
                                              capture_output=True).returncode == 0:
                                break
                            time.sleep(1)

    def setUp(self):
        super().setUp()
        os.environ["GODWIT_RUNTIME_DIR"] = str(self.folder / "run")
        self.addCleanup(os.environ.pop, "GODWIT_RUNTIME_DIR")
        self.fast, self.slow = f"fast/{self.volume.name}", f"slow/{self.volume.name}"
        self.data = spread(bytearray(SIZE))
        run("rbd", "import", "--no-progress", self.file(self.data, "import"), self.fast)
        self.uri = f"nbd+unix:///{self.volume.name}?socket={self.socket}"

    def move(self, *words, source=None, target=None):
        return Process(
            self, "migrate", "--live", "--export", f"unix:{self.socket}", "--progress", "none", "--json", *words,
            f"rbd:{source or self.fast}", f"rbd:{target or self.slow}")

    def has_switched(self, move):
        return lambda: "its clients are at the target" in move.said() or move.process.poll() is not None

    def report(self, move):
        return json.loads(move.process.stdout.read())

    def contents(self, spec):
        with tempfile.TemporaryDirectory() as folder:
            run("rbd", "export", "--no-progress", spec, f"{folder}/image")
            with open(f"{folder}/image", "rb") as file:
                return file.read()

    def expect_end(self, move, client):
        """The last client leaves: so does the server, and nothing of the move is left."""
        client.leave()
        self.assertEqual(move.process.wait(30), 0, move.said())
        self.assertEqual(self.contents(self.slow), bytes(client.data))
        self.assertNotIn("godwit", run("rbd", "snap", "ls", self.fast) + run("rbd", "snap", "ls", self.slow))
        self.assertNotIn("godwit", run("rbd", "image-meta", "list", self.slow))
        self.assertNotIn("watcher=", run("rbd", "status", self.fast) + run("rbd", "status", self.slow))
        self.assertFalse(self.socket.exists())

    # A client that stays

    def test_the_client_stays_connected(self):
        run("rbd", "snap", "create", "--no-progress", f"{self.fast}@before")
        move = self.move("--verify")
        client = Client(self.uri, self.data)
        client.writes_until(lambda: "serving" in move.said())
        run("rbd", "snap", "create", "--no-progress", f"{self.fast}@meanwhile")
        client.writes_until(self.has_switched(move))
        self.assertIsNone(move.process.poll(), move.said())
        for _ in range(200):
            client.write()
        client.check(self)
        client.handle.flush()
        client.leave()
        self.assertEqual(move.process.wait(30), 0, move.said())
        report = self.report(move)
        self.assertTrue(report["verified"])
        self.assertLess(report["pause"]["seconds"], 0.3 + 0.2)
        self.assertEqual(self.contents(self.slow), bytes(self.data))
        names = [snap["name"] for snap in json.loads(run("rbd", "snap", "ls", "--format", "json", self.slow))]
        self.assertEqual(names, ["before", "meanwhile"])
        self.assertEqual(self.contents(f"{self.fast}@meanwhile"), self.contents(f"{self.slow}@meanwhile"))
        self.assertIn("godwit.moved", run("rbd", "image-meta", "list", self.fast))
        self.assertIn("was moved to", run(GODWIT, "migrate", f"rbd:{self.fast}", f"rbd:{self.slow}-2", rc=66))
        run("rbd", "object-map", "check", "--no-progress", self.slow)
        self.assertEqual(json.loads(run("rbd", "info", "--format", "json", self.slow))["flags"], [])

    def test_20_switches(self):
        # nbdkit comes back to whoever serves the volume next; fio can't.
        front = self.folder / "front.sock"
        pools, gaps, fio, last = [self.fast, self.slow], [], None, None
        kit = None
        for number in range(SWITCHES):
            source, target = pools[number % 2], pools[1 - number % 2]
            move = self.move("--source", "trash", source=source, target=target)
            self.wait_until(lambda: "serving" in move.said(), 60)
            if not kit:
                kit = subprocess.Popen(
                    ["nbdkit", "--foreground", "--unix", front, "--filter=retry", "nbd", f"uri={self.uri}", "retries=60",
                     "retry-delay=1", "retry-exponential=no"], stderr=subprocess.DEVNULL)
                self.addCleanup(kit.wait)
                self.addCleanup(kit.kill)
                self.wait_until(front.exists)
                fio = subprocess.Popen(
                    ["fio", "--name=w", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={front}", "--rw=randwrite",
                     "--bs=4k", f"--size={SIZE}", "--iodepth=8", "--rate=1m", "--verify=crc32c", "--verify_fatal=1",
                     "--verify_backlog=200", "--verify_state_save=0", "--time_based", "--runtime=600"],
                    cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                self.addCleanup(fio.kill)
            self.wait_until(self.has_switched(move), 120)
            # Some of what was written meanwhile is read back.
            time.sleep(1)
            self.assertIsNone(fio.poll(), "fio ended: " + (fio.stdout.read() if fio.poll() is not None else ""))
            if number == SWITCHES - 1:
                fio.send_signal(signal.SIGINT)
                said = fio.communicate(timeout=60)[0]
                self.assertIn("err= 0", said)
                written = int(re.search(r"issued rwts: total=(\d+),(\d+)", said).group(2))
                kit.terminate()
            move.process.send_signal(signal.SIGTERM)
            gaps.append(self.report(move)["pause"]["seconds"] * 1000)
            self.assertEqual(move.end(), 0, move.said())
        print(f"\n  {SWITCHES} switches, {written} writes: the longest gap {max(gaps):.0f} ms, the median "
              f"{statistics.median(gaps):.0f} ms", flush=True)
        self.assertLess(max(gaps), 500)

    # Ends

    def test_kill_9(self):
        client = move = None
        for number in range(6):
            move = self.move("--cutover", "manual", "--bandwidth", "16M")
            if client:
                client.connect(self.uri)
            else:
                client = Client(self.uri, self.data)
            try:
                client.writes_until(lambda began=time.monotonic(): time.monotonic() - began > 0.4 * (number + 1))
            except nbd.Error as error:
                raise AssertionError(move.said()) from error
            move.end(signal.SIGKILL)
        move = self.move()
        client.connect(self.uri)
        client.writes_until(self.has_switched(move))
        client.check(self)
        self.expect_end(move, client)

    def test_kill_9_at_the_switch(self):
        """At moments all over the hand-over: whoever serves next has every write that was acknowledged."""
        client = None
        for number in range(8):
            move = self.move("--source", "keep")
            if client:
                client.connect(self.uri)
            else:
                client = Client(self.uri, self.data)
            try:
                client.writes_until(
                    lambda: "round 1" in move.said() or move.process.poll() is not None or
                    "its clients are" in move.said(), pause=0.002)
                end = time.monotonic() + 0.03 * number
                client.writes_until(lambda: time.monotonic() > end, pause=0.002)
            except nbd.Error:
                pass
            if move.process.poll() is not None or "its clients are at the target" in move.said():
                break
            move.end(signal.SIGKILL)
        else:
            move = self.move()
            client.connect(self.uri)
            client.writes_until(self.has_switched(move))
        client.check(self)
        self.expect_end(move, client)

    def test_ctrl_c_and_on(self):
        move = self.move("--cutover", "manual")
        client = Client(self.uri, self.data)
        client.writes_until(lambda began=time.monotonic(): time.monotonic() - began > 1)
        move.process.send_signal(signal.SIGINT)
        try:
            client.writes_until(lambda: move.process.poll() is not None, 40)
        except nbd.Error:
            pass
        self.assertEqual(move.process.wait(30), 75, move.said())
        self.assertNotIn("watcher=", run("rbd", "status", self.fast))
        move = self.move()
        client.connect(self.uri)
        client.writes_until(self.has_switched(move))
        client.check(self)
        self.expect_end(move, client)

    def test_cancel(self):
        move = self.move("--cutover", "manual")
        client = Client(self.uri, self.data)
        client.writes_until(lambda began=time.monotonic(): time.monotonic() - began > 1)
        run(GODWIT, "cancel")
        client.writes_until(lambda: "its clients are at the source" in move.said(), 40)
        client.check(self)
        client.leave()
        self.assertEqual(move.process.wait(30), 75, move.said())
        self.assertNotIn(self.volume.name, run("rbd", "ls", "slow"))
        self.assertEqual(self.contents(self.fast), bytes(self.data))
        self.assertNotIn("godwit", run("rbd", "snap", "ls", self.fast) + run("rbd", "image-meta", "list", self.fast))

    def test_cutover_by_hand(self):
        move = self.move("--cutover", "manual")
        client = Client(self.uri, self.data)
        client.writes_until(lambda: '"ready"' in run(GODWIT, "status", "--json"), pause=0.02)
        run(GODWIT, "cutover")
        client.writes_until(self.has_switched(move))
        client.check(self)
        self.expect_end(move, client)

    def test_a_fast_writer_is_held_back(self):
        move = self.move("--bandwidth", "4M", "--throttle-floor", "64K")
        client = Client(self.uri, self.data)
        client.writes_until(self.has_switched(move), 120, pause=0)
        began, wrote = time.monotonic(), 0
        while time.monotonic() - began < 1:
            client.handle.pwrite(b"x" * 64 * KIB, 0)
            wrote += 64 * KIB
        self.data[:64 * KIB] = b"x" * 64 * KIB
        self.assertGreater(wrote, 4 * MIB, "it is still held back")
        self.expect_end(move, client)
        rounds = self.report(move)["rounds"]
        self.assertTrue(any(one.get("limitBytesPerSecond") for one in rounds), rounds)

    # Others

    def test_nobody_else_writes(self):
        move = self.move("--cutover", "manual")
        client = Client(self.uri, self.data)
        client.write()
        done = subprocess.run(
            ["rbd", "bench", "--io-type", "write", "--io-total", "4K", "--io-size", "4K", self.fast],
            capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        run(GODWIT, "export", f"rbd:{self.fast}", "--listen", f"unix:{self.folder}/other", rc=75)
        other = run(GODWIT, "migrate", "--live", "--export", f"unix:{self.folder}/other", f"rbd:{self.fast}",
                    f"rbd:{self.slow}-2", rc=75)
        self.assertIn("open for writing", other)
        client.check(self)
        client.leave()
        move.end()

    def test_a_client_elsewhere_comes_first(self):
        handle = subprocess.Popen(
            ["rbd", "bench", "--io-type", "write", "--io-total", "1G", "--io-size", "4K", "--io-threads", "1", self.fast],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(handle.wait)
        self.addCleanup(handle.kill)
        self.wait_until(lambda: "watcher=" in run("rbd", "status", self.fast))
        said = run(GODWIT, "migrate", "--live", "--export", f"unix:{self.socket}", f"rbd:{self.fast}", f"rbd:{self.slow}",
                   rc=75)
        self.assertIn("open for writing", said)
        self.assertFalse(self.socket.exists())

    def test_qemu_comes_back(self):
        move = self.move("--cutover", "manual")
        self.wait_until(lambda: "serving" in move.said(), 60)
        disk = json.dumps({"driver": "raw", "file": {
            "driver": "nbd", "export": self.volume.name, "reconnect-delay": 60,
            "server": {"type": "unix", "path": str(self.socket)}}})
        qemu = subprocess.Popen(["qemu-io", f"json:{disk}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, bufsize=1)
        self.addCleanup(qemu.stdout.close)
        self.addCleanup(qemu.wait)
        self.addCleanup(qemu.kill)

        def ask(command, done):
            # One by one: qemu-io doesn't look at lines again that came with another.
            qemu.stdin.write(command + "\n")
            qemu.stdin.flush()
            line = qemu.stdout.readline()
            self.assertIn(done, line)
            self.assertIn("ops", qemu.stdout.readline())

        for number in range(1, 40):
            ask(f"write -P {number} {number * MIB} 64k", "wrote 65536/65536")
            if number == 20:
                move.end(signal.SIGKILL)
                move = self.move("--cutover", "auto")
        for _ in range(2):
            for number in range(1, 40):
                ask(f"read -P {number} {number * MIB} 64k", "read 65536/65536")
            self.wait_until(self.has_switched(move), 60)
        qemu.stdin.write("quit\n")
        qemu.stdin.close()
        qemu.wait(30)
        self.assertEqual(move.process.wait(30), 0, move.said())

    # Words

    def test_what_makes_no_sense(self):
        for words, said in [
            (["--export", "unix:/x", f"rbd:{self.fast}", f"rbd:{self.slow}"], "goes with --live"),
            (["--live", "--export", "here", f"rbd:{self.fast}", f"rbd:{self.slow}"], "unix:PATH or HOST:PORT"),
            (["--live", "--export", "unix:/x", "--freeze", "exec:x", f"rbd:{self.fast}", f"rbd:{self.slow}"],
             "held by Godwit itself"),
            (["--live", "--export", "unix:/x", f"rbd:{self.fast}", "godwit://host/rbd:a/b"], "can't be served from here"),
            (["--live", "--export-name", "x", f"rbd:{self.fast}", f"rbd:{self.slow}"], "go with --export"),
        ]:
            self.assertIn(said, run(GODWIT, "migrate", *words, rc=64))


if __name__ == "__main__":
    unittest.main()
