"""Moves that are killed, stopped, doubled, or whose source changes meanwhile: the same command goes on, to the same end."""

import json
import os
import random
import re
import secrets
import signal
import struct
import subprocess
import sys
import time

import rados
import rbd

from faults import (
    HOLDER, RECORD, SNAPSHOTS, InterruptedTest, Moment, after, on_terminal, when_kept, write_at_random)
from harness import KIB, MIB, STANDARD, run, setting, start

# Takes an image's exclusive lock, and keeps it.
LOCKS = """
import os, sys, time, rados, rbd
cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
cluster.connect()
with rbd.Image(cluster.open_ioctx(sys.argv[1]), sys.argv[2]) as image:
    image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
    print("locked", flush=True)
    time.sleep(60)
"""
# A source without an object map takes other ways than one with it.
PLAIN = ("layering",)
# A move of InterruptedTest.history takes about 3 s at this rate.
SLOWLY = ("--bandwidth", "32M")


class Kills(InterruptedTest):
    """25 kills, each followed by the same command, spread over the whole of a move.

    GODWIT_SEED=N repeats a run's choices.
    """

    limit = 300
    # How long the run after a kill may take: a client that was killed counts as there for 30 s.
    patience = 45

    # Most of a move's time goes to its bytes; what is short by comparison is aimed at.
    events = [
        ("the target is in its pool's directory", lambda source, target, _: target.unfinished.exists),
        ("the record is there", lambda source, target, _: target.unfinished.metadata[RECORD]),
        ("the source is open for writing", lambda source, target, _: Kills.is_watched(source)),
        ("the source is frozen", lambda source, target, _: Kills.transients(source)),
        ("a snapshot is kept", lambda source, target, _: target.unfinished.snapshot_count),
        ("the commit has begun", lambda source, target, _: Kills.record(target)["phase"] == "committing"),
        ("the target has its name", lambda source, target, _: target.metadata[RECORD]),
        ("the source is open for writing again", lambda source, target, _: target.exists and Kills.is_watched(source)),
    ]

    @staticmethod
    def is_watched(volume):
        with volume.open() as image:
            return bool(list(image.watchers_list()))

    def moments(self, chance, count, whole):
        """As many moments, in any order: some times over the whole of a move, and the events."""
        events = [Moment(what, condition, chance.random() * 0.02) for what, condition in self.events]
        times = count - len(events)
        parts = [after((part + chance.random()) / times * whole) for part in range(times)]
        return chance.sample(events + parts, count)

    def kills(self, count, features):
        seed = int(os.environ.get("GODWIT_SEED") or secrets.randbelow(1 << 32))
        print(f"\n{self.id()}: to repeat: GODWIT_SEED={seed}", file=sys.stderr)
        chance = random.Random(f"{seed} {features}")
        source = self.history(features=features)
        states = self.states(source)
        whole = run("migrate", source.address, self.target().address, *SLOWLY).seconds
        moments, killed = self.moments(chance, count, whole), 0
        while killed < count:
            target = self.target()
            options = chance.choice([SLOWLY, SLOWLY, [], ["--verify"], ["--in-flight", "4M", *SLOWLY]])
            story = [f"GODWIT_SEED={seed}: {source} to {target}", *options]
            with self.subTest(story):
                for _ in range(chance.choice((1, 1, 2, 3))):
                    # A run that was over before its moment came is none of the 25.
                    moment = moments.pop() if moments else after(chance.random() * whole / 2)
                    story.append(str(moment))
                    if not self.kill(moment, source, target, *options):
                        story.append("over by then")
                        break
                    killed += 1
                    if killed == count:
                        break
                self.finish(source, target, options, story)
                self.assert_right(source, target, states)

    def finish(self, source, target, options, story):
        """Gives the same command once more, if there is anything left to do."""
        if target.exists and RECORD not in target.metadata:
            # It was killed on its way out, or was over by then. Nobody comes after it who would evict what it left open.
            self.until(lambda: not target.watchers(), "its watch to be given up", 45)
            return
        result = run("migrate", source.address, target.address, *options, timeout=self.patience)
        self.assertEqual(result.rc, 0, f"{story}: {result}")

    def test_13_kills_of_moves_with_locks_and_object_maps(self):
        self.kills(13, STANDARD)

    def test_12_kills_of_moves_without(self):
        self.kills(12, PLAIN)


