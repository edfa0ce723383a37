"""What the benchmarks of live moves share: volumes and clients that end with them, live moves, and the conditions."""
import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# Behind this folder: it has modules of the same names.
sys.path += [str(TESTS / "Cluster"), str(TESTS / "Machine")]

# These look for the cluster when they are imported.
from environment import start, tool  # noqa: E402
from guests import Guest, told  # noqa: E402
from machine import BLOCK, MAGIC, Machine, check_image, rbd_node  # noqa: E402
from volumes import KIB, MIB, Volume  # noqa: E402

# A move that takes longer hangs, or follows its writer for ever.
LONGEST = 300


def settle(bench, tiny):
    """What a removed image leaves to do should not slow whoever comes next."""
    time.sleep(1 if tiny else bench.SETTLE_SECONDS)


class Stage:
    """Stands in for the test to which a guest belongs: what was begun on it ends with it."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        runtime = tempfile.mkdtemp(prefix="godwit-")
        self.addCleanup(shutil.rmtree, runtime, ignore_errors=True)
        self.env = {"GODWIT_RUNTIME_DIR": runtime}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def addCleanup(self, function, *arguments, **options):
        self._stack.callback(function, *arguments, **options)

    def wait_until(self, holds, limit=30):
        deadline = time.monotonic() + limit
        while not holds():
            if time.monotonic() > deadline:
                raise SystemExit(f"not within {limit} s")
            time.sleep(0.02)

    def target(self, pool="slow"):
        """A volume that doesn't exist yet."""
        volume = Volume(pool, f"live-{secrets.token_hex(3)}")
        self.addCleanup(volume.unfinished.remove)
        self.addCleanup(volume.remove)
        return volume

    def volume(self, size, pool="fast"):
        return self.target(pool).create(size)

    def begin(self, source, target, freeze, *options):
        """Starts a live move."""
        moving = start(
            "migrate", "--live", "--json", "--progress", "none", "--freeze", freeze, *options, source.address,
            target.address, env=self.env)
        self.addCleanup(lambda: moving.has_ended or moving.kill())
        return moving

    def move(self, *arguments):
        """Moves live, to its end. :returns: the report"""
        return finished(self.begin(*arguments).wait(LONGEST))


def finished(result):
    """The report of a move that must have succeeded."""
    if result.rc != 0:
        raise SystemExit(str(result))
    return result.json


def sent(report):
    """All bytes that a move has sent: through itself, or from OSD to OSD."""
    return sum(step["sentBytes"] + step["copiedBytes"] for step in report["steps"])


def limits(report):
    """To what the writer was held, round by round, in bytes a second; nothing of rounds in which it wasn't."""
    return [entry["limitBytesPerSecond"] for entry in report["rounds"] if entry.get("limitBytesPerSecond")]


def verify(guest, volume):
    """Ends a guest, and compares all of the volume with what it wrote: it must have written every block once. A benchmark
    of a wrong copy is worth nothing.

    :returns: the guest's last report
    """
    report = guest.stop()
    findings = guest.findings(volume)
    if findings or report["errors"]:
        raise SystemExit(f"{volume}: {told(findings)}; errors: {report['errors']}")
    return report


class Marks(threading.Thread):
    """Notes what a guest had written whenever a snapshot of its volume is made: the first is the bulk's, and then one is
    each round's.

    A snapshot holds its writer for longer than it takes to see it, so what was written by then is what it holds.
    """

    def __init__(self, guest, volume):
        super().__init__(daemon=True)
        self._guest, self._ioctx, self._header = guest, volume.ioctx, f"rbd_header.{volume.id}"
        self._ends = threading.Event()
        self._newest = self._look()
        self.seen = []  # (when, bytes written)
        self.start()

    def _look(self):
        """The highest number that a snapshot had so far: `seq` of the snapshot context (cls_rbd, get_snapcontext)."""
        return int.from_bytes(self._ioctx.execute(self._header, "rbd", "get_snapcontext", b"")[1][:8], "little")

    def run(self):
        while not self._ends.wait(0.01):
            newest = self._look()
            if newest != self._newest:
                self._newest = newest
                self.seen.append((time.monotonic(), self._guest.report()["bytes"]))

    def end(self):
        self._ends.set()
        self.join()
        return self.seen


def conditions(sizes):
    """Under what the figures were measured.

    :param sizes: of the images, by part, in bytes
    """
    ceph = json.loads(tool("ceph", "osd", "stat", "--format", "json").stdout)
    version = tool("ceph", "--version").stdout.split()
    qemu = tool("qemu-system-x86_64", "--version").stdout.splitlines()[0]
    return {
        "cores": os.cpu_count(), "loadBefore": round(os.getloadavg()[0], 1), "osds": ceph["num_up_osds"],
        "ceph": version[2], "qemu": qemu.removeprefix("QEMU emulator version "),
        "imageMiB": {part: size // MIB for part, size in sizes.items()}}


def seconds(value):
    return f"{value:.2f} s"


def pause(longest):
    """What --max-pause takes."""
    return f"{1000 * longest:.0f}ms"


def mib(value):
    return f"{value / MIB:.1f}"


__all__ = [
    "BLOCK", "Guest", "KIB", "MAGIC", "MIB", "Machine", "Marks", "Stage", "check_image", "conditions", "finished",
    "limits", "mib", "pause", "rbd_node", "seconds", "sent", "settle", "verify"]
