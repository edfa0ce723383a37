"""Live moves that are killed, stopped or doubled while the guest writes: the same command goes on, and nothing is lost."""

import os
import random
import secrets
import signal
import sys
import time

from faults import HOLDER, Moment, after
from harness import KIB, MIB, run, start
from live import FOLLOW, Cases, Watch

BUSY = {"rate": 36 * MIB, "block_size": 64 * KIB, "blocks": (1, 1), "depth": 8}
# A throttled move of a few seconds.
# The pause is not what is tested, and the machine is busy with other cases.
QUICKLY = ("--max-pause", "3s", "--bandwidth", "16M")
SLOWLY = ("--max-pause", "1s", "--bandwidth", "20M")


class Kills(Cases):
    """25 kills at moments over the whole of a move, its throttle and its hand-over included.

    Two guests write all the time, and move on and on: the target of one move is the source of the next.
    GODWIT_SEED=N repeats a run's choices.
    """

    limit = 600
    at_once = 2
    # For all of it, in seconds: the guest must not stand still for long because somebody was killed.
    patience = 300
    # A client that was killed counts as there for 30 s.
    single = 60

    def moments(self, chance, count):
        times = [after(0.05 + chance.random() * 3) for _ in range(count - 9)]
        events = [
            lambda begun: Moment("throttled", lambda *_: begun["watch"].limit is not None, chance.random() * 0.3),
            lambda begun: Moment("round 2", lambda *_: begun["watch"].rounds >= 2, chance.random() * 0.1),
            lambda begun: Moment("round 3", lambda *_: begun["watch"].rounds >= 3, chance.random() * 0.1),
            lambda begun: Moment("freezing", lambda *_: self.called(begun, "freeze"), 0),
            lambda begun: Moment("frozen", lambda *_: self.ended(begun, "freeze"), 0),
            lambda begun: Moment("last round", lambda *_: self.ended(begun, "freeze"), chance.random() * 0.2),
            lambda begun: Moment("committed", lambda source, target, _: target.exists, 0),
            lambda begun: Moment("switching", lambda *_: self.called(begun, "switch"), 0),
            lambda begun: Moment("switched", lambda *_: self.ended(begun, "switch"), 0),
        ]
        choices = [lambda begun, moment=moment: moment for moment in times] + events
        chance.shuffle(choices)
        return choices

    @staticmethod
    def called(begun, verb):
        return any(call["verb"] == verb for call in begun["guest"].log[begun["calls"]:])

    @staticmethod
    def ended(begun, verb):
        return any(call["verb"] == verb and "status" in call for call in begun["guest"].log[begun["calls"]:])

    def case_13_kills(self):
        self.kills(13, rate=24 * MIB)

    def case_12_kills_with_a_cache(self):
        self.kills(12, rate=24 * MIB, cache=True)

    def kills(self, count, **guest):
        seed = int(os.environ.get("GODWIT_SEED") or secrets.randbelow(1 << 32))
        print(f"  {count} kills: to repeat: GODWIT_SEED={seed}", file=sys.stderr)
        chance = random.Random(f"{seed} {count}")
        source, guest = self.guest(size=32 * MIB, block_size=16 * KIB, blocks=(1, 4), depth=8, **guest)
        moments, killed, begin = self.moments(chance, count), 0, time.monotonic()
        while killed < count:
            source.set_metadata("conf_rbd_qos_write_bps_limit", "104857600")
            target = self.target(pool=chance.choice(("fast", "slow")))
            watch = Watch(self, source)
            story = [f"GODWIT_SEED={seed}: {source} to {target}"]
            for _ in range(chance.choice((1, 2, 3))):
                begun = {"watch": watch, "guest": guest, "calls": len(guest.calls)}
                moment = moments[killed](begun)
                moving = self.begin(source, target, *QUICKLY, freeze=guest)
                moment.await_(moving, source, target)
                moving.kill()
                result = moving.wait(30)
                self.assertIn(result.rc, (0, -9), f"{story}, to be killed at {moment}: {result}")
                story.append(str(moment) if result.rc else f"{moment}: over by then")
                killed += 1
                if result.rc == 0 or killed == count:
                    break
                # A guest that is not frozen isn't held up by a move that is dead.
                if guest.state == "writing":
                    self.assertTrue(guest.is_writing(10), f"{story}: {guest.report()}")
            began = time.monotonic()
            if result.rc != 0:
                result = self.begin(source, target, *QUICKLY, freeze=guest).wait(self.single)
                # Killed after the last of it was done, there is nothing left to do.
                done = target.exists and HOLDER not in target.metadata and guest.report()["address"] == target.address
                if not (result.rc in (66, 73) and done):
                    self.assertEqual(result.rc, 0, f"{story}: {result}")
            story.append(f"finished in {time.monotonic() - began:.0f} s")
            watch.end()
            try:
                self.assertTrue(guest.is_writing(), guest.report())
                self.assertEqual(guest.report()["address"], target.address)
                self.assertEqual(guest.report()["errors"], {})
                guest.assert_held(target)
                guest.assert_held(source, guest.frozen_journal)
                self.assertLessEqual(watch.most, 3)
                self.assert_source_left(source, limit="104857600")
                self.assertEqual(self.transients(target), [])
                self.assertEqual([key for key in target.metadata if key.startswith("godwit")], [])
                self.assertEqual(target.metadata.get("conf_rbd_qos_write_bps_limit"), "104857600")
            except AssertionError as error:
                raise AssertionError(f"{story}: {error}") from error
            print(f"  {killed} kills, {time.monotonic() - begin:.0f} s: {', '.join(story[1:])}", file=sys.stderr)
            source.remove()
            source = target
            self.assertLess(time.monotonic() - begin, self.patience)
        guest.stop()
        guest.assert_held(source)
        self.assert_target(source, limit="104857600")


