"""Moves that are ended before they are over, and what must be true after the same command was given again."""

import fcntl
import json
import os
import pty
import random
import re
import select
import signal
import struct
import termios
import time

import rados
import rbd

from harness import KIB, MIB, STANDARD, ClusterTest, run, start
from volumes import objects_named

RECORD, HOLDER = "godwit.record", "godwit.holder"
SNAPSHOTS = ("one", "two", "three")


def write_at_random(volume, random, pieces, length):
    """Overwrites parts of a volume: long runs and short ones, an object that goes, and zeros."""
    end = volume.size
    for _ in range(pieces):
        volume.fill(random.randrange(0, end - length, 512), length, seed=random.random())
    for _ in range(24):
        volume.fill(random.randrange(0, end - 16 * KIB, 512), random.randrange(512, 16 * KIB, 512), seed=random.random())
    volume.discard(random.randrange(0, end, 4 * MIB) // (4 * MIB) * (4 * MIB), 4 * MIB)
    volume.zero(random.randrange(0, end - MIB, 512), 300 * KIB)


class Moment:
    """A moment of a move: a condition on its two volumes, or a time after its start; and a little later."""

    def __init__(self, what, condition, later=0.0):
        self.what, self.later = what, later
        self._condition = condition

    def await_(self, moving, source, target):
        """Returns once it has come, or the move has ended."""
        begin = time.monotonic()
        while not moving.has_ended:
            try:
                if self._condition(source, target, time.monotonic() - begin):
                    break
            except (rbd.ImageNotFound, rados.ObjectNotFound, KeyError):
                pass  # what it asks for isn't there yet
            time.sleep(0.001)
        time.sleep(self.later)

    def __repr__(self):
        return f"{self.what} and {1000 * self.later:.0f} ms"


def after(seconds):
    return Moment(f"{seconds:.2f} s", lambda source, target, passed: passed >= seconds)


def when_kept(count, later=0.0):
    """The step to the snapshot after that has begun."""
    return Moment(
        f"{count} snapshots kept", lambda source, target, _: target.unfinished.snapshot_count >= count, later)


def on_terminal(command, keys=(), columns=100, limit=30):
    """Runs a program with a terminal as its stdin, stdout and stderr.

    :param keys: what to await on it (a pattern), and what to type then: one after the other
    :returns: what was shown, and the exit status
    """
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(command[0], command)
    shown, keys, deadline = "", list(keys), time.monotonic() + limit
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 65536).decode("utf-8", "replace")
                except OSError:
                    break  # nobody has it open any more
            if keys and re.search(keys[0][0], shown):
                os.write(terminal, keys.pop(0)[1])
        else:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(terminal)
    if keys or status == -signal.SIGKILL:
        raise AssertionError(f"{'never shown' if keys else 'hung'}: {keys}: {shown!r}")
    return shown, status