class ChecksFindWhatTheyLookFor(InterruptedTest):
    """The checks of these tests themselves: each is shown the fault that it exists to find."""

    def test_a_snapshot_half_removed(self):
        source = self.volume()
        source.snap("godwit.1234")
        # A clone holds its snapshot in the trash.
        child = self.clone(source, "godwit.1234")
        source.remove_snap("godwit.1234")
        self.assertEqual(source.snapshots, [])
        with self.assertRaisesRegex(AssertionError, "godwit.1234|snapshots left"):
            self.assert_clean(source)
        child.remove()
        source.remove()

    def test_a_second_name(self):
        target = self.volume("slow")
        self.assert_only(target)
        stray = f"rbd_id.{target.unfinished.name}"
        target.ioctx.write_full(stray, b"")
        with self.assertRaisesRegex(AssertionError, "names that lead to an image"):
            self.assert_only(target)
        target.ioctx.remove_object(stray)
        self.volume("slow", name=target.unfinished.name)
        with self.assertRaisesRegex(AssertionError, "images of that name"):
            self.assert_only(target)

    def test_an_object_left(self):
        target = self.volume("slow")
        image_id = target.id
        target.fill(0, MIB)
        with self.assertRaises(AssertionError):
            self.assert_nothing(target, image_id)
        target.remove()
        self.assert_nothing(target, image_id)
        stray = f"rbd_data.{image_id}.0000000000000001"
        target.ioctx.write_full(stray, b"left")
        self.addCleanup(target.ioctx.remove_object, stray)
        with self.assertRaisesRegex(AssertionError, "the last object of the target"):
            self.assert_nothing(target, image_id, limit=1)


class WhileUnfinished(InterruptedTest):
    def unfinished(self, *options, features=STANDARD):
        """A source, and a target that a killed move has left in the middle of a step."""
        source, target = self.history(features=features), self.target()
        self.assertTrue(self.kill(when_kept(1, later=0.4), source, target, *SLOWLY, *options))
        return source, target

    def test_it_does_not_look_finished(self):
        source, target = self.unfinished()
        names = [name for name in rbd.RBD().list(target.ioctx) if name.startswith(target.name)]
        self.assertEqual(names, [target.unfinished.name])
        with self.assertRaises(rbd.ImageNotFound):
            target.open()
        record = self.record(target)
        self.assertIn(source.id, record["source"])
        self.assertEqual(record["sourceAddress"], source.address)
        self.assertEqual(record["transients"], self.transients(source))
        self.assertEqual(record["phase"], "copying")
        self.abort(target)

    def test_another_source_is_refused(self):
        source, target = self.unfinished()
        states = self.states(source)
        other = self.history(snapshots=["other"], size=8 * MIB, pieces=1, length=MIB)
        before, left = other.portrait(), target.unfinished.metadata
        result = self.godwit(73, "migrate", other.address, target.address)
        self.assertIn(source.address, result.stderr)
        self.assertIn("godwit abort", result.stderr)
        self.assert_unchanged(other, before)
        self.assertEqual(target.unfinished.metadata, left)
        self.go_on(source, target)
        self.assert_right(source, target, states)

    def test_a_new_image_of_the_same_name_is_another_source(self):
        source, target = self.unfinished()
        source.remove()
        source.create(8 * MIB)
        before = source.portrait()
        result = self.godwit(73, "migrate", source.address, target.address)
        self.assertIn("another source", result.stderr)
        self.abort(target)
        self.assert_unchanged(source, before)

    def test_another_choice_of_snapshots_is_refused(self):
        for begun, given in (("all", "none"), ("none", "all")):
            with self.subTest(begun=begun):
                source, target = self.history(), self.target()
                self.stop(after(1), source, target, "--snapshots", begun, "--bandwidth", "8M")
                result = self.godwit(64, "migrate", source.address, target.address, "--snapshots", given)
                self.assertIn(f"--snapshots {begun}", result.stderr)
                self.go_on(source, target, "--snapshots", begun)
                self.assertEqual(target.snapshots, source.snapshots if begun == "all" else [])
                self.assert_clean(source)

    def test_abort_removes_all_of_it(self):
        for features in STANDARD, PLAIN:
            with self.subTest(features):
                source, target = self.unfinished(features=features)
                image_id, states = target.unfinished.id, self.states(source)
                self.assertNotEqual(self.traces(image_id, target.ioctx), [])
                result = self.abort(target)
                self.assertIn(target.address, result.stdout)
                self.assert_nothing(target, image_id)
                self.assert_clean(source)
                # The name is as good as new.
                self.go_on(source, target)
                self.assert_right(source, target, states)

    def test_abort_of_what_is_not_ours(self):
        finished, foreign = self.history(snapshots=["one"], size=8 * MIB, pieces=1, length=MIB), self.volume("slow")
        target = self.target()
        self.move(finished, target)
        for volume in (target, foreign):
            before = volume.portrait()
            self.abort(volume, rc=73)
            self.assert_unchanged(volume, before)
        self.assertIn("nothing to abort", self.abort(self.target(), rc=66).stderr)

    def test_abort_of_a_move_that_runs(self):
        source, target = self.history(), self.target()
        states = self.states(source)
        moving = self.begin(source, target, *SLOWLY)
        self.until(lambda: target.unfinished.exists and HOLDER in target.unfinished.metadata, "the move to begin", moving=moving)
        self.until(lambda: self.transients(source), "the source to be frozen", moving=moving)
        result = self.abort(target, rc=75)
        self.assertIn(f"process {moving.pid}", result.stderr)
        self.assertNotEqual(self.transients(source), [])
        result = moving.wait(30)
        self.assertEqual(result.rc, 0, result)
        self.assert_right(source, target, states)

    def test_a_killed_abort_is_given_again(self):
        source = self.history(snapshots=SNAPSHOTS, pieces=2)
        whole = None
        for part in (None, 0.3, 0.6, 0.8, 0.95):
            with self.subTest(part=part):
                target = self.target()
                self.stop(when_kept(2), source, target, "--bandwidth", "8M")
                image_id = target.unfinished.id
                if part is None:
                    whole = self.abort(target).seconds
                else:
                    aborting = start("abort", target.address)
                    time.sleep(part * whole)
                    aborting.kill()
                    aborting.wait(10)
                    result = run("abort", target.address, timeout=60)
                    # It was all gone already, or it is now.
                    self.assertIn(result.rc, (0, 66), result)
                self.assert_nothing(target, image_id)
                self.assert_clean(source)


