"""Orders to a live move while it runs: status, pause, resume, cutover, throttle, bandwidth, cancel."""

import time

from harness import KIB, MIB, cluster
from live import FOLLOW, PATIENT, Cases, Watch

# Where such a guest has to be slowed down.
SLOWED = ("--bandwidth", "20M", "--max-pause", "1s")
FAST = {"rate": 40 * MIB, "block_size": 64 * KIB, "blocks": (1, 1), "depth": 8}


class Orders(Cases):
    def following(self, *options, rounds=3, **guest):
        """A move that follows its guest until it is told to hand over."""
        source, guest = self.guest(**{"rate": 6 * MIB, **guest})
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *(options or FOLLOW), freeze=guest)
        self.when_following(moving, watch, rounds)
        return source, guest, target, watch, moving

    def finishes(self, moving, guest, source, target):
        result = moving.wait(60)
        self.assertEqual(result.rc, 0, result)
        self.assert_handed_over(guest, source, target)
        return result.json

    def case_status(self):
        source, guest, target, watch, moving = self.following()
        for words in ("status",), ("status", target.address):
            said = self.order(*words).stdout
            self.assertIn(source.address, said)
            self.assertIn(target.address, said)
        result = self.order("status", "rbd:slow/no-such-target", rc=None)
        self.assertEqual(result.rc, 66, result)
        self.assertIn("no-such-target", result.stderr)
        self.order("cutover", target.address)
        self.finishes(moving, guest, source, target)
        result = self.order("status", rc=None)
        self.assertNotIn(target.address, result.stdout)

    def case_status_as_json(self):
        source, guest, target, watch, moving = self.following()
        [status] = self.order("status", "--json").json
        self.assertEqual((status["source"], status["target"]), (source.address, target.address))
        self.assertEqual(status["process"], moving.pid)
        self.assertGreaterEqual(len(status["rounds"]), 1)
        self.order("cutover")
        report = self.finishes(moving, guest, source, target)
        for mine, theirs in zip(status["rounds"], report["rounds"]):
            self.assertEqual(mine["sentBytes"], theirs["sentBytes"])
        self.assertEqual(self.order("status", "--json", rc=66).json, [])

    def case_nobody_runs(self):
        for word in "status", "pause", "resume", "cutover", "cancel":
            result = self.order(word, rc=None)
            self.assertEqual(result.rc, 66, result)

    def case_two_moves_need_a_name(self):
        moves = [self.following(rounds=2, length=16 * MIB), self.following(rounds=2, length=16 * MIB)]
        result = self.order("cutover", rc=None)
        self.assertEqual(result.rc, 64, result)
        for *_, target, _, _ in moves:
            self.assertIn(target.address, result.stderr)
            self.assertIn(target.address, self.order("status").stdout)
        for source, guest, target, _, moving in moves:
            self.order("cutover", target.address)
            self.finishes(moving, guest, source, target)

    def case_pause_and_resume(self):
        """Paused, it begins no round, and holds nobody up."""
        source, guest, target, watch, moving = self.following(*SLOWED, rounds=2, **FAST)
        self.until(lambda: watch.limit is not None, "the throttle", 40, moving)
        self.order("pause", target.address)
        self.until(lambda: watch.limit is None, "the throttle to be lifted", 10, moving)
        time.sleep(0.5)
        rounds = watch.rounds
        time.sleep(2)
        self.assertLessEqual(watch.rounds, rounds + 1)
        self.assertIn("paus", self.order("status", target.address).stdout.lower())
        self.assertFalse(moving.has_ended)
        result = self.order("cutover", target.address, rc=None)
        self.assertEqual(result.rc, 75, result)
        self.assertRegex(result.stderr, "(?i)paused")
        # It may have tried to hand over before.
        self.assertRegex(" ".join(verb for verb, _ in guest.calls), r"^(freeze thaw ?)*$")
        self.assertTrue(guest.is_writing())
        self.order("resume", target.address)
        self.finishes(moving, guest, source, target)

    def case_paused_in_the_bulk(self):
        source, guest = self.guest(rate=MIB)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *PATIENT, "--bandwidth", "4M", freeze=guest)
        self.when_bulk(moving, target, watch)
        # There is nothing to hand over yet.
        self.order("cutover", rc=75)
        self.order("pause")
        time.sleep(5)
        self.assertEqual(watch.rounds, 1)
        self.assertFalse(moving.has_ended)
        self.order("bandwidth", "40M")
        self.order("resume")
        self.finishes(moving, guest, source, target)

    def case_interrupted_while_paused(self):
        source, guest, target, watch, moving = self.following()
        self.order("pause")
        self.interrupt(moving)
        self.assert_at_source(guest, source)
        self.live(source, target, *PATIENT, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_throttle(self):
        source, guest, target, watch, moving = self.following(*SLOWED, "--throttle", "off", rounds=2, **FAST)
        time.sleep(2)
        self.assertEqual(watch.values, [None])
        self.order("throttle", target.address, "auto")
        self.until(lambda: watch.limit is not None, "the throttle", 30, moving)
        self.order("throttle", target.address, "off")
        self.until(lambda: watch.limit is None, "the throttle to be lifted", 10, moving)
        seen = len(watch.limits)
        time.sleep(2)
        self.assertEqual(len(watch.limits), seen, watch.values)
        self.order("throttle", target.address, "sideways", rc=64)
        self.order("throttle", target.address, "5M")
        self.until(lambda: watch.limit == str(5 * MIB), "the limit that was asked for", 10, moving)
        self.order("throttle", target.address, "off")
        self.until(lambda: watch.limit is None, "the limit to be lifted", 10, moving)
        self.order("cutover", target.address)
        self.finishes(moving, guest, source, target)

    def case_a_limit_above_that_of_the_pool(self):
        """A limit of the image's own would take the place of the pool's."""
        pool = self.pool("limited")
        source, guest = self.guest(pool=pool, rate=6 * MIB)
        cluster().tool("rbd", "config", "pool", "set", pool, "rbd_qos_write_bps_limit", str(2 * MIB))
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *FOLLOW, freeze=guest)
        self.when_following(moving, watch, 1)
        self.order("throttle", target.address, "5M")
        time.sleep(5)
        self.order("throttle", target.address, "1M")
        self.until(lambda: watch.limit is not None, "the limit that was asked for", 30, moving)
        self.order("cutover", target.address)
        self.finishes(moving, guest, source, target)
        # An attempt to hand over takes it back for a moment.
        self.assertEqual(set(watch.end().values), {None, str(MIB)})

    def case_bandwidth(self):
        source, guest = self.guest(rate=MIB)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *PATIENT, "--bandwidth", "2M", freeze=guest)
        self.when_bulk(moving, target, watch)
        time.sleep(2)
        self.assertEqual(watch.rounds, 1)
        begin = time.monotonic()
        self.order("bandwidth", target.address, "100M")
        self.finishes(moving, guest, source, target)
        self.assertLess(time.monotonic() - begin, 15, "64 MiB at 2 MiB/s take 32 s")

    def case_cancel(self):
        """Nothing of the move is left on the source, and its guest goes on."""
        for options in (), SLOWED:
            source, guest, target, watch, moving = self.following(*options, **(FAST if options else {}))
            if options:
                self.until(lambda: watch.limit is not None, "the throttle", 40, moving)
            self.order("cancel", target.address)
            result = moving.wait(30)
            self.assertEqual(result.rc, 75, result)
            # It may have tried to hand over before.
            self.assertRegex(" ".join(verb for verb, _ in guest.calls), r"^(freeze thaw ?)*$")
            self.assert_at_source(guest, source)
            self.assertFalse(target.exists)
            if target.unfinished.exists:
                self.live(source, target, *PATIENT, *options, freeze=guest)
                self.assert_handed_over(guest, source, target)
            else:
                self.assert_source_left(source, moved=False)

    def case_cutover_that_is_asked_for_twice(self):
        source, guest, target, watch, moving = self.following()
        self.order("cutover", target.address)
        self.order("cutover", target.address, rc=None)
        self.finishes(moving, guest, source, target)
        # An attempt that would have taken longer than was promised is given up.
        self.assertRegex(" ".join(verb for verb, _ in guest.calls), r"^(freeze thaw )*freeze switch$")

    def case_cutover_by_order_although_it_would_take_long(self):
        """The operator's word is above --max-pause, and what it costs is in the report."""
        source, guest, target, watch, moving = self.following(
            "--bandwidth", "16M", "--throttle", "off", rounds=2, **FAST)
        self.order("cutover", target.address)
        report = self.finishes(moving, guest, source, target)
        self.assertGreater(report["pause"]["seconds"], 0.3)
