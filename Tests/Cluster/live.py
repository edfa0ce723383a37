"""The base of every test of a live move: a guest that writes all the time, a watch on its source, and what must be true."""

import concurrent.futures
import re
import secrets
import signal
import sys
import tempfile
import threading
import time
import traceback

import rados
import rbd

from environment import run
from faults import InterruptedTest
from guests import Guest, told
from harness import MIB, start
from volumes import PIECE

THROTTLE = "conf_rbd_qos_write_bps_limit"
MOVED = "godwit.moved"
TRANSIENT = re.compile(rb"godwit\.[0-9a-f]{16}")
# What a test that isn't about the pause allows it to be.
PATIENT = ("--max-pause", "2s")
# A move that follows a guest of 4 to 10 MiB/s, with a round every two or three seconds, until it is told to hand over.
FOLLOW = ("--cutover", "manual", "--max-pause", "300ms", "--bandwidth", "40M")
# By how much a machine that does other things as well may miss a promise: seconds.
SLACK = 0.5


class Watch(threading.Thread):
    """Follows what a move does to its source: it asks the header, without opening the image, some 30 times a second.

    limits: the values of the throttle's key, each with when it was first seen; None for no such key
    transients: names of all snapshots of the move's own, in order; most: how many there were at once
    """

    def __init__(self, test, volume):
        super().__init__(daemon=True)
        self._ioctx, self._header = volume.ioctx, f"rbd_header.{volume.id}"
        self._ends = threading.Event()
        self.limits, self.transients, self.most, self.current = [], [], 0, []
        self.look()
        test.addCleanup(self.end)
        self.start()

    def look(self):
        try:
            with rados.ReadOpCtx() as operation:
                values, _ = self._ioctx.get_omap_vals(operation, "", "", 10_000)
                self._ioctx.operate_read_op(operation, self._header)
                pairs = dict(values)
        except rados.ObjectNotFound:
            return  # removed
        limit = pairs.get(f"metadata_{THROTTLE}")
        limit = None if limit is None else limit.decode()
        if not self.limits or self.limits[-1][1] != limit:
            self.limits.append((time.time(), limit))
        self.current = [
            found[0].decode() for key, value in pairs.items() if key.startswith("snapshot_")
            for found in [TRANSIENT.search(value)] if found]
        self.most = max(self.most, len(self.current))
        self.transients += [name for name in self.current if name not in self.transients]

    def run(self):
        while not self._ends.wait(0.03):
            self.look()

    def end(self):
        if not self._ends.is_set():
            self._ends.set()
            self.join()
            self.look()
        return self

    @property
    def limit(self):
        return self.limits[-1][1]

    @property
    def values(self):
        """Of the throttle's key, one after another."""
        return [limit for _, limit in self.limits]

    @property
    def rounds(self):
        return len(self.transients)


