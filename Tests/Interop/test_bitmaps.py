"""Incremental moves by QEMU's dirty bitmaps: '--dirty-bitmap' of 'godwit migrate', 'verify' and 'map'."""

import json
import os
import signal
import subprocess
import time
import unittest

import test_volumes
from servers import Server, connect_unix, nbd_server, nbdkit, qemu_nbd
from test_volumes import GODWIT, KIB, MIB, SIZE


CLUSTER = 64 * KIB  # of qcow2, and of its bitmaps, unless told otherwise


def storage_daemon(folder, disk, bitmap, *, writable=False, name="daemon.sock"):
    """A qcow2 image with one of its bitmaps, by qemu-storage-daemon."""
    path = os.path.join(folder, name)
    options = {
        "type": "nbd", "id": "e", "node-name": "d", "name": "disk", "writable": writable, "bitmaps": [bitmap]}
    words = [
        "qemu-storage-daemon", "--blockdev", f"file,node-name=f,filename={disk}",
        "--blockdev", f"qcow2,node-name=d,file=f,read-only={'off' if writable else 'on'}",
        "--nbd-server", f"addr.type=unix,addr.path={path},max-connections=0", "--export", json.dumps(options)]
    server = Server(folder, name, words, f"nbd+unix:///disk?socket={path}")
    return server.wait(connect_unix(path))