class WithinACall(InterruptedTest):
    """A kill in the middle of one of librbd's own operations, which leaves an image that librbd can't open.

    The windows are too short to be hit by chance, so what is left then is laid out by hand.
    """

    def setUp(self):
        super().setUp()
        self.source, self.goal = self.history(snapshots=["one"], size=16 * MIB, pieces=2, length=MIB), self.target()
        self.ways = (
            self.half_made, self.named, self.without_map, self.without_record, self.in_trash,
            self.in_trash_and_directory)

    def encoded(self, text):
        return len(text).to_bytes(4, "little") + text.encode()

    def enter(self, name, image_id):
        """Adds an image to its pool's directory (rbd_directory, as cls_rbd keeps it)."""
        with rados.WriteOpCtx() as operation:
            self.goal.ioctx.set_omap(
                operation, (f"name_{name}", f"id_{image_id}"), (self.encoded(image_id), self.encoded(name)))
            self.goal.ioctx.operate_write_op(operation, "rbd_directory")

    def in_trash(self, image_id):
        """Moved to the trash, from where librbd's removal takes it, and to be found nowhere else."""
        self.goal.unfinished.create(16 * MIB)
        with self.goal.unfinished as image:
            image.fill(0, MIB, seed=1)
        name, image_id = self.goal.unfinished.name, self.goal.unfinished.id
        rbd.RBD().trash_move(self.goal.ioctx, name)
        # As cls_rbd encodes a TrashImageSpec: source (3: removing), name, two times, state.
        spec = bytes([3]) + self.encoded(name) + bytes(16) + bytes([0])
        spec = bytes([2, 1]) + len(spec).to_bytes(4, "little") + spec
        self.goal.ioctx.execute("rbd_trash", "rbd", "trash_remove", self.encoded(image_id))
        self.goal.ioctx.execute("rbd_trash", "rbd", "trash_add", self.encoded(image_id) + spec)
        return image_id

    def in_trash_and_directory(self, image_id):
        """In the trash, and its name is in the directory still."""
        image_id = self.in_trash(image_id)
        self.enter(self.goal.unfinished.name, image_id)
        return image_id

    def half_made(self, image_id):
        """Known to the directory, and then nothing."""
        self.enter(self.goal.unfinished.name, image_id)

    def named(self, image_id):
        """With a name that leads to its header, but without a header."""
        self.half_made(image_id)
        self.goal.ioctx.write_full(f"rbd_id.{self.goal.unfinished.name}", self.encoded(image_id))

    def without_map(self, _):
        """All but its object map."""
        self.goal.unfinished.create(16 * MIB)
        self.goal.ioctx.remove_object(f"rbd_object_map.{self.goal.unfinished.id}")

    def without_record(self, _):
        """Made, but its record isn't written."""
        self.goal.unfinished.create(16 * MIB)

    def test_while_it_was_made_or_removed(self):
        states = self.states(self.source)
        for left in self.ways:
            with self.subTest(left.__doc__):
                self.goal = self.target()
                left("f00d" + secrets.token_hex(4))
                self.go_on(self.source, self.goal)
                self.assert_right(self.source, self.goal, states)

    def test_abort_of_what_was_half_made_or_removed(self):
        for left in self.ways:
            with self.subTest(left.__doc__):
                self.goal = self.target()
                image_id = "f00d" + secrets.token_hex(4)
                image_id = left(image_id) or image_id
                self.abort(self.goal)
                self.assert_nothing(self.goal, image_id)

    def committed(self, client=None):
        """A target that a run has all but finished: the record still stands.

        :param client: who was at the source last
        :returns: the states it must have
        """
        states = self.states(self.source)
        begun = Moment("it is owned", lambda source, target, _: {RECORD, HOLDER} <= target.unfinished.metadata.keys())
        self.assertTrue(self.kill(begun, self.source, self.goal, "--bandwidth", "1M"))
        record, holder = self.record(self.goal) | {"phase": "committing"}, self.goal.unfinished.metadata[HOLDER]
        self.go_on(self.source, self.goal)
        if client:
            self.goal.set_metadata(HOLDER, holder)
            record["sourceClient"] = client(self.source)
        self.goal.set_metadata(RECORD, json.dumps(record))
        return states

    @staticmethod
    def dies_with_the_lock(volume):
        """A client that is killed while it holds the exclusive lock. :returns: its address"""
        locks = subprocess.Popen([sys.executable, "-c", LOCKS, volume.pool, volume.name], stdout=subprocess.PIPE)
        locks.stdout.readline()
        [address] = volume.watchers()
        locks.kill()
        locks.wait()
        locks.stdout.close()
        return address

    def test_the_lock_of_a_run_that_had_tidied_up(self):
        """It was killed once nothing was left on the source for which the next one takes that lock."""
        states = self.committed(client=self.dies_with_the_lock)
        with self.source.open() as image:
            self.assertTrue(image.list_lockers(), "the lock that is to be taken away")
        self.assertEqual(self.go_on(self.source, self.goal)["outcome"], "tidied")
        self.assert_right(self.source, self.goal, states)

    def test_while_it_was_renamed_and_has_two_names(self):
        states = self.committed()
        content = self.goal.ioctx.read(f"rbd_id.{self.goal.name}")
        rbd.RBD().rename(self.goal.ioctx, self.goal.name, self.goal.unfinished.name)
        self.goal.ioctx.write_full(f"rbd_id.{self.goal.name}", content)
        self.go_on(self.source, self.goal)
        self.assert_right(self.source, self.goal, states)

    def test_while_it_was_renamed_and_the_old_name_still_leads_to_it(self):
        states = self.committed()
        content = self.goal.ioctx.read(f"rbd_id.{self.goal.name}")
        self.goal.ioctx.write_full(f"rbd_id.{self.goal.unfinished.name}", content)
        self.go_on(self.source, self.goal)
        self.assert_right(self.source, self.goal, states)


