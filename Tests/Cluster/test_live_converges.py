"""Live moves of volumes under a writer: rounds, the throttle, and the pause."""

import re
import time

from guests import Fio
from harness import KIB, MIB
from live import PATIENT, THROTTLE, Cases, LiveTest, Watch

# So fast is what the moves drain; a writer is as fast as it is told to be.
DRAIN = ("--bandwidth", "20M")
BUSY = {"rate": 36 * MIB, "block_size": 64 * KIB, "blocks": (1, 1), "depth": 8}
FAST = {"rate": 0, "block_size": 64 * KIB, "blocks": (1, 1), "depth": 8}


class UnderTheDrainRate(LiveTest):
    """These are about how long the guest stands still."""

    alone = True

    def test_it_is_never_throttled(self):
        source, guest = self.guest(rate=8 * MIB)
        target, watch = self.target(), Watch(self, source)
        report = self.live(source, target, *DRAIN, "--max-pause", "600ms", freeze=guest)
        self.assertEqual(watch.end().values, [None])
        self.assert_rounds(report)
        self.assertGreaterEqual(len(report["rounds"]), 2)
        self.assertNotIn("limitBytesPerSecond", {key for entry in report["rounds"] for key in entry if entry[key]})
        self.assertLessEqual(watch.most, 2, "a round's snapshot, and that of the one before")
        self.assert_pause(report, self.assert_handed_over(guest, source, target), 0.6)

    def test_hardly_any_writes(self):
        """The pause of a small remainder is within what is promised when nothing is said."""
        for cache in False, True:
            source, guest = self.guest(rate=64 * KIB, blocks=(1, 1), length=16 * MIB, cache=cache)
            target = self.target()
            report = self.live(source, target, freeze=guest)
            self.assert_pause(report, self.assert_handed_over(guest, source, target), 0.3)

    def test_as_fast_as_it_goes(self):
        """It is slowed down, and as fast as before as soon as it is at the target."""
        source, guest = self.guest(**FAST)
        target, watch = self.target(), Watch(self, source)
        report = self.live(source, target, *DRAIN, "--max-pause", "1s", freeze=guest)
        before, begin = guest.report()["bytes"], time.monotonic()
        time.sleep(1)
        rate = (guest.report()["bytes"] - before) / (time.monotonic() - begin)
        self.assertGreater(rate, 20 * MIB)
        self.assertNotEqual(self.limits_of(watch.end()), [])
        self.assert_pause(report, self.assert_handed_over(guest, source, target), 1)


class Rates(Cases):
    """Writers of all rates, while the moves drain 20 MiB a second."""

    def throttled(self, *options, own=None, **guest):
        source, guest = self.guest(**guest)
        if own is not None:
            source.set_metadata(THROTTLE, own)
        target, watch = self.target(), Watch(self, source)
        report = self.live(source, target, *DRAIN, *options, freeze=guest, timeout=120)
        limits = self.limits_of(watch.end(), own)
        self.assert_rounds(report)
        self.assertLessEqual(watch.most, 2)
        seen = {entry.get("limitBytesPerSecond") for entry in report["rounds"]} - {None}
        self.assertLessEqual(set(limits), {int(limit) for limit in seen}, "limits that no round tells of")
        self.assertTrue(all(MIB <= limit <= 20 * MIB for limit in limits), limits)
        self.assert_handed_over(guest, source, target, limit=own)
        return limits

    def case_at_the_drain_rate(self):
        self.throttled("--max-pause", "1s", **{**BUSY, "rate": 20 * MIB})

    def case_over_the_drain_rate(self):
        limits = self.throttled("--max-pause", "1s", **BUSY)
        self.assertNotEqual(limits, [])
        self.assertEqual(sorted(limits, reverse=True), limits, "lowered only")

    def case_over_the_drain_rate_with_a_cache(self):
        self.assertNotEqual(self.throttled("--max-pause", "1s", cache=True, own="60000001", **BUSY), [])

    def case_a_limit_of_the_users_own_that_limits_nothing(self):
        self.assertNotEqual(self.throttled("--max-pause", "1s", own="0", **BUSY), [])

    def case_a_limit_of_the_users_own_is_never_raised(self):
        """It is below all that a throttle would be."""
        limits = self.throttled(*PATIENT, own=str(2 * MIB), **BUSY)
        self.assertTrue(all(limit <= 2 * MIB for limit in limits), limits)

    def case_a_hot_spot(self):
        """Written again and again, but small: no more than it can be dirty in a round."""
        self.throttled(*PATIENT, rate=24 * MIB, block_size=16 * KIB, blocks=(1, 1), pattern="hot", depth=8)

    def case_a_cached_writer_under_the_drain_rate(self):
        self.assertEqual(self.throttled("--max-pause", "1s", rate=5 * MIB, cache=True), [])

    def case_a_guest_that_writes_nothing(self):
        source, guest = self.guest(rate=1, length=16 * MIB)
        target = self.target()
        report = self.live(source, target, *PATIENT, freeze=guest)
        guest.rate(4 * MIB)
        self.assert_handed_over(guest, source, target)
        self.assert_rounds(report)

    def case_nobody_has_it_open(self):
        """Nothing to wait for, nobody to freeze: it's moved."""
        source, target = self.history(size=32 * MIB, pieces=2), self.target()
        states = self.states(source)
        self.live(source, target)
        self.assert_same(source, target, states)
        self.assert_source_left(source)
        self.assert_target(target)

    def case_an_empty_volume(self):
        source, target = self.volume(size=16 * MIB), self.target()
        self.live(source, target)
        self.assert_same(source, target)


