"""Exports of others' NBD servers as volumes: 'godwit migrate', 'verify' and 'map' from and to them."""

import json
import os
import random
import subprocess
import tempfile
import time
import unittest

from servers import Server, connect_tcp, free_port, nbd_server, nbdkit, qemu_nbd

GODWIT = os.environ["GODWIT"]
KIB, MIB = 1 << 10, 1 << 20
SIZE = 16 * MIB


class VolumesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="godwit-interop-")
        self.addCleanup(self.folder.cleanup)
        self.random = random.Random(self.id())
        self.bytes = bytearray(SIZE)
        # What a partition table, a superblock and a disk's end would be, and pieces between them.
        for start, count in [(0, 5 * KIB), (MIB - 777, 2000), (3 * MIB + 1, 64 * KIB), (9 * MIB, MIB), (SIZE - 100, 100)]:
            self.bytes[start:start + count] = self.random.randbytes(count)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def file(self, name, contents):
        """A sparse file."""
        with open(self.path(name), "wb") as file:
            file.truncate(len(contents))
            for start in range(0, len(contents), 4 * KIB):
                block = contents[start:start + 4 * KIB]
                if any(block):
                    file.seek(start)
                    file.write(block)
        return self.path(name)

    def contents(self, path):
        with open(path, "rb") as file:
            return file.read()

    def serve(self, start, *words, **options):
        server = start(self.folder.name, *words, **options)
        self.addCleanup(server.kill)
        return server

    def qcow2(self, name="disk.qcow2", size=SIZE, source=None):
        if source:
            words = ["convert", "-q", "-f", "raw", "-O", "qcow2", source, self.path(name)]
        else:
            words = ["create", "-q", "-f", "qcow2", self.path(name), str(size)]
        subprocess.run(["qemu-img", *words], check=True)
        return self.path(name)

    def godwit(self, status, *words, timeout=120):
        done = subprocess.run([GODWIT, *words], capture_output=True, text=True, timeout=timeout)
        self.assertEqual(done.returncode, status, f"{words}\n{done.stdout}\n{done.stderr}")
        return done

    def report(self, *words):
        return json.loads(self.godwit(0, "migrate", "--json", *words).stdout)

    # Each server that holds SIZE bytes of zeros, and how to read what is on it afterwards.

    def targets(self):
        raw, kit, old = (self.file(name, bytes(SIZE)) for name in ("raw", "kit", "old"))
        qcow2 = self.qcow2()

        def unpacked(path):
            subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, path + ".raw"], check=True)
            return self.contents(path + ".raw")

        yield "nbdkit file", lambda: self.serve(nbdkit, "file", kit), lambda: self.contents(kit), []
        yield "qemu-nbd raw", lambda: self.serve(qemu_nbd, raw, "raw", name="r.sock", export="a b"), lambda: self.contents(raw), []
        yield "qemu-nbd qcow2", lambda: self.serve(qemu_nbd, qcow2, "qcow2", name="q.sock"), lambda: unpacked(qcow2), []
        # It can't tell what is zeros.
        yield "nbd-server", lambda: self.serve(nbd_server, old), lambda: self.contents(old), ["--overwrite"]

    def test_a_file_is_moved_to_each_server(self):
        source = self.file("source", self.bytes)
        for name, start, contents, options in self.targets():
            with self.subTest(name):
                server = start()
                address = server.address
                if options:
                    refused = self.godwit(73, "migrate", source, address)
                    self.assertIn("may hold data: its server doesn't tell", refused.stderr)
                report = self.report("--verify", *options, source, address)
                self.assertTrue(report["verified"])
                self.assertEqual(report["steps"][0]["means"], "file holes")
                self.godwit(0, "verify", source, address)
                # Nothing of it is only in the server's memory.
                server.kill()
                self.assertEqual(contents(), self.bytes)

    def test_each_server_is_moved_to_a_file(self):
        raw, kit, old = (self.file(name, self.bytes) for name in ("raw", "kit", "old"))
        for name, server, means in [
            ("nbdkit file", self.serve(nbdkit, "file", kit), "block status"),
            ("qemu-nbd raw", self.serve(qemu_nbd, raw, "raw", "--read-only", name="r.sock"), "block status"),
            ("qemu-nbd qcow2", self.serve(qemu_nbd, self.qcow2(source=raw), "qcow2", name="q.sock"), "block status"),
            ("nbd-server", self.serve(nbd_server, old), "everything"),
        ]:
            with self.subTest(name):
                target = self.path("moved-" + name.replace(" ", "-"))
                report = self.report("--verify", server.address, target)
                self.assertEqual(report["steps"][0]["means"], means)
                self.assertEqual(self.contents(target), self.bytes)
                self.assertLess(os.stat(target).st_blocks * 512, 3 * MIB, "holes stay holes")
                if means == "block status":
                    self.assertLess(report["steps"][0]["foundBytes"], 3 * MIB, "nothing else is read")

    def test_from_server_to_server(self):
        source = self.serve(qemu_nbd, self.qcow2(source=self.file("raw", self.bytes)), "qcow2")
        target = self.serve(nbdkit, "memory", str(SIZE))
        self.report("--verify", source.address, target.address)
        self.godwit(0, "verify", source.address, target.address)

    def test_over_tcp(self):
        port = free_port()
        target = Server(self.folder.name, "tcp", ["nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", str(port), "memory", str(SIZE)],
                        f"nbd://localhost:{port}")
        self.addCleanup(target.kill)
        target.wait(connect_tcp(port))
        source = self.file("source", self.bytes)
        self.report("--verify", source, target.address)
        self.godwit(0, "verify", target.address, source)

    def test_map_shows_what_the_server_says(self):
        server = self.serve(nbdkit, "file", self.file("disk", self.bytes))
        lines = json.loads(self.godwit(0, "map", "--json", server.address).stdout)
        self.assertEqual(sum(line["length"] for line in lines), SIZE)
        for line in lines:
            part = self.bytes[line["offset"]:line["offset"] + line["length"]]
            if line["type"] == 3:
                self.assertFalse(any(part), "a hole that isn't one")
        holes = sum(line["length"] for line in lines if line["type"] == 3)
        self.assertGreater(holes, 13 * MIB)

    def test_a_difference_is_found(self):
        server = self.serve(nbdkit, "file", self.file("disk", self.bytes))
        changed = bytearray(self.bytes)
        changed[9 * MIB + 12345] ^= 1
        differs = self.godwit(65, "verify", self.file("other", changed), server.address)
        self.assertIn("head: differs first at bytes ", differs.stdout)

    def test_data_is_lost_only_where_that_was_said(self):
        held = self.random.randbytes(SIZE + MIB)
        disk = self.file("disk", held)
        server = self.serve(nbdkit, "file", disk)
        source = self.file("source", self.bytes)
        refused = self.godwit(73, "migrate", source, server.address)
        self.assertIn("holds data", refused.stderr)
        self.assertIn("--overwrite", refused.stderr)
        plan = json.loads(self.godwit(73, "migrate", "--dry-run", "--json", source, server.address).stdout)
        self.assertEqual(len(plan["blockers"]), 1)
        self.assertEqual(self.contents(disk), held, "looking changes nothing")
        self.godwit(0, "migrate", "--dry-run", "--overwrite", source, server.address)
        self.assertEqual(self.contents(disk), held, "looking changes nothing")
        report = self.report("--overwrite", "--verify", source, server.address)
        self.assertTrue(any("those after the source's end are zeros" in text for text in report["notCarried"]))
        server.kill()
        self.assertEqual(self.contents(disk), self.bytes + bytes(MIB))
        self.assertIn("--overwrite is for the export", self.godwit(64, "migrate", "--overwrite", source, self.path("x")).stderr)

    def test_what_cannot_be_a_target_is_refused(self):
        source = self.file("source", self.bytes)
        small = self.serve(nbdkit, "memory", str(SIZE - 512))
        self.assertIn("fewer than the source's", self.godwit(73, "migrate", source, small.address).stderr)
        fixed = self.serve(nbdkit, "--readonly", "memory", str(SIZE), name="fixed.sock")
        self.assertIn("read-only", self.godwit(77, "migrate", source, fixed.address).stderr)
        self.assertIn("--live", self.godwit(64, "migrate", "--live", "rbd:a/b", small.address).stderr)
        same = self.godwit(64, "migrate", small.address, small.address)
        self.assertIn("source and target are the same", same.stderr)

    def test_a_server_that_is_not_there(self):
        missing = f"nbd+unix:///?socket={self.path('none')}"
        self.assertIn("No such file or directory", self.godwit(66, "map", missing).stderr)
        self.assertIn("Connection refused", self.godwit(69, "map", "nbd://127.0.0.1:1/x").stderr)
        server = self.serve(qemu_nbd, self.file("disk", self.bytes), "raw", export="disk")
        other = server.address.replace("/disk?", "/other?")
        self.assertIn("no such export", self.godwit(66, "map", other).stderr)

    def half_moved(self, source, server, disk):
        """Begins a move. :returns: its process, once there is something of it on the server's disk"""
        moving = subprocess.Popen(
            [GODWIT, "migrate", "--bandwidth", "2M", source, server.address], stderr=subprocess.PIPE, text=True)
        self.addCleanup(moving.kill)
        deadline = time.monotonic() + 60
        while not any(self.contents(disk)[MIB:]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return moving

    def test_a_move_whose_server_dies_begins_anew(self):
        full = self.random.randbytes(SIZE)
        source, disk = self.file("source", full), self.file("disk", bytes(SIZE))
        server = self.serve(nbdkit, "--filter=rate", "file", disk, "rate=16M")
        moving = self.half_moved(source, server, disk)
        server.kill()
        said = moving.communicate(timeout=60)[1]
        self.assertEqual(moving.returncode, 75, said)
        self.assertIn("the server closed the connection", said)
        self.assertIn("--overwrite begins anew", said)
        found = self.contents(disk)
        self.assertTrue(any(found), "it had begun")
        self.assertFalse(any(found[:MIB]), "nobody takes it for a volume")
        os.unlink(server.socket)
        again = self.serve(nbdkit, "file", disk)
        self.assertIn("holds data", self.godwit(73, "migrate", source, again.address).stderr)
        self.assertIn("no unfinished target", self.godwit(73, "abort", again.address).stderr)
        self.report("--overwrite", "--verify", source, again.address)
        again.kill()
        self.assertEqual(self.contents(disk), full)

    def test_ctrl_c_stops_between_pieces(self):
        source = self.file("source", self.random.randbytes(SIZE))
        disk = self.file("disk", bytes(SIZE))
        server = self.serve(nbdkit, "file", disk)
        moving = self.half_moved(source, server, disk)
        moving.terminate()
        said = moving.communicate(timeout=60)[1]
        self.assertEqual(moving.returncode, 75, said)
        self.assertIn("--overwrite begins anew", said)


if __name__ == "__main__":
    unittest.main()