class KillsAtTheWorstMoments(Cases):
    """Those at which a guest is slowed down or stands still."""

    def case_killed_while_throttled_and_frozen(self):
        """The moments at which a guest is at its worst: the throttle stays until the next run, which lifts it."""
        source, guest = self.guest(**BUSY)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *SLOWLY, freeze=guest)
        self.until(lambda: watch.limit is not None, "the throttle", 40, moving)
        moving.kill()
        moving.wait(10)
        self.assertTrue(guest.is_writing())
        # Interrupted as soon as it has begun: the throttle of the run before is gone.
        moving = self.begin(source, target, *SLOWLY, freeze=guest)
        self.until(lambda: watch.rounds > 1 and len(watch.current) > 0, "its beginning", 60, moving)
        time.sleep(1)
        self.interrupt(moving)
        self.assert_at_source(guest, source)
        moving = self.begin(source, target, *SLOWLY, freeze=guest.hook("--late", "freeze=5"))
        self.until(lambda: guest.state == "frozen", "the freeze", 60, moving)
        moving.kill()
        moving.wait(10)
        self.assertEqual(guest.state, "frozen")
        self.live(source, target, *SLOWLY, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_killed_and_given_up(self):
        """'godwit abort' lifts the throttle, too, and removes all that the move left."""
        source, guest = self.guest(**BUSY)
        source.set_metadata("conf_rbd_qos_write_bps_limit", "88888888")
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *SLOWLY, freeze=guest)
        self.until(lambda: watch.limit != "88888888", "the throttle", 40, moving)
        moving.kill()
        moving.wait(10)
        result = run("abort", target.address, timeout=60, env=self.env)
        self.assertEqual(result.rc, 0, result)
        self.assert_at_source(guest, source, limit="88888888")
        self.assert_source_left(source, limit="88888888", moved=False)
        self.assertFalse(target.unfinished.exists or target.exists)