class WhatWasDone(InterruptedTest):
    """What stands on the target already is not copied again."""

    def test_finished_snapshots(self):
        source, whole = self.history(), self.target()
        states = self.states(source)
        sent = {step.get("snapshot"): step["sentBytes"] + step["copiedBytes"] for step in self.move(source, whole)["steps"]}
        for kept in range(1, len(SNAPSHOTS) + 1):
            with self.subTest(kept=kept):
                target = self.target()
                self.assertTrue(self.kill(when_kept(kept, later=0.1), source, target, *SLOWLY))
                self.assertEqual(target.unfinished.snapshots, list(SNAPSHOTS[:kept]))
                report = self.go_on(source, target)
                self.assertTrue(report["resumed"])
                self.assertEqual(report["snapshotsFoundFinished"], kept)
                self.assertEqual([step.get("snapshot") for step in report["steps"]], [*SNAPSHOTS[kept:], None])
                for step in report["steps"]:
                    self.assertLessEqual(
                        step["sentBytes"] + step["copiedBytes"], sent[step.get("snapshot")], report)
                self.assert_right(source, target, states)

    def test_a_stopped_step(self):
        """A stop is between two objects: nothing at all is sent twice."""
        source, target = self.history(snapshots=[], pieces=24), self.target()
        states = self.states(source)
        moving = self.begin(source, target, *SLOWLY, "--in-flight", "4M")
        self.until(lambda: self.transients(source), "the source to be frozen", moving=moving)
        time.sleep(0.7)
        moving.send()
        self.assertEqual(moving.wait(10).rc, 75)
        settled = self.record(target)["settledBytes"]
        self.assertGreater(settled, 0)
        report = self.go_on(source, target)
        [step] = report["steps"]
        self.assertLessEqual(step["foundBytes"], source.size - settled)
        self.assert_right(source, target, states)

    def test_a_killed_long_step(self):
        """What a kill costs is what was moved in the last seconds."""
        source, target = self.history(snapshots=[], pieces=24), self.target()
        states = self.states(source)
        # As long as it takes to have settled once, and not to have ended.
        self.assertTrue(self.kill(
            Moment("something settled", lambda source, target, _: self.record(target)["settledBytes"] > 0),
            source, target, "--bandwidth", "4M", "--in-flight", "4M"))
        settled = self.record(target)["settledBytes"]
        report = self.go_on(source, target)
        self.assertLessEqual(report["steps"][0]["foundBytes"], source.size - settled)
        self.assert_right(source, target, states)

    def test_an_object_map_that_librbd_gave_up(self):
        """It marks the map as invalid when an OSD doesn't answer: that is mended, by whoever goes on."""
        source, target = self.history(), self.target()
        states = self.states(source)
        self.assertTrue(self.kill(when_kept(1), source, target, *SLOWLY))
        invalid = rbd.RBD_FLAG_OBJECT_MAP_INVALID
        target.ioctx.execute(
            f"rbd_header.{target.unfinished.id}", "rbd", "set_flags", struct.pack("<QQ", invalid, invalid))
        with target.unfinished.open() as image:
            self.assertTrue(image.flags() & invalid)
        self.go_on(source, target)
        self.assert_right(source, target, states)
        self.assert_object_map_right(target)