class BitmapsTest(unittest.TestCase):
    # Not by inheritance: its tests would be run once more.
    path, file = test_volumes.VolumesTest.path, test_volumes.VolumesTest.file
    contents, serve = test_volumes.VolumesTest.contents, test_volumes.VolumesTest.serve
    qcow2, godwit = test_volumes.VolumesTest.qcow2, test_volumes.VolumesTest.godwit
    report = test_volumes.VolumesTest.report

    def setUp(self):
        test_volumes.VolumesTest.setUp(self)
        # Where zeros are to come later there is data now, and the reverse.
        for start, count in [(5 * MIB, 2 * MIB), (11 * MIB, 4 * CLUSTER)]:
            self.bytes[start:start + count] = self.random.randbytes(count)
        self.disk = self.qcow2(source=self.file("base.raw", self.bytes))
        subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", self.disk, "b0"], check=True)
        self.head = bytearray(self.bytes)
        self.dirty = {}
        self.change(0, 512, 0x11)  # where a partition table would be
        self.change(2 * MIB, 3 * CLUSTER, 0x22)  # data for zeros
        self.change(3 * MIB - 777, 5000, 0x33)  # across clusters, and a MiB
        self.change(5 * MIB, MIB, "discard")  # zeros for data
        self.change(11 * MIB + CLUSTER, CLUSTER, 0)  # zeros that are written
        self.change(13 * MIB, CLUSTER, "discard")  # zeros for zeros
        self.change(SIZE - 512, 512, 0x44)
        subprocess.run(["qemu-img", "bitmap", "--disable", "-f", "qcow2", self.disk, "b0"], check=True)

    def change(self, start, count, value):
        """Has QEMU write that byte, or discard, under the bitmap."""
        command = f"write -z -u {start} {count}" if value == "discard" else f"write -P {value} {start} {count}"
        done = subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, self.disk], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.head[start:start + count] = bytes([0 if value == "discard" else value]) * count
        for cluster in range(start // CLUSTER, (start + count - 1) // CLUSTER + 1):
            self.dirty[cluster * CLUSTER] = any(self.head[cluster * CLUSTER:(cluster + 1) * CLUSTER])

    @property
    def dirty_bytes(self):
        return len(self.dirty) * CLUSTER

    def source(self, *options, bitmap="b0", **others):
        return self.serve(qemu_nbd, self.disk, "qcow2", "--read-only", f"--bitmap={bitmap}", *options, **others)

    def base(self, name="copy", **options):
        """A server with a copy of the disk as it was, and the file it is in."""
        path = self.file(name, self.bytes)
        return self.serve(nbdkit, "file", path, name=f"{name}.sock", **options), path

    def lines(self, *words):
        return json.loads(self.godwit(0, "map", "--json", *words).stdout)

    def test_only_what_is_dirty_is_moved_onto_the_base(self):
        for name, source in [
            ("several connections", self.source(name="many.sock")),
            ("one connection", self.serve(qemu_nbd, self.disk, "qcow2", "--read-only", "--bitmap=b0", "--shared=1", name="one.sock")),
            ("qemu-storage-daemon", self.serve(storage_daemon, self.disk, "b0")),
        ]:
            with self.subTest(name):
                target, path = self.base(name.replace(" ", "-"))
                plan = self.report("--dry-run", "--dirty-bitmap", "b0", source.address, target.address)
                self.assertEqual(plan["steps"][0]["dirtyBytes"], self.dirty_bytes)
                self.assertEqual(plan["blockers"], [])
                self.assertEqual(self.contents(path), self.bytes, "looking changes nothing")
                report = self.report("--verify", "--dirty-bitmap", "b0", source.address, target.address)
                step = report["steps"][0]
                self.assertEqual(step["means"], "dirty bitmap")
                self.assertEqual(step["foundBytes"], self.dirty_bytes)
                # In blocks of 4 KiB.
                blocks = [
                    any(self.head[start + block:start + block + 4 * KIB])
                    for start in self.dirty for block in range(0, CLUSTER, 4 * KIB)]
                self.assertEqual(step["sentBytes"], sum(blocks) * 4 * KIB)
                self.assertEqual(step["zeroedBytes"], (len(blocks) - sum(blocks)) * 4 * KIB)
                self.godwit(0, "verify", source.address, target.address)
                target.kill()
                source.kill()
                self.assertEqual(self.contents(path), self.head)

    def test_dirty_zeros_become_holes(self):
        source = self.source(name="source.sock")
        for kind in ("raw", "qcow2"):
            with self.subTest(kind):
                path = self.file(f"{kind}.raw", self.bytes)
                if kind == "qcow2":
                    path = self.qcow2("copy.qcow2", source=path)
                target = self.serve(qemu_nbd, path, kind, name=f"{kind}.sock")
                self.report("--dirty-bitmap", "b0", source.address, target.address)
                holes = [line for line in self.lines(target.address) if line["type"] == 3]
                self.assertTrue(any(hole["offset"] <= 5 * MIB and hole["offset"] + hole["length"] >= 6 * MIB for hole in holes), holes)
                self.godwit(0, "verify", source.address, target.address)

    def test_a_second_increment_follows_the_first(self):
        target, path = self.base()
        self.report("--dirty-bitmap", "b0", self.source(name="first.sock").address, target.address)
        second = self.qcow2("second.qcow2", source=self.file("head.raw", self.head))
        self.disk, self.dirty = second, {}
        subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", "--granularity", "64K", second, "b1"], check=True)
        self.change(7 * MIB + 3, 100, 0x55)
        subprocess.run(["qemu-img", "bitmap", "--disable", "-f", "qcow2", second, "b1"], check=True)
        report = self.report("--dirty-bitmap", "b1", self.source(bitmap="b1", name="second.sock").address, target.address)
        self.assertEqual(report["steps"][0]["foundBytes"], CLUSTER)
        target.kill()
        self.assertEqual(self.contents(path), self.head)

    def test_an_export_that_may_be_written_to(self):
        # Its bitmap goes on noting.
        subprocess.run(["qemu-img", "bitmap", "--enable", "-f", "qcow2", self.disk, "b0"], check=True)
        for name, start, words, many in [
            ("one", qemu_nbd, ["qcow2", "--bitmap=b0", "--shared=1"], 2), ("many", storage_daemon, ["b0"], 0),
        ]:
            with self.subTest(name):
                options = {"writable": True} if start is storage_daemon else {}
                source = self.serve(start, self.disk, *words, name=f"{name}.sock", **options)
                self.assertEqual(subprocess.run(["nbdinfo", "--can", "multi-conn", source.address]).returncode, many)
                target, path = self.base(f"{name}-copy")
                self.report("--dirty-bitmap", "b0", source.address, target.address)
                target.kill()
                source.process.terminate()  # so that it writes its bitmap back
                source.process.wait()
                self.assertEqual(self.contents(path), self.head)

    def test_what_was_ended_is_made_whole_by_the_same_again(self):
        subprocess.run(["qemu-img", "bitmap", "--enable", "-f", "qcow2", self.disk, "b0"], check=True)
        self.change(6 * MIB, 4 * MIB, 0x66)
        subprocess.run(["qemu-img", "bitmap", "--disable", "-f", "qcow2", self.disk, "b0"], check=True)
        source = self.source(name="source.sock")
        target, path = self.base()
        moving = subprocess.Popen(
            [GODWIT, "migrate", "--bandwidth", "1M", "--dirty-bitmap", "b0", source.address, target.address],
            stderr=subprocess.PIPE, text=True)
        self.addCleanup(moving.kill)
        deadline = time.monotonic() + 60
        while self.contents(path) == self.bytes and time.monotonic() < deadline:
            time.sleep(0.05)
        moving.send_signal(signal.SIGTERM)
        said = moving.communicate(timeout=60)[1]
        self.assertEqual(moving.returncode, 75, said)
        self.assertIn("holds neither state until the same command", said)
        self.assertNotIn("--overwrite", said)
        found = self.contents(path)
        self.assertNotEqual(found, self.bytes, "it had begun")
        self.assertNotEqual(found, self.head, "it hadn't ended")
        self.report("--dirty-bitmap", "b0", source.address, target.address)
        target.kill()
        self.assertEqual(self.contents(path), self.head)

    def test_map_lists_what_is_dirty(self):
        source = self.source()
        shown = {}
        for line in self.lines("--dirty-bitmap", "b0", source.address):
            for start in range(line["offset"], line["offset"] + line["length"], CLUSTER):
                shown[start] = (line["type"], line["description"])
        self.assertEqual(sorted(shown), sorted(self.dirty))
        for start, (number, name) in shown.items():
            self.assertEqual((number, name), (0, "data") if number == 0 else (3, "zero"))
            if number == 3:
                self.assertFalse(self.dirty[start], "zeros that aren't")
        self.assertEqual(shown[5 * MIB], (3, "zero"))
        self.assertEqual(shown[2 * MIB], (0, "data"))
        theirs = json.loads(subprocess.run(
            ["nbdinfo", "--json", "--map=qemu:dirty-bitmap:b0", source.address], check=True, capture_output=True).stdout)
        self.assertEqual(self.dirty_bytes, sum(run["length"] for run in theirs if run["type"] == 1))
        # All of it, without the option.
        self.assertEqual(sum(line["length"] for line in self.lines(source.address)), SIZE)

    def test_verify_compares_what_is_dirty(self):
        source = self.source()
        whole = ["verify", source.address]
        part = ["verify", "--dirty-bitmap", "b0", source.address]
        for place, inside in [(9 * MIB + 5, False), (2 * MIB + 5, True), (5 * MIB + 5, True)]:
            other = bytearray(self.head)
            other[place] ^= 1
            copy = self.file("other", other)
            self.assertIn("differs first at bytes", self.godwit(65, *whole, copy).stdout)
            done = self.godwit(65 if inside else 0, *part, copy)
            self.assertIn("differs first at bytes" if inside else "are equal: size, and what b0 says is dirty", done.stdout)

    def test_a_bitmap_that_is_not_there(self):
        target, path = self.base()
        old = self.serve(nbd_server, self.file("old", self.bytes))
        for name, address, bitmap in [
            ("another bitmap", self.source(name="other.sock").address, "b1"),
            ("no bitmap", self.serve(qemu_nbd, self.disk, "qcow2", "--read-only", name="none.sock").address, "b0"),
            ("nbdkit", self.serve(nbdkit, "memory", str(SIZE), name="kit.sock").address, "b0"),
            ("nbdkit without contexts", self.serve(nbdkit, "--no-sr", "memory", str(SIZE), name="sr.sock").address, "b0"),
            ("nbd-server", old.address, "b0"),
        ]:
            for words in [["migrate", address, target.address], ["verify", address, target.address], ["map", address]]:
                with self.subTest(name, command=words[0]):
                    said = self.godwit(66, *words, "--dirty-bitmap", bitmap).stderr
                    self.assertIn(f'no dirty bitmap "{bitmap}" of this export (qemu:dirty-bitmap:{bitmap})', said)
                    self.assertIn("nbdinfo", said)
        self.assertEqual(self.contents(path), self.bytes)

    def test_what_makes_no_sense_is_refused(self):
        source = self.source()
        target, path = self.base()
        for said, words in [
            ("is no NBD server's export", ["migrate", path, target.address]),
            ("is no NBD server's export", ["verify", path, target.address]),
            ("is no NBD server's export", ["map", path]),
            ("only an NBD server's export can", ["migrate", source.address, self.path("new")]),
            ("only an NBD server's export can", ["migrate", source.address, "rbd:fast/v"]),
            ("only an NBD server's export can", ["migrate", source.address, "godwit://localhost/rbd:fast/v"]),
            ("what the target holds is needed", ["migrate", "--overwrite", source.address, target.address]),
            ("source and target are the same", ["migrate", source.address, source.address]),
        ]:
            with self.subTest(words):
                self.assertIn(said, self.godwit(64, *words, "--dirty-bitmap", "b0").stderr)
        self.assertIn("--dirty-bitmap", self.godwit(64, "map", source.address, "--dirty-bitmap", "").stderr)
        self.assertFalse(os.path.exists(self.path("new")))
        small = self.serve(nbdkit, "memory", str(SIZE - 512), name="small.sock")
        said = self.godwit(73, "migrate", "--dirty-bitmap", "b0", source.address, small.address).stderr
        self.assertIn("fewer than the source's", said)
        self.assertEqual(self.contents(path), self.bytes)


if __name__ == "__main__":
    unittest.main()
