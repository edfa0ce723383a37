"""How a live move ends: the guest is frozen, fenced and switched, or goes on where it was; and nothing is ever lost."""

import os
import stat
import sys
import tempfile
import time

import rbd

from guests import Guest
from harness import KIB, MIB
from live import FOLLOW, MOVED, PATIENT, Cases, Watch

# Writes to an image, and says what became of it.
INTRUDER = """
import os, sys, rados, rbd
cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
cluster.connect()
with rbd.Image(cluster.open_ioctx(sys.argv[1]), sys.argv[2]) as image:
    try:
        image.write(b"intruder", 0)
        print("written")
    except rbd.Error as error:
        print(type(error).__name__)
"""
QUICK = (*PATIENT, "--freeze-timeout", "3s")
BUSY = {"rate": 12 * MIB, "block_size": 16 * KIB, "blocks": (1, 2)}


class HandOverTest(Cases):
    def script(self, text):
        """A program for the hook to run."""
        file = tempfile.NamedTemporaryFile("w", prefix="then-", delete=False)
        self.addCleanup(os.unlink, file.name)
        file.write("#!/bin/sh\n" + text)
        file.close()
        os.chmod(file.name, stat.S_IRWXU)
        return file.name

    def fails(self, guest, source, target, *hook, options=(), limit=60):
        """A move that has to fail in its hand-over, after which the guest goes on at the source. :returns: the result"""
        result = self.begin(source, target, *QUICK, *options, freeze=guest.hook(*hook)).wait(limit)
        self.assertEqual(result.rc, 75, result)
        self.assert_at_source(guest, source)
        self.assertTrue(target.unfinished.exists, result)
        self.assertFalse(target.exists, result)
        return result