class Signals(InterruptedTest):
    def test_it_stops_and_goes_on(self):
        source, target = self.history(), self.target()
        states = self.states(source)
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
            with self.subTest(number.name):
                moving = self.begin(source, target, *SLOWLY)
                time.sleep(0.6)
                moving.send(number)
                asked = time.monotonic()
                result = moving.wait(10)
                self.assertLess(time.monotonic() - asked, 5)
                self.assertEqual(result.rc, 75, result)
                self.assertIn("The same command goes on from there", result.stderr)
                self.assertEqual(result.stdout, "")
        self.go_on(source, target)
        self.assert_right(source, target, states)

    def test_at_any_moment(self):
        """Whatever it is at: it ends within seconds, and the same command goes on."""
        source = self.history(pieces=4)
        states, chance = self.states(source), random.Random(5)
        for part in range(6):
            target = self.target()
            moving = self.begin(source, target)
            time.sleep(0.05 + part * 0.16 + chance.random() * 0.16)
            moving.send(signal.SIGINT)
            result = moving.wait(10)
            with self.subTest(result):
                # Before it listens for signals it is not yet at anything.
                self.assertIn(result.rc, (0, 75, -signal.SIGINT))
                if result.rc != 0:
                    self.go_on(source, target)
                self.assert_right(source, target, states)

    def test_progress_off_a_terminal_is_plain_lines(self):
        source, target = self.history(), self.target()
        result = self.begin(source, target, "--bandwidth", "5M", progress="auto").wait(60)
        self.assertEqual(result.rc, 0, result)
        self.assertNotRegex(result.stderr, r"[\r\x1b]")
        self.assertRegex(result.stderr, r"(?m)^snapshot (one|two|three) \([123] of 3\) .* [0-9]+% .*MiB/s.*$")


