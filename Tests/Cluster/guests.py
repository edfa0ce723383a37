"""Clients that write to an image while it is moved: guests that know what they wrote, and fio."""

import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time

from environment import Running
from journal import Journal, told
from volumes import KIB

FOLDER = pathlib.Path(__file__).resolve().parent


class Guest:
    """A client in a process of its own that writes to a volume until it is told otherwise, and doesn't outlive its test.

    :param rate: bytes a second, 0 for as fast as it goes
    :param blocks: the least and the most blocks of a write
    :param block_size: bytes of a block that describes itself
    :param pattern: "random", "hot" (most writes to a sixteenth of the blocks), "sequential" or "once" (at random, but no
        block again before all were written; for single blocks)
    :param offset: where in the image its part of it begins, and by `length` how long it is; all of it unless said
    :param depth: writes under way at once
    :param cache: with librbd's cache, as QEMU has it, and a flush every half a second; what was acknowledged is durable
        then only once it was flushed
    :param zeros: how many of the writes are discards and requests for zeros
    :param fill: whether it writes every block once before it is ready
    """

    def __init__(self, test, volume, rate=4 << 20, blocks=(1, 16), block_size=4 * KIB, pattern="random", offset=0,
                 length=None, depth=4, cache=False, zeros=0.03, fill=False, flush_every=0.5):
        self._test, self.volume, self.id = test, volume, None
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="guest-"))
        test.addCleanup(shutil.rmtree, self._folder, ignore_errors=True)
        self._options = {
            "rate": rate, "blocks": blocks, "block_size": block_size, "pattern": pattern, "offset": offset,
            "length": volume.size - offset if length is None else length, "depth": depth, "cache": cache,
            "zeros": zeros, "fill": fill, "flush_every": flush_every, "seed": secrets.randbits(60),
            "journal": str(self._folder / "journal")}
        test.addCleanup(self.kill)
        self._running = None
        self.start()

    def start(self, volume=None):
        """Begins anew after its end, with the same journal."""
        self.volume = volume or self.volume
        self.socket = str(self._folder / f"socket-{secrets.token_hex(2)}")
        options = {**self._options, "address": self.volume.address, "socket": self.socket}
        self._running = Running(
            [sys.executable, FOLDER / "guest_program.py", json.dumps(options)],
            env={"PYTHONDONTWRITEBYTECODE": "1"})
        self._test.wait_until(lambda: self._running.has_ended or "ready" in self._running.text(0), limit=60)
        if self._running.has_ended:
            raise AssertionError(f"the guest died: {self._running.wait(1)}")
        return self

    # Orders

    def order(self, *words, limit=40):
        """Gives an order, which has to be obeyed. :returns: the answer"""
        answer = self.ask(*words, limit=limit)
        if not answer["ok"]:
            raise AssertionError(f"{' '.join(map(str, words))}: {answer['error']}")
        return answer

    def ask(self, *words, limit=40):
        """Gives an order. :returns: the answer"""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(limit)
            try:
                connection.connect(self.socket)
                connection.sendall((" ".join(map(str, words)) + "\n").encode())
                line = connection.makefile().readline()
            except OSError as error:
                line, what = "", error
            else:
                what = "no answer"
        if not line:
            raise AssertionError(f"{words[0]}: {what}; the guest has printed: {self._running.text()}")
        return json.loads(line)

    def freeze(self):
        return self.order("freeze")

    def thaw(self):
        return self.order("thaw")

    def switch(self, volume):
        self.volume = volume
        return self.order("switch", volume.address)

    def rate(self, rate):
        return self.order("rate", rate)

    def report(self):
        return self.order("report")

    def stop(self):
        """Ends it in good order. :returns: its report"""
        answer = self.order("stop")
        self._running.wait(10)
        self._running = None
        return answer

    def kill(self):
        """Ends it as a crash would: its watch and its lock stay until they time out, or it is evicted."""
        if self._running is not None:
            self._running.send(signal.SIGKILL)
            self._running.wait(10)
            self._running = None

    @property
    def state(self):
        """"writing", "frozen" or "failed"."""
        return self.report()["state"]

    def hook(self, *options):
        """What --freeze takes to have this guest frozen, thawed and switched."""
        return "exec:" + " ".join([str(FOLDER / "hook"), *options, self.socket])

    @property
    def calls(self):
        """What its hook was called for: a list of (verb, exit status or None if it didn't end by itself)."""
        return [(entry["verb"], entry.get("status")) for entry in self.log if entry["event"] == "begin"]

    @property
    def log(self):
        """Its hook's calls: verb, at, source, target, address, and once it has ended status and ended."""
        calls = []
        try:
            with open(self.socket + ".log") as file:
                entries = [json.loads(line) for line in file]
        except FileNotFoundError:
            return []
        for entry in entries:
            if entry["event"] == "begin":
                calls.append(entry)
            else:
                call = next(call for call in reversed(calls) if call["verb"] == entry["verb"])
                call.update(status=entry["status"], ended=entry["at"])
        return calls

    # What must be true

    @property
    def journal(self):
        return Journal(self._options["journal"])

    @property
    def frozen_journal(self):
        """Its journal as it was when it was frozen last."""
        return Journal(self._options["journal"] + ".frozen")

    def is_writing(self, limit=10):
        """Whether it writes, or does so within that time."""
        before, deadline = self.report(), time.monotonic() + limit
        while time.monotonic() < deadline:
            now = self.report()
            if now["state"] == "writing" and now["writes"] > before["writes"]:
                return True
            time.sleep(0.05)
        return False

    def findings(self, volume, journal=None):
        """Blocks of a volume that aren't what they must be by the guest's journal."""
        with volume.open() as image:
            return (journal or self.journal).check(image)

    def assert_held(self, volume, journal=None):
        """The volume holds all that this guest has written."""
        findings = self.findings(volume, journal)
        if findings:
            raise AssertionError(f"{volume}: {told(findings)}")