class Hooks(HandOverTest):
    """A hook that fails: the guest goes on at the source, and the same command goes on with the move."""

    def case_freeze_fails(self):
        source, guest = self.guest(**BUSY)
        target = self.target()
        for hook, said in (
                (("--fail", "freeze"), "3"), (("--fail-after", "freeze"), "4"), (("--kill", "freeze"), "(?i)signal|kill")):
            result = self.fails(guest, source, target, *hook)
            self.assertRegex(result.stderr, "hook|freeze")
            self.assertRegex(result.stderr, said)
            self.assertEqual(guest.calls[-1], ("thaw", 0))
            if "--kill" not in hook:
                self.assertIn("told to fail", result.stderr, "what the hook itself had to say")
        self.live(source, target, *QUICK, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_freeze_hangs(self):
        source, guest = self.guest(**BUSY)
        target = self.target()
        for hook in ("--hang", "freeze"), ("--hang-before", "freeze"):
            begin = time.time()
            result = self.fails(guest, source, target, *hook, limit=40)
            self.assertRegex(result.stderr, r"(?i)3 ?s|timeout|no answer|in time")
            freeze = [call for call in guest.log if call["verb"] == "freeze"][-1]
            thaw = guest.log[-1]
            self.assertEqual((thaw["verb"], thaw["status"]), ("thaw", 0))
            self.assertLess(thaw["at"] - freeze["at"], 3 + 5, "the limit, and not much more")
            self.assertGreater(freeze["at"], begin)
            self.assertFalse(os.path.exists(f"/proc/{freeze['pid']}"), "the hook has outlived its limit")
        self.live(source, target, *QUICK, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_freeze_lies(self):
        """Somebody still has it open: who that is, is said; and nobody is cut off who wasn't asked for."""
        source, guest = self.guest(**BUSY)
        target = self.target()
        [address] = source.watchers()
        for hook in ("--lie", "freeze"), ("--hold",):
            result = self.fails(guest, source, target, *hook)
            self.assertIn(address.split("/")[0], result.stderr)
            self.assertIn(("thaw", 0), guest.calls)
        self.live(source, target, *QUICK, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_freeze_leaves_a_child(self):
        """It has done what it was asked for; that a child of it keeps its output open is none of the move's business."""
        source, guest = self.guest(**BUSY)
        target = self.target()
        self.live(source, target, *QUICK, freeze=guest.hook("--linger", "freeze", "--linger", "switch"))
        self.assert_handed_over(guest, source, target)

    def case_thaw_fails_as_well(self):
        """The guest stands still, and who reads what the move says knows it; the same command lets it go on."""
        source, guest = self.guest(**BUSY)
        target = self.target()
        result = self.begin(
            source, target, *QUICK, freeze=guest.hook("--fail-after", "freeze", "--fail", "thaw")).wait(60)
        self.assertEqual(result.rc, 75, result)
        self.assertRegex(result.stderr, "thaw")
        self.assertEqual(guest.state, "frozen")
        self.assert_released(source)
        self.live(source, target, *QUICK, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_switch_fails(self):
        self.switch_fails(("--fail", "switch"), ("--kill", "switch"), ("--fail-after", "switch"))

    def case_switch_hangs(self):
        self.switch_fails(("--hang-before", "switch"), ("--hang", "switch"))

    def switch_fails(self, *hooks):
        """The guest is at the source, or at the target, or stands still: where it is, there is the truth.

        Nothing that it was told is done gets lost, and the same command goes on.
        """
        for hook in hooks:
            source, guest = self.guest(**BUSY)
            target = self.target()
            result = self.begin(source, target, *QUICK, freeze=guest.hook(*hook)).wait(60)
            self.assertEqual(result.rc, 75, result)
            self.assertRegex(result.stderr, "switch")
            if hook[0] in ("--fail", "--hang-before"):
                self.assert_at_source(guest, source)
            elif guest.state == "writing":
                self.assertEqual(guest.report()["address"], target.address)
                self.assertTrue(target.exists)
            self.live(source, target, *QUICK, freeze=guest)
            self.assert_handed_over(guest, source, target)

    def case_no_such_hook(self):
        source, guest = self.guest(**BUSY)
        target = self.target()
        unexecutable = self.script("exit 0\n")
        os.chmod(unexecutable, stat.S_IRUSR | stat.S_IWUSR)
        for command in "exec:/nowhere/hook", f"exec:{unexecutable}", "exec:":
            result = self.begin(source, target, *QUICK, freeze=command).wait(30)
            self.assertIn(result.rc, (64, 66, 73, 75, 77), result)
            self.assertFalse(target.unfinished.exists, "it was known before the move began")
        self.assert_at_source(guest, source)
        self.assert_source_left(source, moved=False)

    def case_what_the_hook_is_told(self):
        source, guest = self.guest(**BUSY)
        target = self.target()
        self.live(source, target, *QUICK, freeze=guest)
        freeze, switch = guest.log
        self.assertEqual((freeze["verb"], freeze["address"]), ("freeze", []))
        self.assertEqual((switch["verb"], switch["address"]), ("switch", [target.address]))
        for call in freeze, switch:
            self.assertEqual((call["source"], call["target"]), (source.address, target.address))
        self.assert_handed_over(guest, source, target)


class Fences(HandOverTest):
    def case_a_client_that_is_stopped_but_holds_the_image_is_evicted(self):
        """As a virtual machine that is stopped does. Also with a cache, which was flushed."""
        for cache in False, True:
            source, guest = self.guest(**BUSY, cache=cache)
            target = self.target()
            self.live(source, target, *QUICK, "--fence", "blocklist", freeze=guest.hook("--hold"))
            self.assertEqual(guest.report()["errors"], {})
            self.assert_handed_over(guest, source, target)

    def case_a_liar_is_evicted_and_nothing_is_lost(self):
        """What it went on to write before it was cut off is at the target: it was acknowledged."""
        for _ in range(2):
            source, guest = self.guest(size=32 * MIB, rate=24 * MIB, block_size=16 * KIB, blocks=(1, 1), depth=8)
            target = self.target()
            result = self.begin(
                source, target, *QUICK, "--fence", "blocklist", "--bandwidth", "20M",
                freeze=guest.hook("--lie", "freeze")).wait(90)
            self.assertEqual(result.rc, 0, result)
            self.assertTrue(guest.is_writing(), guest.report())
            guest.stop()
            guest.assert_held(target)
            self.assert_source_left(source)
            self.assert_target(target)

    def case_somebody_else_is_not_switched(self):
        """A second client, of which the hook knows nothing."""
        source, guest = self.guest(size=64 * MIB, length=32 * MIB, **BUSY)
        other = Guest(self, source, rate=MIB, offset=32 * MIB, length=32 * MIB, fill=True)
        target = self.target()
        result = self.fails(guest, source, target)
        self.assertRegex(result.stderr, r"127\.0\.0\.1")
        self.assert_at_source(other, source)
        other.freeze()
        self.live(source, target, *QUICK, freeze=guest)
        other.switch(target)
        self.assertTrue(other.is_writing())
        other.stop()
        other.assert_held(target)
        self.assertTrue(guest.is_writing())
        guest.stop()
        guest.assert_held(target)

    def case_a_guest_that_comes_back_in_the_pause(self):
        """It was frozen, and somebody has started it again before the move is committed."""
        source, guest = self.guest(size=16 * MIB, rate=24 * MIB, block_size=64 * KIB, blocks=(1, 1))
        target = self.target()
        thaw = self.script(f"(sleep 0.4; {guest.hook()[5:]} thaw) >/dev/null 2>&1 &\n")
        result = self.begin(
            source, target, *QUICK, "--bandwidth", "8M", "--max-pause", "8s",
            freeze=guest.hook("--then", f"freeze={thaw}")).wait(90)
        self.assertIn(result.rc, (0, 75), result)
        if result.rc == 0:
            # It came so late that it was shut out: what it wrote failed, and nothing that was acknowledged is lost.
            self.assertEqual(guest.stop()["address"], target.address)
            guest.assert_held(target)
            return
        self.assert_at_source(guest, source)
        self.live(source, target, *QUICK, freeze=guest)
        self.assert_handed_over(guest, source, target)


    def case_nobody_writes_to_the_source_once_its_client_goes_on(self):
        """Whoever opens it while the client is sent on gets an error: a write that was acknowledged would be lost."""
        source, guest = self.guest(**BUSY)
        target, told = self.target(), self.script("")
        command = f"{sys.executable} -c '{INTRUDER}' {source.pool} {source.name}"
        hook = self.script(f'[ "$1" != switch ] || {command} >{told}\n{guest.hook()[5:]} "$@"\n')
        self.live(source, target, *QUICK, freeze=f"exec:{hook}")
        with open(told) as file:
            self.assertEqual(file.read(), "ReadOnlyImage\n")
        self.assert_handed_over(guest, source, target)


class Waiting(HandOverTest):
    def case_it_waits_until_the_client_leaves(self):
        for cache in False, True:
            source, guest = self.guest(**BUSY, cache=cache)
            target, watch = self.target(), Watch(self, source)
            moving = self.begin(source, target, "--freeze", "wait", "--bandwidth", "40M")
            self.when_following(moving, watch, 4)
            guest.freeze()
            result = moving.wait(40)
            self.assertEqual(result.rc, 0, result)
            self.assertEqual(watch.end().values, [None])
            self.assert_same(source, target)
            guest.switch(target)
            self.assert_handed_over(guest, source, target)

    def case_it_waits_if_nothing_is_said(self):
        source, guest = self.guest(**BUSY)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target)
        self.when_following(moving, watch, 3)
        guest.stop()
        result = moving.wait(40)
        self.assertEqual(result.rc, 0, result)
        guest.assert_held(target)
        self.assert_same(source, target)

    def case_it_waits_no_longer_than_it_was_told(self):
        """The client is left as it was, and the same command goes on from there."""
        source, guest = self.guest(**BUSY)
        target = self.target()
        result = self.live(source, target, "--freeze-timeout", "2s", rc=75, timeout=60)
        self.assertRegex(result.stderr, r"client\.\d+ at .* still has .* open, after 2\.0 s")
        self.assert_at_source(guest, source)
        guest.stop()
        self.assertTrue(self.live(source, target, "--freeze-timeout", "2s")["resumed"])
        guest.assert_held(target)
        self.assert_same(source, target)

    def case_a_client_that_comes_back_while_the_rest_is_sent(self):
        source, guest = self.guest(size=24 * MIB, rate=24 * MIB, block_size=64 * KIB, blocks=(1, 1))
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, "--freeze", "wait", "--bandwidth", "4M")
        self.when_following(moving, watch, 2, limit=60)
        for _ in range(3):
            # There is a round's worth of megabytes to be sent when it leaves, which takes seconds.
            guest.freeze()
            time.sleep(0.5)
            guest.thaw()
            time.sleep(0.7)
            self.assertFalse(moving.has_ended, "it came back before all was sent")
        guest.freeze()
        result = moving.wait(60)
        self.assertEqual(result.rc, 0, result)
        guest.assert_held(target)
        self.assert_same(source, target)

    def case_a_reader_is_no_client(self):
        """Who has it open read-only watches nothing, and is waited for by nobody."""
        source, target = self.history(size=16 * MIB, pieces=2, length=MIB), self.target()
        with source.open():
            self.live(source, target, "--freeze", "wait", timeout=30)
        self.assert_same(source, target)

    def case_a_client_that_is_killed(self):
        """It has left as soon as the cluster doesn't expect it back any more."""
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


class ByHand(HandOverTest):
    def case_manual(self):
        """It follows, and hands over when it is told to, not before."""
        source, guest = self.guest(rate=6 * MIB)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *FOLLOW, freeze=guest)
        self.when_following(moving, watch, 4)
        time.sleep(2)
        self.assertFalse(moving.has_ended)
        self.assertEqual(guest.calls, [])
        self.order("cutover", target.address)
        result = moving.wait(40)
        self.assertEqual(result.rc, 0, result)
        self.assert_handed_over(guest, source, target)

    def case_manual_and_waiting(self):
        """The client has left, but nobody has said so."""
        source, guest = self.guest(rate=2 * MIB)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, "--cutover", "manual", "--freeze", "wait")
        self.when_following(moving, watch, 3)
        guest.freeze()
        time.sleep(2)
        self.assertFalse(moving.has_ended)
        guest.thaw()
        guest.freeze()
        self.order("cutover")
        result = moving.wait(40)
        self.assertEqual(result.rc, 0, result)
        guest.assert_held(target)
        self.assert_same(source, target)