class Terminal(InterruptedTest):
    """As a person runs it: the program's stdin, stdout and stderr are a terminal, and Ctrl-C is typed."""

    def test_a_bar_and_ctrl_c(self):
        source, target = self.history(), self.target()
        states = self.states(source)
        command = [setting("GODWIT"), "migrate", source.address, target.address]
        shown, status = on_terminal([*command, *SLOWLY], [(r"snapshot two .*\[#+-*\] +[0-9]+%", b"\x03")])
        self.assertEqual(status, 75, shown)
        self.assertIn("The same command goes on from there", shown)
        before, after_it = shown.split("godwit: stopping after what is under way")
        # Redrawn in its place, line after line that is no new line; none is left behind.
        self.assertGreater(len(re.findall(r"\r[^\r\n]+\x1b\[K", before)), 3, shown)
        self.assertNotIn("\n", before.rstrip())
        self.assertNotRegex(after_it, r"[#-]\][^\r\n]*\x1b\[K(godwit|\n)", shown)
        shown, status = on_terminal(command)
        self.assertEqual(status, 0, shown)
        self.assertRegex(shown, r"\x1b\[Kmoved .* to .*\r\n")
        self.assert_right(source, target, states)

    def test_a_narrow_terminal(self):
        """A bar longer than a line would leave a trail."""
        source, target = self.history(), self.target()
        shown, status = on_terminal(
            [setting("GODWIT"), "migrate", source.address, target.address, *SLOWLY], columns=40)
        self.assertEqual(status, 0, shown)
        drawn = re.findall(r"\r([^\r\n\x1b]*)\x1b\[K", shown)
        self.assertTrue(any("%" in line for line in drawn), shown)
        self.assertLess(max(map(len, drawn)), 40, shown)

    def test_a_line_takes_the_place_of_the_bar(self):
        source, target = self.history(), self.target()
        shown, status = on_terminal(
            [setting("GODWIT"), "migrate", "--live", source.address, target.address, *SLOWLY])
        self.assertEqual(status, 0, shown)
        self.assertRegex(shown, r"%.*\x1b\[K", "a bar was drawn")
        rounds = re.findall(r"(\r\x1b\[K|\n)?round [0-9]+: [0-9.]+ [A-Za-z]+ dirtied", shown)
        self.assertTrue(rounds and all(rounds), shown)


class Rivals(InterruptedTest):
    """Two runs of the same move at once."""

    def test_the_second_is_refused_and_the_first_unharmed(self):
        source, target = self.history(), self.target()
        states = self.states(source)
        first = self.begin(source, target, *SLOWLY)
        for moment in (when_kept(1), when_kept(3)):
            moment.await_(first, source, target)
            result = self.godwit(75, "migrate", source.address, target.address)
            self.assertIn(f"process {first.pid}", result.stderr)
        result = first.wait(30)
        self.assertEqual(result.rc, 0, result)
        self.assertFalse(result.json["resumed"])
        self.assert_right(source, target, states)

    def test_begun_at_the_same_moment(self):
        """Whoever comes first, one of them finishes it, and the other says why it didn't."""
        source = self.history(pieces=4)
        states = self.states(source)
        for gap in (0, 0, 0.02, 0.05, 0.1):
            with self.subTest(gap=gap):
                target = self.target()
                first = self.begin(source, target)
                time.sleep(gap)
                second = self.begin(source, target)
                results = [first.wait(60), second.wait(60)]
                codes = sorted(result.rc for result in results)
                self.assertIn(codes, ([0, 73], [0, 75]), results)
                self.assert_right(source, target, states)

    def test_another_move_to_the_same_target(self):
        source, other, target = self.history(), self.history(snapshots=["other"]), self.target()
        states = self.states(source)
        first = self.begin(source, target, *SLOWLY)
        when_kept(1).await_(first, source, target)
        result = self.godwit(73, "migrate", other.address, target.address)
        self.assertIn(source.address, result.stderr)
        self.assert_clean(other)
        self.assertEqual(first.wait(30).rc, 0)
        self.assert_right(source, target, states)