class CtrlC(Cases):
    """75 within seconds, no throttle, the guest writing where it was; and the same command goes on."""

    def interrupted(self, source, guest, target, moving, limit=20):
        begin = time.monotonic()
        result = self.interrupt(moving, limit)
        self.assertIn("same command goes on", result.stderr)
        self.assertLess(time.monotonic() - begin, 10)
        self.assert_at_source(guest, source)
        # What tells the next run how far this one came may stay, but nothing that holds the guest up.
        self.assertLessEqual(len(self.transients(source)), 2)
        return result

    def case_in_each_phase(self):
        source, guest = self.guest(**BUSY)
        target, watch = self.target(), Watch(self, source)
        options = ("--max-pause", "400ms", "--bandwidth", "20M")
        # Before anything, in the bulk, following, throttled.
        moving = self.begin(source, target, *options, freeze=guest)
        self.when_bulk(moving, target, watch)
        self.interrupted(source, guest, target, moving)
        moving = self.begin(source, target, *options, freeze=guest)
        self.when_following(moving, watch, 2)
        self.interrupted(source, guest, target, moving)
        moving = self.begin(source, target, *options, freeze=guest)
        self.until(lambda: watch.limit is not None, "the throttle", 40, moving)
        self.interrupted(source, guest, target, moving)
        # In the hand-over, while the hook is at its freeze: it is thawed.
        moving = self.begin(source, target, *SLOWLY, freeze=guest.hook("--late", "freeze=2"))
        self.until(lambda: guest.state == "frozen", "the freeze", 60, moving)
        self.interrupted(source, guest, target, moving)
        self.assertEqual(guest.calls[-1], ("thaw", 0))
        self.live(source, target, *SLOWLY, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_in_the_last_round(self):
        """The guest stands still, and the last of it is sent; too late or not, it goes on in the end."""
        source, guest = self.guest(**BUSY)
        target = self.target()
        moving = self.begin(source, target, "--max-pause", "5s", "--bandwidth", "8M", freeze=guest)
        self.until(lambda: ("freeze", 0) in guest.calls, "the freeze", 60, moving)
        time.sleep(0.3)
        moving.send(signal.SIGINT)
        result = moving.wait(30)
        self.assertIn(result.rc, (0, 75), result)
        if result.rc == 75:
            self.assert_at_source(guest, source)
            self.live(source, target, *SLOWLY, freeze=guest)
        self.assert_handed_over(guest, source, target)

    def case_in_the_switch(self):
        """It is committed: there is no way back, only forward, now or with the same command."""
        source, guest = self.guest(rate=4 * MIB)
        target = self.target()
        moving = self.begin(source, target, *SLOWLY, freeze=guest.hook("--late", "switch=1.5"))
        self.until(lambda: any(verb == "switch" for verb, _ in guest.calls), "the switch", 60, moving)
        moving.send(signal.SIGINT)
        result = moving.wait(30)
        self.assertIn(result.rc, (0, 75), result)
        if result.rc == 75:
            self.live(source, target, *SLOWLY, freeze=guest)
        # An attempt that was given up before is thawed; one that is committed isn't.
        verbs = [verb for verb, _ in guest.calls]
        self.assertNotIn("thaw", verbs[verbs.index("switch"):])
        self.assert_handed_over(guest, source, target)

    def case_while_it_waits(self):
        source, guest = self.guest(rate=6 * MIB)
        target, watch = self.target(), Watch(self, source)
        for _ in range(3):
            moving = self.begin(source, target, "--freeze", "wait", "--bandwidth", "20M")
            self.when_following(moving, watch, watch.rounds + 2)
            self.interrupted(source, guest, target, moving)
        guest.stop()
        self.live(source, target)
        guest.assert_held(target)
        self.assert_same(source, target)
        self.assert_source_left(source)

    def case_at_any_moment(self):
        source, guest = self.guest(**BUSY)
        chance = random.Random(7)
        target = self.target()
        for part in range(6):
            moving = self.begin(source, target, *SLOWLY, freeze=guest)
            time.sleep(0.02 + 0.6 * part * chance.random())
            moving.send(signal.SIGINT)
            result = moving.wait(30)
            # Before it listens for signals it is not yet at anything.
            self.assertIn(result.rc, (0, 75, -signal.SIGINT), result)
            if result.rc == 0:
                break
            self.assert_at_source(guest, source)
        if result.rc != 0:
            self.live(source, target, *SLOWLY, freeze=guest)
        self.assert_handed_over(guest, source, target)


class Rivals(Cases):
    def case_two_moves_of_one_source(self):
        source, guest = self.guest(rate=6 * MIB)
        target, other, watch = self.target(), self.target(), Watch(self, source)
        moving = self.begin(source, target, *FOLLOW, freeze=guest)
        for moment in 1, 3:
            self.when_following(moving, watch, moment)
            for kind in ("--live",), ():
                result = start(
                    "migrate", source.address, other.address, *kind, env=self.env).wait(30)
                self.assertIn(result.rc, (73, 75), result)
                # Without --live it needs one that nobody writes to.
                self.assertRegex(result.stderr, f"process {moving.pid}|{target.name}" if kind else "open for writing")
                self.assertFalse(other.exists or other.unfinished.exists, result)
        self.order("cutover", target.address)
        result = moving.wait(40)
        self.assertEqual(result.rc, 0, result)
        self.assert_handed_over(guest, source, target)

    def case_the_same_command_twice(self):
        source, guest = self.guest(rate=6 * MIB)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *FOLLOW, freeze=guest)
        self.when_following(moving, watch, 2)
        second = self.begin(source, target, *SLOWLY, freeze=guest).wait(30)
        self.assertEqual(second.rc, 75, second)
        self.assertIn(f"process {moving.pid}", second.stderr)
        self.assertEqual(guest.calls, [])
        self.order("cutover", target.address)
        result = moving.wait(40)
        self.assertEqual(result.rc, 0, result)
        self.assert_handed_over(guest, source, target)

    def case_a_target_that_is_begun_without_live_is_gone_on_with(self):
        """Or refused with a reason; in any case nothing is lost and nothing is left."""
        source, guest = self.guest(rate=4 * MIB)
        target = self.target()
        guest.freeze()
        moving = start("migrate", source.address, target.address, "--bandwidth", "10M", env=self.env)
        self.until(lambda: target.unfinished.exists and self.transients(source), "the first bytes", 20, moving)
        moving.send(signal.SIGINT)
        self.assertEqual(moving.wait(20).rc, 75)
        guest.thaw()
        result = self.begin(source, target, *SLOWLY, freeze=guest).wait(60)
        self.assertIn(result.rc, (0, 64, 73), result)
        if result.rc != 0:
            self.assert_at_source(guest, source)
            self.abort(target)
            self.live(source, target, *SLOWLY, freeze=guest)
        self.assert_handed_over(guest, source, target)
