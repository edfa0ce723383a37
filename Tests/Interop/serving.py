"""The base of every test with a real NBD client: makes volumes, exports them, and runs clients.

The environment says what is tested; Tests/run sets it:
  GODWIT     the binary
  CEPH_CONF  a cluster's ceph.conf, with a pool `fast`; without it the tests of images are left out
"""

import os
import pathlib
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

# nbdsh of this Python, which is Debian's: another that comes first in the path may not have libnbd.
NBDSH = sys.executable, "-m", "nbd"
KIB, MIB = 1 << 10, 1 << 20
SIZE = 32 * MIB
GODWIT = os.environ.get("GODWIT")
CLUSTER = os.environ.get("CEPH_CONF")
if not GODWIT or not os.path.exists(GODWIT):
    raise RuntimeError(f"GODWIT={GODWIT}: there is no such program; 'Tests/run interop' builds it")


def noise(count, seed=1):
    """Bytes that no two seeds have alike."""
    return random.Random(seed).randbytes(count)


def run(*command, rc=0, timeout=40):
    """Runs a program to its end, which has to have that exit status. :returns: what it printed"""
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    if done.returncode != rc:
        raise AssertionError(
            f"{' '.join(map(str, command))}\nexit status {done.returncode}, not {rc}\n{done.stdout}{done.stderr}")
    return done.stdout if rc == 0 else done.stdout + done.stderr


class Server:
    """A `godwit export` that runs."""

    def __init__(self, *arguments):
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [GODWIT, "export", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._errors, text=True)

    def uris(self, count=1):
        """What it printed once it listens."""
        lines = [self._process.stdout.readline().strip() for _ in range(count)]
        if "" in lines:
            raise AssertionError(f"godwit export: exit status {self._process.wait(20)}\n{self.errors()}")
        return lines

    def errors(self):
        self._errors.flush()
        return os.pread(self._errors.fileno(), 1 << 20, 0).decode()

    def end(self, number=signal.SIGTERM, timeout=20):
        """Asks it to end, if it hasn't. :returns: its exit status"""
        if self._errors.closed:
            return self._process.returncode
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            status = self._process.wait(timeout)
            if status != 0 and number != signal.SIGKILL:
                raise AssertionError(f"godwit export: exit status {status}\n{self.errors()}")
            return status
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"godwit export hung\n{self.errors()}")
        finally:
            self._process.stdout.close()
            self._errors.close()


class FileVolume:
    """A sparse file of zeros."""

    def __init__(self, folder):
        self.path = folder / f"v-{secrets.token_hex(3)}.img"
        self.name = self.path.name
        self.address = str(self.path)
        with open(self.path, "wb") as file:
            file.truncate(SIZE)

    def bytes(self):
        return self.path.read_bytes()

    def remove(self):
        self.path.unlink()


class ImageVolume:
    """An image of zeros."""

    def __init__(self, _):
        self.name = f"interop-{secrets.token_hex(3)}"
        self.address = f"rbd:fast/{self.name}"
        run("rbd", "create", f"fast/{self.name}", "--size", f"{SIZE}B")

    def bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "image"
            run("rbd", "export", "--no-progress", f"fast/{self.name}", path)
            return path.read_bytes()

    def remove(self):
        run("rbd", "snap", "purge", "--no-progress", f"fast/{self.name}")
        run("rbd", "rm", "--no-progress", f"fast/{self.name}")


class ServingTest(unittest.TestCase):
    """A test with an export of one new volume, whose kind a subclass names."""

    Volume = FileVolume
    maxDiff = 2000

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="godwit-interop-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.volume = self.Volume(self.folder)
        self.addCleanup(self.volume.remove)
        self.socket = self.folder / "nbd.sock"

    def shortDescription(self):
        return None  # a test is known by its name

    def serve(self, *arguments, count=1):
        """Starts a server, which ends well with the test. :returns: it and its URIs"""
        server = Server(*arguments)
        self.addCleanup(server.end, signal.SIGKILL)
        return server, server.uris(count)

    def export(self, *arguments):
        """Exports the volume. :returns: the server and the URI"""
        server, uris = self.serve(self.volume.address, "--listen", f"unix:{self.socket}", *arguments)
        return server, uris[0]

    def end(self, server):
        """Ends the server, gracefully."""
        server.end()
        self.assertFalse(self.socket.exists(), "the socket is still there")

    def file(self, contents, name="local"):
        path = self.folder / name
        path.write_bytes(contents)
        return path

    def wait_until(self, holds, limit=20):
        deadline = time.monotonic() + limit
        while not holds():
            self.assertLess(time.monotonic(), deadline, f"not within {limit} s")
            time.sleep(0.01)
