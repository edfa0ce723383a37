"""Real NBD clients at the export of a file, of a volume in memory, and of an RBD image."""

import errno
import json
import signal
import subprocess
import unittest

import nbd

from servers import nbdkit
from serving import CLUSTER, GODWIT, KIB, MIB, NBDSH, SIZE, FileVolume, ImageVolume, ServingTest, noise, run


class ClientTests:
    """What every client must be able to do, on every kind of volume."""

    # Whether zeroing is known to be faster than writing.
    zeroes_fast = True

    def sparse(self):
        """Data, a hole, data, a hole to the end."""
        contents = bytearray(SIZE)
        contents[: 3 * MIB] = noise(3 * MIB)
        contents[20 * MIB : 21 * MIB + 5] = noise(MIB + 5, 2)
        return bytes(contents)

    def test_nbdinfo(self):
        server, uri = self.export()
        export = json.loads(run("nbdinfo", "--json", uri))["exports"][0]
        self.assertEqual(export["export-size"], SIZE)
        for flag in ("can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"):
            self.assertTrue(export[flag], flag)
        self.assertFalse(export["is_read_only"])
        self.assertEqual(export["contexts"], ["base:allocation"])
        self.assertEqual([e["export-name"] for e in json.loads(run("nbdinfo", "--json", "--list", uri))["exports"]],
                         [self.volume.name])
        self.assertEqual(run("nbdinfo", "--size", uri).strip(), str(SIZE))
        handle = nbd.NBD()
        handle.connect_uri(uri)
        handle.pwrite(noise(64 * KIB), 8 * MIB)
        handle.shutdown()
        runs = json.loads(run("nbdinfo", "--map", "--json", uri))
        self.assertEqual(sum(one["length"] for one in runs), SIZE)
        self.assertEqual([(one["offset"], one["length"]) for one in runs if one["type"] == 0], [(8 * MIB, 64 * KIB)])
        self.end(server)

    def test_nbdcopy(self):
        server, uri = self.export()
        local, back = self.file(self.sparse()), self.folder / "back"
        for options in (["--connections=1"], ["--connections=4", "--request-size=1048576"]):
            run("nbdcopy", *options, "--flush", local, uri)
            run("nbdcopy", *options, uri, back)
            self.assertEqual(back.read_bytes(), local.read_bytes(), options)
            self.assertLess(back.stat().st_blocks * 512, 6 * MIB, "holes were copied as data")
        self.end(server)
        self.assertEqual(self.volume.bytes(), self.sparse())

    def test_nbdsh(self):
        server, uri = self.export()
        run(*NBDSH, "--uri", uri, "--command", "h.pwrite(b'godwit', 4093)", "--command",
            "assert h.pread(8, 4092) == b'\\0godwit\\0'", "--command", "h.flush()")
        self.end(server)
        self.assertEqual(self.volume.bytes()[4093:4099], b"godwit")

    def test_libnbd(self):
        server, uri = self.export()
        one, other = nbd.NBD(), nbd.NBD()
        for handle in (one, other):
            handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
            handle.connect_uri(uri)
        data = noise(MIB)
        one.pwrite(data, 5 * MIB, nbd.CMD_FLAG_FUA)
        self.assertEqual(other.pread(MIB, 5 * MIB), data)
        one.zero(300 * KIB, 5 * MIB + 64 * KIB, nbd.CMD_FLAG_NO_HOLE)
        if self.zeroes_fast:
            one.zero(64 * KIB, 5 * MIB + 512 * KIB, nbd.CMD_FLAG_FAST_ZERO)
        else:
            with self.assertRaises(nbd.Error) as refused:
                one.zero(64 * KIB, 5 * MIB + 512 * KIB, nbd.CMD_FLAG_FAST_ZERO)
            self.assertEqual(refused.exception.errnum, errno.ENOTSUP)
            one.zero(64 * KIB, 5 * MIB + 512 * KIB)
        one.trim(64 * KIB, 6 * MIB - 64 * KIB)
        expected = bytearray(data[: MIB - 64 * KIB])
        expected[64 * KIB : 364 * KIB] = bytes(300 * KIB)
        expected[512 * KIB : 576 * KIB] = bytes(64 * KIB)
        self.assertEqual(other.pread(MIB - 64 * KIB, 5 * MIB), expected)
        if other.can_cache():
            other.cache(MIB, 5 * MIB)
        found = []
        other.block_status(SIZE, 0, lambda _, offset, entries, error: found.extend(entries) or 0)
        self.assertEqual(sum(found[::2]), SIZE)
        self.assertEqual(found[:2], [5 * MIB, nbd.STATE_HOLE | nbd.STATE_ZERO])
        # What is refused, is refused rightly.
        one.set_strict_mode(0)
        for code, act in (
            (errno.ENOSPC, lambda: one.pwrite(b"1234", SIZE - 2)), (errno.EINVAL, lambda: one.pread(4, SIZE)),
            (errno.EINVAL, lambda: one.trim(0, 0)),
        ):
            with self.assertRaises(nbd.Error) as refused:
                act()
            self.assertEqual(refused.exception.errnum, code)
        one.shutdown()
        other.shutdown()
        self.end(server)

    def test_qemu_img(self):
        server, uri = self.export()
        local, back = self.file(self.sparse()), self.folder / "back"
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8", local, uri)
        self.assertIn("identical", run("qemu-img", "compare", "-f", "raw", "-F", "raw", local, uri))
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, back)
        self.assertEqual(back.read_bytes(), self.sparse())
        runs = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", uri))
        self.assertEqual(sum(one["length"] for one in runs), SIZE)
        self.assertLess(sum(one["length"] for one in runs if one["data"]), 5 * MIB)
        self.end(server)

    def test_qemu_io(self):
        server, uri = self.export()
        printed = run(
            "qemu-io", "-f", "raw", "-c", "write -P 7 4096 1M", "-c", "write -f -P 8 64k 100", "-c", "flush",
            "-c", "write -z -u 256k 128k", "-c", "write -z 512k 64k", "-c", "discard 768k 64k",
            "-c", "read -P 7 4096 61440", "-c", "read -P 8 64k 100", "-c", "read -P 0 256k 128k",
            "-c", "read -P 0 512k 64k", "-c", "read -P 7 640k 100k", uri)
        self.assertNotIn("fail", printed.lower())
        self.end(server)
        self.assertEqual(self.volume.bytes()[65536:65636], b"\x08" * 100)

    def fio(self, uri, *options):
        # A header in each block says where it belongs.
        return run("fio", "--name=f", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--verify=crc32c",
                   "--verify_fatal=1", "--verify_state_save=0", "--iodepth=16", "--output-format=terse", *options)

    def test_fio(self):
        server, uri = self.export()
        # Four connections, each with its quarter.
        self.fio(uri, "--bs=4k", "--numjobs=4", "--offset_increment=8m", "--size=8m", "--io_size=8m")
        self.fio(uri, "--bsrange=512-128k", "--bs_unaligned", "--numjobs=1", "--size=32m", "--io_size=16m")
        self.end(server)

    def test_read_only(self):
        server, uri = self.export("--read-only")
        handle = nbd.NBD()
        handle.connect_uri(uri)
        self.assertTrue(handle.is_read_only())
        handle.set_strict_mode(0)
        with self.assertRaises(nbd.Error) as refused:
            handle.pwrite(b"1", 0)
        self.assertEqual(refused.exception.errnum, errno.EPERM)
        self.assertEqual(handle.pread(4, 0), bytes(4))
        handle.shutdown()
        self.end(server)

    def test_ends_under_load(self):
        server, uri = self.export()
        with subprocess.Popen(
                ["fio", "--name=f", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=64k", "--iodepth=32",
                 "--size=32m", "--time_based", "--runtime=20"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
            self.addCleanup(load.kill)
            self.wait_until(self.has_changed)
            server.end(signal.SIGINT)
            load.kill()
        self.assertFalse(self.socket.exists())
        # Nothing holds it any more.
        server, _ = self.export()
        self.end(server)


class FileTests(ClientTests, ServingTest):
    Volume = FileVolume

    def has_changed(self):
        return self.volume.path.stat().st_blocks > 0

    def test_in_use(self):
        first, _ = self.export()
        other = self.folder / "other.sock"
        refused = run(GODWIT, "export", self.volume.address, "--listen", f"unix:{other}", rc=75)
        self.assertIn("locked for writing", refused)
        server, (uri,) = self.serve(self.volume.address, "--listen", f"unix:{other}", "--read-only")
        self.assertEqual(run("nbdinfo", "--size", uri).strip(), str(SIZE))
        server.end()
        self.end(first)


class MemoryVolume:
    """Another server's memory, of zeros: Godwit serves it on."""

    name = "memory"

    def __init__(self, folder):
        self.server = nbdkit(str(folder), "memory", str(SIZE))
        self.address = f"nbd+unix:///{self.name}?socket={self.server.socket}"

    def bytes(self):
        handle = nbd.NBD()
        handle.connect_uri(self.address)
        contents = b"".join(handle.pread(MIB, start) for start in range(0, SIZE, MIB))
        handle.shutdown()
        return contents

    def remove(self):
        self.server.kill()


class MemoryTests(ClientTests, ServingTest):
    Volume = MemoryVolume
    # How the other server does it, nobody tells.
    zeroes_fast = False

    def has_changed(self):
        return any(self.volume.bytes())


@unittest.skipUnless(CLUSTER, "no cluster")
class ImageTests(ClientTests, ServingTest):
    Volume = ImageVolume

    def has_changed(self):
        return "rbd_data" in run("rados", "--pool", "fast", "ls")

    def test_snapshot(self):
        server, uri = self.export()
        local = self.file(self.sparse())
        run("nbdcopy", "--flush", local, uri)
        self.end(server)
        run("rbd", "snap", "create", "--no-progress", f"fast/{self.volume.name}@monday")
        server, (head, old) = self.serve(
            self.volume.address, self.volume.address + "@monday", "--listen", f"unix:{self.socket}", count=2)
        self.assertIn("monday", old)
        run(*NBDSH, "--uri", head, "--command", "h.pwrite(b'changed', 0)", "--command", "h.flush()")
        run("nbdcopy", old, self.folder / "back")
        self.assertEqual((self.folder / "back").read_bytes(), self.sparse())
        self.assertTrue(json.loads(run("nbdinfo", "--json", old))["exports"][0]["is_read_only"])
        self.end(server)

    def test_in_use(self):
        first, _ = self.export()
        refused = run(GODWIT, "export", self.volume.address, "--listen", f"unix:{self.folder}/other", rc=75)
        self.assertIn("open for writing", refused)
        self.assertIn("--read-only", refused)
        self.end(first)


if __name__ == "__main__":
    unittest.main()
