"""Live moves on a cluster that fails meanwhile: the guest waits as it would without us, and nothing is lost."""

import os
import re
import shutil
import stat
import tempfile
import time

from environment import REPOSITORY
from harness import KIB, MIB, cluster, dev_cluster, setting
from live import FOLLOW, PATIENT, LiveTest, Watch

AWAY = 10  # seconds


class OSDs(LiveTest):
    """An OSD is away for 10 s. Moves in different phases are caught by the same outage, which saves time."""

    limit = 300

    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="outage-")
        self.addCleanup(shutil.rmtree, self.folder)
        # It is back in any case before the next test.
        self.addCleanup(dev_cluster, "osd-start", "1")
        self.away = os.path.join(self.folder, "away")

    def outage(self):
        """A program that ends an OSD, and sees to it that it comes back."""
        path, program = os.path.join(self.folder, "outage"), REPOSITORY / "Deploy/dev-cluster"
        cluster = setting("GODWIT_CLUSTER_DIR")
        with open(path, "w") as script:
            script.write(
                f"#!/bin/sh\nif [ -e '{self.away}' ]; then exit 0; fi\n"
                f"'{program}' osd-stop 1 --kill --dir '{cluster}' >/dev/null 2>&1\n: > '{self.away}'\n"
                f"(sleep {AWAY}; '{program}' osd-start 1 --dir '{cluster}') >/dev/null 2>&1 &\n")
        os.chmod(path, stat.S_IRWXU)
        return path

    def finishes(self, moving, guest, source, target):
        """A move that was caught by the outage in its hand-over: done, or the same command does it."""
        result = moving.wait(120)
        self.assertIn(result.rc, (0, 75), result)
        if result.rc == 75:
            self.assertIn(guest.calls[-1][0], ("thaw", "switch"), "whoever was frozen is let go")
            if not target.exists:
                self.assert_at_source(guest, source)
            self.live(source, target, *PATIENT, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def test_in_the_bulk_while_following_and_in_the_hand_over(self):
        light = {"rate": 4 * MIB, "length": 16 * MIB}
        (bulk_source, bulk_guest), (source, guest), (wait_source, wait_guest), (last_source, last_guest) = [
            self.guest(**light) for _ in range(4)]
        bulk_source.fill(16 * MIB, 32 * MIB, seed=1)
        bulk_watch, watch, wait_watch = [Watch(self, each) for each in (bulk_source, source, wait_source)]
        bulk_target, target, wait_target, last_target = [self.target() for _ in range(4)]
        following = self.begin(source, target, *FOLLOW, freeze=guest)
        waiting = self.begin(wait_source, wait_target, "--freeze", "wait", "--bandwidth", "10M")
        self.when_following(following, watch, 2)
        self.when_following(waiting, wait_watch, 2)
        bulk = self.begin(bulk_source, bulk_target, *PATIENT, "--bandwidth", "6M", freeze=bulk_guest)
        self.when_bulk(bulk, bulk_target, bulk_watch)
        # It goes away when this guest is frozen.
        last = self.begin(
            last_source, last_target, *PATIENT, "--freeze-timeout", "60s",
            freeze=last_guest.hook("--then", f"freeze={self.outage()}"))
        self.until(lambda: os.path.exists(self.away), "the outage", 40, last)
        for moving in bulk, following:
            self.until(lambda: "no answer" in moving.text(), "a word on what it waits for", 20, moving)
        dev_cluster("osd-start", "1")
        for each in bulk_guest, guest, wait_guest:
            self.assertTrue(each.is_writing(30), each.report())
        self.order("cutover", target.address)
        wait_guest.freeze()
        for moving in bulk, following, waiting:
            result = moving.wait(90)
            self.assertEqual(result.rc, 0, result)
        self.assert_handed_over(guest, source, target)
        self.assert_handed_over(bulk_guest, bulk_source, bulk_target)
        self.assert_same(wait_source, wait_target)
        wait_guest.assert_held(wait_target)
        for each in bulk_watch, watch, wait_watch:
            self.assertLessEqual(each.end().most, 2)
        self.finishes(last, last_guest, last_source, last_target)

    def test_in_the_freeze_and_in_the_switch(self):
        """One guest can't flush within the limit that its hook has; the other is switched just then."""
        source, guest = self.guest(rate=4 * MIB, length=16 * MIB)
        other_source, other_guest = self.guest(rate=16 * MIB, length=16 * MIB)
        target, other_target = self.target(), self.target()
        other = self.begin(
            other_source, other_target, *PATIENT, "--freeze-timeout", "12s",
            freeze=other_guest.hook("--await", f"freeze={self.away}"))
        self.until(lambda: other_guest.calls, "the freeze", 40, other)
        moving = self.begin(
            source, target, *PATIENT, "--freeze-timeout", "60s",
            freeze=guest.hook("--then", f"switch={self.outage()}"))
        self.finishes(other, other_guest, other_source, other_target)
        self.finishes(moving, guest, source, target)


class FullPool(LiveTest):
    def quota(self, limit):
        """Limits the bytes in the pool slow; 0 for no limit."""
        cluster().tool("ceph", "osd", "pool", "set-quota", "slow", "max_bytes", str(limit))
        # The monitor finds the pool full, or not full any more, by the next statistics.
        flags = lambda: re.search(
            r"(?m)^pool [0-9]+ 'slow' .*$", cluster().tool("ceph", "osd", "pool", "ls", "detail").stdout)[0]
        self.until(lambda: ("full_quota" in flags()) == (limit > 0), f"a quota of {limit} to take effect")
        time.sleep(0.5)

    def test_the_target_has_no_room(self):
        """The move ends, the guest isn't throttled any more, and goes on."""
        source, guest = self.guest(rate=0, block_size=64 * KIB, blocks=(1, 1))
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *PATIENT, "--bandwidth", "16M", freeze=guest)
        self.when_bulk(moving, target, watch)
        self.addCleanup(self.quota, 0)
        self.quota(1)
        result = moving.wait(60)
        self.assertEqual(result.rc, 75, result)
        self.assertRegex(result.stderr, "quota|room|full")
        self.assert_at_source(guest, source)
        self.quota(0)
        self.live(source, target, *PATIENT, "--bandwidth", "20M", freeze=guest)
        self.assert_handed_over(guest, source, target)