class AnotherHost(InterruptedTest):
    """A run that was at the target on a host that this one can't look into.

    There is one host here: the holder in the target's metadata is made to look as if it were on another.
    """

    def disguise(self, target):
        """Past librbd, which would wait for the very lock of the run that is gone."""
        header, key = f"rbd_header.{target.unfinished.id}", f"metadata_{HOLDER}"
        holder = json.loads(target.unfinished.metadata[HOLDER]) | {"boot": "another", "host": "elsewhere"}
        with rados.WriteOpCtx() as operation:
            target.ioctx.set_omap(operation, (key,), (json.dumps(holder).encode(),))
            target.ioctx.operate_write_op(operation, header)
        self.assertEqual(json.loads(target.unfinished.metadata[HOLDER]), holder)

    def test_it_is_waited_for_until_its_watch_expires(self):
        # A dead one and a living one, at once, as each takes half a minute.
        dead, living = [(self.history(), self.target()) for _ in range(2)]
        states = [self.states(source) for source, _ in (dead, living)]
        lives = self.begin(*living, "--bandwidth", "1M")
        self.until(lambda: self.transients(living[0]), "the source to be frozen", moving=lives)
        self.assertTrue(self.kill(when_kept(1), *dead, *SLOWLY))
        for _, target in dead, living:
            self.disguise(target)
        goes_on, refused, stopped = [
            self.begin(*pair, progress="plain") for pair in (dead, living, living)]
        self.ends_when_asked(stopped)
        result = goes_on.wait(45)
        self.assertEqual(result.rc, 0, result)
        self.assertRegex(result.stderr, r"waiting for process [0-9]+ on elsewhere")
        self.assert_right(*dead, states[0])
        result = refused.wait(45)
        self.assertEqual(result.rc, 75, result)
        self.assertIn(f"process {lives.pid} on elsewhere is moving into it", result.stderr)
        # It was not harmed.
        self.assertFalse(lives.has_ended)
        lives.send()
        self.assertEqual(lives.wait(15).rc, 75)
        self.go_on(*living)
        self.assert_right(*living, states[1])

    def ends_when_asked(self, waiting):
        self.until(lambda: "waiting for process" in waiting.text(), "it to wait", moving=waiting)
        waiting.send()
        result = waiting.wait(5)
        self.assertEqual(result.rc, 75, result)


class SourceChangedBetweenRuns(InterruptedTest):
    """Whatever was done to it, it comes out right."""

    def changed(self, change, kept=2):
        """Kills a move once so many snapshots are kept, changes its source, and gives the command again."""
        for bandwidth in "8M", "2M", "512K":
            source, target = self.history(size=32 * MIB, pieces=4, length=MIB), self.target()
            killed = self.kill(when_kept(kept, later=0.1), source, target, "--bandwidth", bandwidth)
            if killed and len(target.unfinished.snapshots) == kept:
                break
        else:
            self.fail(f"never killed with {kept} snapshots kept")
        change(source)
        states = self.states(source)
        result = run("migrate", source.address, target.address, timeout=60)
        self.assertEqual(result.rc, 0, result)
        self.assert_right(source, target, states)

    def write(self, source, seed=9):
        with source:
            write_at_random(source, random.Random(seed), 4, MIB)

    def test_written(self):
        for kept in (0, 3):
            with self.subTest(kept=kept):
                self.changed(self.write, kept)

    def test_a_snapshot_more(self):
        self.changed(lambda source: source.snap("four"))

    def test_written_between_snapshots_more(self):
        def change(source):
            self.write(source, 1)
            source.snap("four", protect=True)
            self.write(source, 2)
            source.snap("five")
            self.write(source, 3)
        self.changed(change)

    def test_a_snapshot_fewer(self):
        for kept, name in ((1, "three"), (3, "one"), (1, "two"), (3, "three")):
            with self.subTest(kept=kept, removed=name):
                def change(source):
                    if name == "two":
                        with source.writable() as image:
                            image.unprotect_snap(name)
                    source.remove_snap(name)
                self.changed(change, kept)

    def test_another_snapshot_of_the_same_name(self):
        """Of what is kept already, or of what is under way."""
        for kept, name in ((3, "one"), (3, "three"), (2, "three")):
            with self.subTest(kept=kept, name=name):
                def change(source):
                    source.remove_snap(name)
                    self.write(source)
                    source.snap(name)
                self.changed(change, kept)

    def test_the_same_name_and_nothing_written(self):
        def change(source):
            source.remove_snap("one")
            source.snap("one")
        self.changed(change, kept=3)

    def test_a_snapshot_that_was_to_come_made_anew(self):
        def change(source):
            source.remove_snap("three")
            self.write(source)
            source.snap("three")
        self.changed(change, kept=1)

    def test_a_snapshot_renamed(self):
        def change(source):
            with source.writable() as image:
                image.rename_snap("one", "eins")
        self.changed(change, kept=2)

    def test_rolled_back(self):
        self.changed(lambda source: source.rollback("one"))

    def test_shrunk_and_grown(self):
        self.changed(lambda source: source.resize(17 * MIB + 512))
        self.changed(lambda source: source.resize(64 * MIB))

    def test_shrunk_then_grown(self):
        def change(source):
            source.resize(5 * MIB)
            source.resize(32 * MIB)
        self.changed(change, kept=3)

    def test_the_frozen_state_removed_by_hand(self):
        def change(source):
            for name in self.transients(source):
                source.remove_snap(name)
        self.changed(change, kept=1)
        self.changed(change, kept=3)

    def test_renamed(self):
        """It is the same image still: its new name goes on."""
        source, target = self.history(), self.target()
        self.assertTrue(self.kill(when_kept(2), source, target, *SLOWLY))
        renamed = self.target("fast")
        rbd.RBD().rename(source.ioctx, source.name, renamed.name)
        states = self.states(renamed)
        self.go_on(renamed, target)
        self.assert_right(renamed, target, states)


