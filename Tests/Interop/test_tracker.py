"""`godwit migrate --live --export` of files: what their clients change is marked, and moved once more."""

import json
import os
import random
import secrets
import signal
import time
import unittest

import nbd

from receiving import Process
from serving import CLUSTER, GODWIT, KIB, MIB, ServingTest, run
from test_switch import SIZE, Client, spread


class TrackerTest(ServingTest):
    def setUp(self):
        super().setUp()
        os.environ["GODWIT_RUNTIME_DIR"] = str(self.folder / "run")
        self.addCleanup(os.environ.pop, "GODWIT_RUNTIME_DIR")
        self.data = spread(bytearray(SIZE))
        self.source, self.target = self.folder / "source", self.folder / "target"
        self.source.write_bytes(self.data)
        self.uri = f"nbd+unix:///source?socket={self.socket}"

    def move(self, *words, source=None, target=None):
        return Process(
            self, "migrate", "--live", "--export", f"unix:{self.socket}", "--export-name", "source", "--progress", "none",
            "--json", *words, source or self.source, target or self.target)

    def has_switched(self, move):
        return lambda: "its clients are at the target" in move.said() or move.process.poll() is not None

    def switch(self, move, client):
        """To the end of the move: the client stays, then leaves. :returns: the report"""
        client.writes_until(self.has_switched(move))
        self.assertIsNone(move.process.poll(), move.said())
        for _ in range(100):
            client.write()
        client.check(self)
        client.handle.flush()
        client.leave()
        self.assertEqual(move.process.wait(30), 0, move.said())
        self.assertFalse(self.socket.exists())
        self.assertEqual(list((self.folder / "run").iterdir()), [], "marks or a socket are left")
        self.assertEqual([p.name for p in self.folder.iterdir() if ".godwit-" in p.name and "moved" not in p.name], [])
        return json.loads(move.process.stdout.read())

    def marks(self):
        return [path for path in (self.folder / "run").iterdir() if path.suffix == ".marks"]

    def test_the_client_stays_connected(self):
        move = self.move("--verify", "--bandwidth", "32M")
        client = Client(self.uri, self.data)
        report = self.switch(move, client)
        self.assertTrue(report["verified"])
        self.assertLess(report["pause"]["seconds"], 0.3 + 0.2)
        self.assertEqual(self.target.read_bytes(), self.data)
        self.assertLess(self.target.stat().st_blocks * 512, SIZE // 2, "holes were written")

    def test_the_dirty_map_is_shown(self):
        move = self.move("--cutover", "manual")
        client = Client(self.uri, self.data)
        client.writes_until(lambda: '"ready"' in run(GODWIT, "status", "--json"), pause=0.02)
        client.leave()
        # A quiet volume has nothing dirty once it was followed.
        self.wait_until(lambda: not self.dirty(), 60)
        handle = nbd.NBD()
        handle.connect_uri(self.uri)
        handle.pwrite(b"x" * KIB, 9 * MIB + 5)
        self.assertEqual(self.dirty(), [(9 * MIB, 64 * KIB)])
        handle.shutdown()
        move.end()

    def test_where_it_cant_be_served_nothing_is_moved(self):
        self.socket.write_text("no socket")
        said = run(GODWIT, "migrate", "--live", "--export", f"unix:{self.socket}", self.source, self.target, rc=75)
        self.assertIn("is no socket of a dead server", said)
        self.assertEqual(self.socket.read_text(), "no socket")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir() if path != self.volume.path),
                         ["nbd.sock", "run", "source"])
        self.assertEqual(list((self.folder / "run").iterdir()), [])

    def dirty(self):
        runs = json.loads(run("nbdinfo", "--json", "--map=x-godwit:dirty", self.uri))
        return [(one["offset"], one["length"]) for one in runs if one["type"] == 1]

    def test_kill_9(self):
        client = None
        for number in range(6):
            move = self.move("--cutover", "manual", "--bandwidth", "16M")
            if client:
                client.connect(self.uri)
            else:
                client = Client(self.uri, self.data)
            client.writes_until(lambda began=time.monotonic(): time.monotonic() - began > 0.4 * (number + 1))
            move.end(signal.SIGKILL)
            self.assertEqual(len(self.marks()), 1)
        move = self.move()
        client.connect(self.uri)
        report = self.switch(move, client)
        self.assertEqual(self.target.read_bytes(), self.data)
        # What was there was known: little was read again.
        self.assertTrue(report["resumed"])

    def interrupted(self):
        """Most of it is at the target as the move is killed. :returns: the client"""
        move = self.move("--cutover", "manual")
        client = Client(self.uri, self.data)
        client.writes_until(lambda: '"ready"' in run(GODWIT, "status", "--json"), pause=0.02)
        for _ in range(50):
            client.write()
        move.end(signal.SIGKILL)
        return client

    def test_lost_marks(self):
        client = self.interrupted()
        for path in self.marks():
            path.unlink()
        move = self.move()
        client.connect(self.uri)
        report = self.switch(move, client)
        self.assertEqual(self.target.read_bytes(), self.data)
        self.assertLess(report["steps"][0]["sentBytes"], 2 * MIB, "what was alike was sent again")

    def test_damaged_marks(self):
        client = self.interrupted()
        for path in self.marks():
            path.write_bytes(random.Random(3).randbytes(path.stat().st_size))
        move = self.move()
        client.connect(self.uri)
        self.switch(move, client)
        self.assertEqual(self.target.read_bytes(), self.data)

    def test_somebody_else_wrote_meanwhile(self):
        client = self.interrupted()
        time.sleep(1.5)
        with open(self.source, "r+b") as file:
            file.seek(33 * MIB)
            file.write(b"another")
        self.data[33 * MIB:33 * MIB + 7] = b"another"
        move = self.move()
        client.connect(self.uri)
        self.switch(move, client)
        self.assertEqual(self.target.read_bytes(), self.data)

    def test_kill_9_at_the_switch(self):
        """At moments all over the hand-over, and after it: whoever serves next has every write that was acknowledged."""
        client = None
        for number in range(8):
            move = self.move()
            if client:
                client.connect(self.uri)
            else:
                client = Client(self.uri, self.data)
            try:
                client.writes_until(lambda: self.target.exists() or "its clients" in move.said(), pause=0.001)
            except nbd.Error:
                pass
            move.end(signal.SIGKILL)
            if self.target.exists() and not (self.folder / "target.godwit-record").exists():
                break
        else:
            move = self.move()
            client.connect(self.uri)
            self.switch(move, client)
        server, (uri,) = self.serve(self.target, "--listen", f"unix:{self.folder}/plain")
        client.connect(uri)
        client.check(self)
        client.leave()
        server.end()

    def test_renamed(self):
        move = self.move("--source", "rename")
        client = Client(self.uri, self.data)
        self.switch(move, client)
        self.assertFalse(self.source.exists())
        self.assertTrue((self.folder / "source.godwit-moved").exists())

    def test_two_at_once(self):
        move = self.move("--cutover", "manual")
        client = Client(self.uri, self.data)
        client.write()
        other = run(GODWIT, "migrate", "--live", "--export", f"unix:{self.folder}/other", self.source,
                    self.folder / "another", rc=75)
        self.assertIn("another process moves the volume", other)
        run(GODWIT, "export", self.source, "--listen", f"unix:{self.folder}/other", rc=75)
        client.check(self)
        client.leave()
        move.end()

    def test_what_makes_no_sense(self):
        self.assertIn("keep, or rename", run(
            GODWIT, "migrate", "--live", "--export", "unix:/x", "--source", "trash", self.source, self.target, rc=64))

    @unittest.skipUnless(CLUSTER, "no cluster")
    def test_from_a_file_to_an_image_and_back(self):
        name = f"tracker-{secrets.token_hex(3)}"
        move = self.move("--verify", target=f"rbd:fast/{name}")
        client = Client(self.uri, self.data)
        self.switch(move, client)
        self.addCleanup(run, "rbd", "rm", "--no-progress", f"fast/{name}", timeout=90)
        move = self.move("--verify", source=f"rbd:fast/{name}")
        client.connect(self.uri)
        self.switch(move, client)
        self.assertEqual(self.target.read_bytes(), self.data)


if __name__ == "__main__":
    unittest.main()
