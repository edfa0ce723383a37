"""Live moves on a cluster that fails meanwhile: the guest waits as it would without us, and nothing is lost."""

import contextlib
import os
import stat
import subprocess
import tempfile
import time

from environment import REPOSITORY
from harness import KIB, MIB, cluster, dev_cluster, setting
from live import FOLLOW, PATIENT, LiveTest, Watch

AWAY = 10  # seconds


class OSDs(LiveTest):
    """An OSD is away for 10 s. Moves in different phases are caught by the same outage, which saves time."""

    limit = 300

    @contextlib.contextmanager
    def away(self, osd=0):
        """An OSD is away for that long, however long the block takes."""
        begin = time.monotonic()
        dev_cluster("osd-stop", str(osd), "--kill")
        try:
            yield
            time.sleep(max(0, AWAY - (time.monotonic() - begin)))
        finally:
            dev_cluster("osd-start", str(osd))

    def test_in_the_bulk_and_while_following(self):
        bulk_source, bulk_guest = self.guest(rate=2 * MIB, length=48 * MIB)
        source, guest = self.guest(rate=4 * MIB, length=32 * MIB)
        wait_source, wait_guest = self.guest(rate=4 * MIB, length=16 * MIB)
        sources = bulk_source, source, wait_source
        watches = bulk_watch, watch, wait_watch = [Watch(self, each) for each in sources]
        bulk_target, target, wait_target = self.target(), self.target(), self.target()
        following = self.begin(source, target, *FOLLOW, freeze=guest)
        waiting = self.begin(wait_source, wait_target, "--freeze", "wait", "--bandwidth", "10M")
        self.when_following(following, watch, 3)
        self.when_following(waiting, wait_watch, 3)
        bulk = self.begin(bulk_source, bulk_target, *PATIENT, "--bandwidth", "8M", freeze=bulk_guest)
        self.when_bulk(bulk, bulk_target, bulk_watch)
        with self.away():
            for moving in bulk, following, waiting:
                self.until(lambda: "no answer" in moving.text(), "a word on what it waits for", 20, moving)
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
        for each in watches:
            self.assertLessEqual(each.end().most, 2)

    def outage_after(self, verb):
        """A program for the hook to run after a verb: it ends an OSD, and sees to it that it comes back."""
        script = tempfile.NamedTemporaryFile("w", prefix="then-", delete=False)
        self.addCleanup(os.unlink, script.name)
        program, folder = REPOSITORY / "Deploy/dev-cluster", setting("GODWIT_CLUSTER_DIR")
        script.write(
            f"#!/bin/sh\nif [ -e '{script.name}.done' ]; then exit 0; fi\n: > '{script.name}.done'\n"
            f"'{program}' osd-stop 1 --kill --dir '{folder}' >/dev/null 2>&1\n"
            f"(sleep {AWAY}; '{program}' osd-start 1 --dir '{folder}') >/dev/null 2>&1 &\n")
        script.close()
        os.chmod(script.name, stat.S_IRWXU)
        self.addCleanup(subprocess.run, ["rm", "-f", script.name + ".done"], check=False)
        # It is back in any case before the next test.
        self.addCleanup(dev_cluster, "osd-start", "1")
        return f"{verb}={script.name}"

    def handed_over_in_an_outage(self, verb, *options):
        source, guest = self.guest(rate=4 * MIB, length=32 * MIB)
        target = self.target()
        moving = self.begin(
            source, target, *PATIENT, *options, freeze=guest.hook("--then", self.outage_after(verb)))
        result = moving.wait(120)
        dev_cluster("osd-start", "1")
        self.assertIn(result.rc, (0, 75), result)
        self.assertIn(guest.calls[-1][0], ("thaw", "switch"), "whoever was frozen is let go")
        if result.rc == 75:
            if not target.exists:
                self.assert_at_source(guest, source)
            result = self.live(source, target, *PATIENT, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def test_in_the_hand_over(self):
        """It goes away when the guest is frozen: either the move gives up in time and thaws it, or it waits."""
        self.handed_over_in_an_outage("freeze", "--freeze-timeout", "60s")

    def test_in_the_hand_over_with_a_time_limit(self):
        """The hook itself takes longer than it may, as its guest can't flush."""
        self.handed_over_in_an_outage("freeze", "--freeze-timeout", "1s")

    def test_in_the_switch(self):
        self.handed_over_in_an_outage("switch", "--freeze-timeout", "60s")


class FullPool(LiveTest):
    def test_the_target_has_no_room(self):
        """The move ends, the guest isn't throttled any more, and goes on."""
        source, guest = self.guest(rate=0, block_size=64 * KIB, blocks=(1, 1))
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *PATIENT, "--bandwidth", "16M", freeze=guest)
        self.when_bulk(moving, target, watch)
        self.addCleanup(cluster().tool, "ceph", "osd", "pool", "set-quota", "slow", "max_bytes", "0")
        cluster().tool("ceph", "osd", "pool", "set-quota", "slow", "max_bytes", "1")
        result = moving.wait(60)
        self.assertEqual(result.rc, 75, result)
        self.assertRegex(result.stderr, "quota|room|full")
        self.assert_at_source(guest, source)
        cluster().tool("ceph", "osd", "pool", "set-quota", "slow", "max_bytes", "0")
        time.sleep(3)
        self.live(source, target, *PATIENT, "--bandwidth", "20M", freeze=guest)
        self.assert_handed_over(guest, source, target)


class Guests(LiveTest):
    """A guest that dies is a client that leaves, later."""

    def test_it_is_killed_while_its_move_waits(self):
        source, guest = self.guest(rate=8 * MIB, cache=True)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, "--freeze", "wait", "--bandwidth", "20M")
        self.when_following(moving, watch, 3)
        guest.kill()
        result = moving.wait(90)
        self.assertEqual(result.rc, 0, result)
        guest.assert_held(target)
        self.assert_same(source, target)
        guest.start(target)
        self.assertTrue(guest.is_writing(40))
        guest.stop()
        guest.assert_held(target)