class SourceChangedMeanwhile(InterruptedTest):
    """While a run is at it."""

    def meanwhile(self, change):
        source, target = self.history(size=32 * MIB, pieces=4, length=MIB), self.target()
        moving = self.begin(source, target, "--bandwidth", "4M")
        when_kept(1, later=0.1).await_(moving, source, target)
        change(source)
        self.assertFalse(moving.has_ended)
        result = moving.wait(60)
        self.assertEqual(result.rc, 0, result)
        self.assert_right(source, target, self.states(source))

    def write(self, source):
        with source:
            write_at_random(source, random.Random(3), 4, MIB)

    def test_written(self):
        self.meanwhile(self.write)

    def test_a_snapshot(self):
        self.meanwhile(lambda source: source.snap("four"))

    def test_written_between_snapshots(self):
        def change(source):
            self.write(source)
            source.snap("four")
            source.fill(3 * MIB, MIB, seed=4)
            source.snap("five", protect=True)
            source.fill(4 * MIB, 700 * KIB, seed=5)
        self.meanwhile(change)

    def test_shrunk(self):
        self.meanwhile(lambda source: source.resize(9 * MIB + 512))

    def test_grown(self):
        self.meanwhile(lambda source: source.resize(64 * MIB))

    def test_a_snapshot_removed(self):
        self.meanwhile(lambda source: source.remove_snap("three"))

    def test_the_snapshot_under_way_removed(self):
        def change(source):
            with source.writable() as image:
                image.unprotect_snap("two")
            source.remove_snap("two")
        self.meanwhile(change)

    def test_a_writer_that_stays(self):
        source, target = self.history(), self.target()
        moving = self.begin(source, target, *SLOWLY)
        when_kept(1).await_(moving, source, target)
        with source:
            source.fill(5 * MIB, MIB, seed=6)
            result = moving.wait(30)
            self.assertEqual(result.rc, 75, result)
            self.assertIn("open for writing", result.stderr)
            self.assertFalse(target.exists)
            result = self.godwit(75, "migrate", source.address, target.address)
            self.assertIn("open for writing", result.stderr)
            source.fill(9 * MIB, MIB, seed=7)
        states = self.states(source)
        self.go_on(source, target)
        self.assert_right(source, target, states)

    def test_removed(self):
        """The image itself, which its snapshots hinder: so its cluster's administrator meant it."""
        source, target = self.history(snapshots=[], pieces=24), self.target()
        moving = self.begin(source, target, *SLOWLY)
        self.until(lambda: self.transients(source), "the source to be frozen", moving=moving)
        time.sleep(0.5)
        image_id = target.unfinished.id
        source.remove()
        result = moving.wait(30)
        self.assertIn(result.rc, (66, 73, 75), result)
        result = self.godwit(66, "migrate", source.address, target.address)
        self.abort(target)
        self.assert_nothing(target, image_id)