class Sources(HandOverTest):
    """What becomes of the source, and that it isn't moved a second time by mistake."""

    def moved(self, *options):
        source, guest = self.guest(rate=2 * MIB, length=16 * MIB)
        target, image_id = self.target(), source.id
        self.live(source, target, *QUICK, *options, freeze=guest)
        self.assertTrue(guest.is_writing())
        guest.stop()
        guest.assert_held(target)
        self.assert_target(target)
        return source, guest, target, image_id

    def case_kept(self):
        for options in (), ("--source", "keep"):
            source, guest, target, _ = self.moved(*options)
            self.assertIn(MOVED, source.metadata)
            self.assertNotIn(MOVED, target.metadata)
            guest.assert_held(source, guest.frozen_journal)
            self.assert_source_left(source)
            before = source.portrait()
            for again in (("--live",), ()):
                other = self.target()
                result = self.godwit(None, "migrate", source.address, other.address, *again)
                self.assertIn(result.rc, (66, 73), result)
                self.assertIn(target.address, result.stderr)
                self.assertFalse(other.exists or other.unfinished.exists)
            result = self.godwit(None, "migrate", source.address, target.address, "--live")
            self.assertIn(result.rc, (0, 66, 73), result)
            self.assert_unchanged(source, before)

    def case_renamed(self):
        source, guest, target, image_id = self.moved("--source", "rename")
        self.assertFalse(source.exists)
        [name] = [name for name in rbd.RBD().list(source.ioctx) if name.startswith(source.name)]
        renamed = source.sibling(name)
        self.addCleanup(renamed.remove)
        self.assertEqual(renamed.id, image_id)
        guest.assert_held(renamed, guest.frozen_journal)
        self.assertEqual(self.transients(renamed), [])
        result = self.godwit(None, "migrate", source.address, self.target().address, "--live")
        self.assertEqual(result.rc, 66, result)

    def case_in_the_trash(self):
        source, guest, target, image_id = self.moved("--source", "trash")
        self.assertFalse(source.exists)
        [entry] = [entry for entry in rbd.RBD().trash_list(source.ioctx) if entry["id"] == image_id]
        self.addCleanup(source.remove)
        self.assertEqual(entry["name"], source.name)
        rbd.RBD().trash_restore(source.ioctx, image_id, source.name)
        guest.assert_held(source, guest.frozen_journal)
        self.assertEqual(self.transients(source), [])

    def case_in_the_trash_with_snapshots(self):
        """An image with snapshots can be moved there as well."""
        source, guest = self.guest(rate=2 * MIB, length=16 * MIB)
        source.snap("one", protect=True)
        states = source.states()[:-1]
        target, image_id = self.target(), source.id
        self.live(source, target, *QUICK, "--source", "trash", freeze=guest)
        self.assertEqual(target.states()[:-1], states)
        rbd.RBD().trash_restore(source.ioctx, image_id, source.name)
        guest.stop()
        guest.assert_held(target)
        self.assertEqual(self.transients(source), [])