class LiveTest(InterruptedTest):
    _case = threading.local()  # the name of the case that this thread runs, and where its moves listen

    @property
    def env(self):
        """What godwit is run with: the moves of a test are the only ones that it sees."""
        if getattr(self._case, "test", None) is not self:
            self._begin_case(None)
        return {"GODWIT_RUNTIME_DIR": self._case.runtime}

    def _begin_case(self, name):
        runtime = tempfile.TemporaryDirectory(prefix="godwit-")
        self.addCleanup(runtime.cleanup)
        self._case.test, self._case.name, self._case.runtime = self, name, runtime.name

    def _name(self):
        case = self._case.name if getattr(self._case, "test", None) is self else None
        return f"{case}-{secrets.token_hex(3)}" if case else super()._name()

    # A guest, and its move

    def guest(self, size=48 * MIB, on=1, pool="fast", layout=None, **options):
        """A volume with a guest that writes to it, which has filled its part of it."""
        volume = self.volume(pool, size, on=on, **(layout or {}))
        return volume, Guest(self, volume, **{"fill": True, **options})

    def begin(self, source, target, *options, freeze=None, env=None, progress="plain"):
        """Starts a live move, which doesn't outlive the test.

        :param freeze: a guest whose hook is used, or what --freeze takes
        """
        if isinstance(freeze, Guest):
            freeze = freeze.hook()
        options = [*options, *(["--freeze", freeze] if freeze else [])]
        return super().begin(
            source, target, "--live", *options, env={**self.env, **(env or {})}, progress=progress)

    def live(self, source, target, *options, freeze=None, rc=0, timeout=90):
        """Moves live, to its end. :returns: the report, or the Result if it had to fail"""
        result = self.begin(source, target, *options, freeze=freeze).wait(timeout)
        self.assertEqual(result.rc, rc, result)
        return result.json if rc == 0 else result

    def order(self, *words, rc=0):
        """'godwit cutover TARGET' and so on."""
        result = run(*words, timeout=20, env=self.env)
        if rc is not None:
            self.assertEqual(result.rc, rc, result)
        return result

    def interrupt(self, moving, limit=20):
        """Ctrl-C."""
        moving.send(signal.SIGINT)
        result = moving.wait(limit)
        self.assertEqual(result.rc, 75, result)
        return result

    def when_following(self, moving, watch, rounds=3, limit=40):
        """The bulk is over, and so many rounds have begun."""
        self.until(lambda: watch.rounds >= rounds, f"round {rounds}", limit, moving)

    def when_bulk(self, moving, target, watch, limit=20):
        """The first round is under way."""
        self.until(lambda: target.unfinished.exists and watch.current, "the first round", limit, moving)

    # What must be true

    def assert_released(self, source, limit=None):
        """No throttle of the move's is left on a source that its guest goes on with: its own value, or none."""
        self.assertEqual(source.metadata.get(THROTTLE), limit, f"{source}: {THROTTLE}")

    def assert_at_source(self, guest, source, limit=None):
        """The guest goes on at the source as if nothing had been, and the source has all that it wrote."""
        self.assertTrue(guest.is_writing(), guest.report())
        self.assertEqual(guest.report()["address"], source.address)
        self.assertEqual(guest.report()["errors"], {})
        self.assert_released(source, limit)
        guest.assert_held(source)

    def assert_source_left(self, source, limit=None, moved=True):
        """Nothing of the move's is on the source, but the mark that it was moved."""
        self.assertEqual(self.transients(source), [], f"{source}: snapshots left")
        keys = {key for key in source.metadata if key.startswith("godwit")}
        self.assertEqual(keys, {MOVED} if moved else set(), f"{source}: metadata left")
        self.assert_released(source, limit)

    def assert_target(self, target, by_librbd=False, limit=None):
        """The target is finished and nothing of the move's is on it; its guest has been stopped."""
        self.assert_clean(target)
        self.assert_only(target)
        self.assertEqual(target.metadata.get(THROTTLE), limit, f"{target}: {THROTTLE}")
        self.assert_object_map_right(target, by_librbd)

    def assert_handed_over(self, guest, source, target, limit=None, by_librbd=False):
        """The guest goes on at the target, which is what the source was when it stood still; nothing is left of the move.

        Ends the guest. For moves that keep the source.
        """
        self.assertTrue(guest.is_writing(), guest.report())
        self.assertEqual(guest.report()["address"], target.address)
        report = guest.stop()
        guest.assert_held(target)
        guest.assert_held(source, guest.frozen_journal)
        self.assert_same_but_for(guest, source, target)
        self.assert_source_left(source, limit)
        self.assert_target(target, by_librbd, limit)
        return report

    def assert_same_but_for(self, guest, source, target):
        """Both have the same snapshots and the same bytes, but for blocks that the guest wrote after it was thawed."""
        ours, theirs = source.states(), target.states()
        self.assertEqual(
            [state[:3] for state in ours], [state[:3] for state in theirs], "(snapshot, is protected, size), the head last")
        for (name, _, _, left), (_, _, _, right) in zip(ours[:-1], theirs[:-1]):
            wrong = [index for index, pair in enumerate(zip(left, right)) if pair[0] != pair[1]]
            if wrong:
                self.fail(f"{name}: {self._difference(source, target, name, wrong)}")
        before, after = guest.frozen_journal, guest.journal
        differing = [index for index, pair in enumerate(zip(ours[-1][3], theirs[-1][3])) if pair[0] != pair[1]]
        wrong = []
        with source.open() as one, target.open() as other:
            for index in differing:
                position, length = index * PIECE, min(PIECE, one.size() - index * PIECE)
                left, right = one.read(position, length), other.read(position, length)
                for start in range(0, length, 4096):
                    if left[start:start + 4096] == right[start:start + 4096]:
                        continue
                    number = (position + start - after.offset) // after.block_size
                    if not 0 <= number < after.count or before.issued[number] == after.issued[number]:
                        wrong.append(position + start)
        self.assertEqual(wrong[:8], [], f"{len(wrong)} blocks of {source} and {target} differ, which nobody wrote since")

    def assert_pause(self, report, guest, seconds):
        """The pause is as long as was promised, its parts make it up, and the guest saw no longer one."""
        pause = report["pause"]
        self.assertLessEqual(pause["seconds"], seconds + SLACK, pause)
        parts = [pause.get(part) or 0 for part in ("freeze", "lastDiff", "lastBytes", "verify", "fence", "commit", "switch")]
        self.assertLessEqual(sum(parts), pause["seconds"] + 0.1, pause)
        self.assertGreaterEqual(sum(parts), 0.5 * pause["seconds"], pause)
        seen = guest["holds"][-1]["gapSeconds"]
        self.assertLessEqual(seen, pause["seconds"] + SLACK, guest["holds"])

    def assert_rounds(self, report):
        """Every round says what it did, in numbers that can be."""
        self.assertGreaterEqual(len(report["rounds"]), 1)
        for entry in report["rounds"]:
            for key in ("sentBytes", "dirtiedBytes", "seconds", "snapshotSeconds"):
                self.assertGreaterEqual(entry[key], 0, entry)
            for key in ("drainBytesPerSecond", "dirtyBytesPerSecond", "predictedPauseSeconds"):
                self.assertGreaterEqual(entry.get(key) or 0, 0, entry)
            self.assertTrue(entry["verdict"], entry)
            self.assertTrue(entry["reason"], entry)

    # Several at once

    def together(self, cases, at_once):
        """Runs cases beside each other; a failure of one doesn't end the others, and all are told."""
        failures, lock = [], threading.Lock()

        def run_case(case):
            self._begin_case(case.__name__.removeprefix("case_")[:40])
            begin = time.monotonic()
            try:
                case()
                ended = "ok"
            except Exception:  # told below
                ended = "FAIL"
                with lock:
                    failures.append(f"{case.__name__}:\n{traceback.format_exc()}")
            print(f"  {case.__name__} ... {ended}, {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)

        print(file=sys.stderr)
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            list(pool.map(run_case, cases))
        if failures:
            self.fail(f"{len(failures)} of {len(cases)} cases failed\n" + "\n".join(failures))

    def limits_of(self, watch, own=None):
        """The limits that a move set, in order: the watch's, without the guest's own."""
        return [int(value) for value in watch.values if value != own and value is not None]


class Cases(LiveTest):
    """A class of tests that wait for most of their time, and so are run beside each other: all its methods case_….

    One of them alone: python3 -m unittest test_live_carries.Snapshots.case_there_before
    """

    limit = 420
    at_once = 3

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        names = [name for name in dir(cls) if name.startswith("case_")]
        if names:
            cls.test_cases = lambda self: self.together([getattr(self, name) for name in names], self.at_once)


__all__ = ["Cases", "FOLLOW", "LiveTest", "MOVED", "PATIENT", "SLACK", "THROTTLE", "Watch", "told"]
