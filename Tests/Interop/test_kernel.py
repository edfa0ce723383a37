"""The kernel's own client: a volume that is exported as a block device, where the kernel has a driver for it."""

import mmap
import os
import subprocess
import unittest

from serving import KIB, MIB, SIZE, ServingTest, noise, run

DEVICE = "/dev/nbd0"


def has_driver():
    if not os.path.exists(DEVICE):
        subprocess.run(["sh", "-c", "modprobe nbd"], capture_output=True)
    return os.path.exists(DEVICE)


class Listing(ServingTest):
    def test_what_is_exported_is_listed(self):
        server, (uri,) = self.serve(self.volume.address, "--listen", "127.0.0.1:0", "--name", "a volume")
        port = uri.split(":")[2].split("/")[0]
        self.assertIn("a volume", run("nbd-client", "-l", "127.0.0.1", port))
        server.end()


@unittest.skipUnless(has_driver(), f"this kernel has no driver for NBD: there is no {DEVICE}")
class Kernel(ServingTest):
    def attach(self, uri, *words):
        run("nbd-client", "-unix", self.socket, DEVICE, "-N", self.volume.name, *words)
        self.addCleanup(subprocess.run, ["nbd-client", "-d", DEVICE], capture_output=True)
        with open("/sys/block/nbd0/size") as size:
            self.assertEqual(int(size.read()) * 512, SIZE)

    def test_it_is_a_block_device(self):
        server, uri = self.export()
        self.attach(uri, "-connections", "4")
        data = bytearray(noise(SIZE))
        device = os.open(DEVICE, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, MIB)
        for start in range(0, SIZE, MIB):
            buffer[:] = bytes(data[start:start + MIB])
            self.assertEqual(os.pwrite(device, buffer, start), MIB)
        os.fsync(device)
        run("blkdiscard", "--offset", 4 * MIB, "--length", 2 * MIB, DEVICE)
        data[4 * MIB:6 * MIB] = bytes(2 * MIB)
        run("blkdiscard", "--zeroout", "--offset", 9 * MIB, "--length", 64 * KIB, DEVICE)
        data[9 * MIB:9 * MIB + 64 * KIB] = bytes(64 * KIB)
        for start in range(0, SIZE, MIB):
            self.assertEqual(os.preadv(device, [buffer], start), MIB)
            self.assertEqual(buffer[:], bytes(data[start:start + MIB]), f"at {start}")
        os.close(device)
        run("nbd-client", "-d", DEVICE)
        self.end(server)
        self.assertEqual(self.volume.bytes(), bytes(data))


if __name__ == "__main__":
    unittest.main()