class Fio:
    """fio's own client of librbd: writes every block of a volume once, at random, each with a checksum of its own.

    :param rate: bytes a second, 0 for as fast as it goes
    :param seed: of the order and of the blocks' contents: another run's blocks are found to be wrong
    """

    def __init__(self, test, volume, rate=0, seed=1, block_size=64 * KIB, size=None, depth=8):
        self._test, self._rate, self._seed = test, rate, seed
        # All of it writes; but where fio takes a job for one that only writes, it doesn't compare the seeds of blocks.
        self._job = {
            "ioengine": "rbd", "clientname": "admin", "name": "guest", "numjobs": 1, "rw": "randrw", "rwmixread": 0,
            "bs": block_size, "iodepth": depth, "size": size or volume.size, "randseed": seed, "verify": "crc32c",
            "verify_fatal": 1, "verify_state_save": 0}
        self.volume = volume

    def _command(self, volume, *options):
        job = {**self._job, "pool": volume.pool, "rbdname": volume.name}
        return ["fio", *(f"--{key}={value}" for key, value in job.items()), "--minimal", *options]

    @property
    def _env(self):
        return {"CEPH_CONF": self.volume.cluster.conf}

    def start(self):
        """Begins to write."""
        rate = [f"--rate={self._rate}"] if self._rate else []
        self._running = Running(
            self._command(self.volume, "--do_verify=0", *rate), self._env)
        self._test.addCleanup(lambda: self._running.has_ended or self._running.kill())
        return self

    @property
    def has_ended(self):
        return self._running.has_ended

    def finish(self, timeout=120):
        """Waits until it has written all."""
        result = self._running.wait(timeout)
        if result.rc != 0:
            raise AssertionError(str(result))

    def verify(self, volume):
        """Reads a volume and compares. :returns: the result; its exit status says whether all is well"""
        env = {"CEPH_CONF": volume.cluster.conf}
        return Running(self._command(volume, "--verify_only"), env).wait(120)

    def assert_held(self, volume):
        result = self.verify(volume)
        if result.rc != 0:
            raise AssertionError(str(result))


__all__ = ["FOLDER", "Fio", "Guest", "Journal", "told"]