class WithoutAnEnd(Cases):
    """Where nothing that is allowed makes it converge, it says so, with the numbers, and the guest is let go."""

    def says_so(self, *options):
        source, guest = self.guest(**BUSY)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, "--max-pause", "200ms", *options, freeze=guest)
        self.until(
            lambda: moving.has_ended or re.search("(?i)converge", moving.text()), "a word on that it can't converge", 60)
        said = moving.text()
        self.assertRegex(said, r"[0-9.]+ ?[KMG]i?B/s|[0-9]+ bytes a second")
        if not moving.has_ended:
            time.sleep(0.5)
            self.interrupt(moving)
        else:
            result = moving.wait(1)
            self.assertEqual(result.rc, 75, result)
        self.assertNotIn(("freeze", 0), guest.calls)
        self.assert_at_source(guest, source)
        return source, guest, target, watch.end(), said

    def and_goes_on(self, source, guest, target):
        """The operator allows more."""
        self.live(source, target, *PATIENT, *DRAIN, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_at_the_floor(self):
        source, guest, target, watch, said = self.says_so("--bandwidth", "8M", "--throttle-floor", "16M")
        self.assertRegex(said, "floor")
        self.assertTrue(all(limit >= 16 * MIB for limit in self.limits_of(watch)), watch.values)
        self.and_goes_on(source, guest, target)

    def case_without_a_throttle(self):
        source, guest, target, watch, _ = self.says_so("--bandwidth", "8M", "--throttle", "off")
        self.assertEqual(watch.values, [None])
        self.and_goes_on(source, guest, target)

    def case_after_so_many_rounds(self):
        source, guest = self.guest(**BUSY)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(
            source, target, "--max-pause", "300ms", *DRAIN, "--throttle", "off", "--max-rounds", "3", freeze=guest)
        self.until(lambda: "--max-rounds" in moving.text(), "a word on --max-rounds", 40, moving)
        self.assertRegex(moving.text(), "3 rounds")
        self.assertIn(watch.rounds, (3, 4))
        # It is the operator's turn: it goes on following, without haste, until it is told what to do.
        time.sleep(3)
        self.assertLessEqual(watch.rounds, 5)
        self.assertEqual(guest.calls, [])
        self.order("cutover", target.address)
        result = moving.wait(30)
        self.assertEqual(result.rc, 0, result)
        self.assert_handed_over(guest, source, target)


class Fios(Cases):
    """fio's own checksums: of a client that knows nothing of us."""

    def case_it_writes_to_its_end(self):
        """It leaves when it has written all, which --freeze wait waits for."""
        source, target = self.volume(size=128 * MIB), self.target()
        Fio(self, source, seed=1).start().finish()
        writer = Fio(self, source, rate=24 * MIB, seed=2).start()
        self.wait_until(source.watchers)
        moving = self.begin(source, target, "--freeze", "wait", "--bandwidth", "40M")
        writer.finish()
        result = moving.wait(60)
        self.assertEqual(result.rc, 0, result)
        writer.assert_held(target)
        self.assert_same(source, target)
        self.assert_source_left(source)
        self.assert_target(target)

    def case_as_fast_as_it_goes(self):
        """Nobody is slowed down who will leave by himself."""
        source, target = self.volume(size=128 * MIB), self.target()
        Fio(self, source, seed=1).start().finish()
        watch = Watch(self, source)
        writer = Fio(self, source, seed=2, block_size=16 * KIB).start()
        self.wait_until(source.watchers)
        moving = self.begin(source, target, "--freeze", "wait", *DRAIN)
        writer.finish()
        result = moving.wait(60)
        self.assertEqual(result.rc, 0, result)
        self.assertEqual(watch.end().values, [None])
        writer.assert_held(target)
        self.assert_same(source, target)