class InterruptedTest(ClusterTest):
    """Makes sources with a history, begins moves, and ends them."""

    def history(self, snapshots=SNAPSHOTS, size=96 * MIB, pieces=8, length=2 * MIB, features=STANDARD, name=None):
        """A source with so many snapshots, and some more data after the last; a move of it takes 1 to 2 s."""
        source = self.volume("fast", size, features=features, name=name)
        chance = random.Random(1)
        with source:
            for snapshot in [*snapshots, None]:
                write_at_random(source, chance, pieces, length)
                if snapshot is not None:
                    source.snap(snapshot, protect=snapshot == "two")
        return source

    def begin(self, source, target, *options, env=None, progress="none"):
        """Starts a move, which doesn't outlive the test."""
        moving = start(
            "migrate", source.address, target.address, "--json", "--progress", progress, *options, env=env)
        self.addCleanup(lambda: moving.has_ended or moving.kill())
        return moving

    def kill(self, moment, source, target, *options):
        """Begins a move, and kills it at that moment. :returns: whether it was killed before it ended"""
        moving = self.begin(source, target, *options)
        moment.await_(moving, source, target)
        moving.kill()
        result = moving.wait(30)
        self.assertIn(result.rc, (0, -9), f"to be killed at {moment}: {result}")
        return result.rc == -9

    def stop(self, moment, source, target, *options):
        """Begins a move, and asks it to stop at that moment."""
        moving = self.begin(source, target, *options)
        moment.await_(moving, source, target)
        moving.send()
        result = moving.wait(30)
        self.assertEqual(result.rc, 75, result)
        self.assertTrue(target.unfinished.exists, result)

    def go_on(self, source, target, *options, timeout=60):
        """Gives the same command again, which has to finish the move. :returns: the report"""
        return self.move(source, target, *options, timeout=timeout)

    def until(self, condition, what, limit=30, moving=None):
        """Waits for something that has to come, while the move runs."""
        deadline = time.monotonic() + limit
        while not condition():
            if moving is not None and moving.has_ended:
                self.fail(f"ended before {what}: {moving.wait(1)}")
            if time.monotonic() > deadline:
                self.fail(f"waited {limit} s in vain for {what}: {moving.text() if moving else ''}")
            time.sleep(0.05)

    # What is there

    @staticmethod
    def record(target):
        return json.loads(target.unfinished.metadata[RECORD])

    @staticmethod
    def transients(source):
        """Snapshots of a move's own on its source, those that are half removed among them."""
        with source.open() as image:
            return [
                snapshot["name"] for snapshot in image.list_snaps()
                if snapshot["name"].startswith("godwit")
                or snapshot.get("trash", {}).get("original_name", "").startswith("godwit")]

    @staticmethod
    def states(source):
        """What a move carries of it: without the snapshots that a move holds."""
        return [state for state in source.states() if not (state[0] or "").startswith("godwit")]

    @staticmethod
    def traces(image_id, ioctx):
        """Names of all objects of an image: header, maps and data, of its snapshots as well."""
        return [name for name in objects_named("rbd_", ioctx) if image_id in name.split(".")]

    # What must be true

    def assert_right(self, source, target, states):
        """The move is over, and nothing tells of its interruptions."""
        self.assert_same(source, target, states)
        self.assert_object_map_right(target)
        self.assert_clean(source)
        self.assert_clean(target)
        self.assert_only(target)

    def assert_clean(self, volume):
        self.assert_left_alone(volume)
        self.assertEqual(self.transients(volume), [], f"{volume}: snapshots left")
        if volume.snapshots == [snapshot["name"] for snapshot in volume.all_snapshots()]:
            with volume.open() as image:
                self.assertEqual(image.op_features(), 0, f"{volume}: marked as having snapshots in the trash")

    def assert_only(self, target):
        """The pool knows the target by its name alone, in its directory and otherwise."""
        names = [name for name in rbd.RBD().list(target.ioctx) if name.startswith(target.name)]
        self.assertEqual(names, [target.name], "images of that name")
        ids = objects_named(f"rbd_id.{target.name}", target.ioctx)
        self.assertEqual(ids, [f"rbd_id.{target.name}"], "names that lead to an image")

    def assert_nothing(self, target, image_id, limit=30):
        """Nothing of the target is left in its pool."""
        names = [name for name in rbd.RBD().list(target.ioctx) if name.startswith(target.name)]
        self.assertEqual(names, [], "images of that name")
        self.assertEqual(objects_named(f"rbd_id.{target.name}", target.ioctx), [], "names that lead to an image")
        # What only removed snapshots showed goes as the OSDs get to it.
        self.until(
            lambda: not self.traces(image_id, target.ioctx), "the last object of the target to be gone", limit)

    def abort(self, target, rc=0):
        result = run("abort", target.address, timeout=60)
        self.assertEqual(result.rc, rc, result)
        return result


__all__ = [
    "HOLDER", "InterruptedTest", "Moment", "RECORD", "SNAPSHOTS", "after", "on_terminal", "when_kept", "write_at_random"]
