"""The guests themselves: they write what they say, obey, and their check finds every fault that it exists to find."""

import os
import time


from faults import InterruptedTest
from guests import Fio, Guest
from harness import KIB, MIB, Running
from journal import content


class GuestTest(InterruptedTest):
    def guest(self, size=32 * MIB, **options):
        volume = self.volume(size=size)
        return volume, Guest(self, volume, **options)

    def copied(self, volume):
        """A copy of a volume, as rbd itself makes it."""
        copy = self.target("slow")
        with volume.open() as image:
            image.copy(copy.ioctx, copy.name)
        return copy


class ItWritesWhatItSays(GuestTest):
    def test_all_is_there_after_a_stop(self):
        for options in ({}, {"cache": True}, {"rate": 0, "block_size": 64 * KIB, "blocks": (1, 1)},
                        {"pattern": "hot", "fill": True}, {"pattern": "sequential", "blocks": (4, 4), "zeros": 0}):
            with self.subTest(options):
                volume, guest = self.guest(**options)
                time.sleep(1)
                report = guest.stop()
                self.assertGreater(report["writes"], 20)
                self.assertEqual(report["errors"], {})
                guest.assert_held(volume)
                self.assertEqual(list(guest.journal.issued), list(guest.journal.durable))
                self.assert_left_alone(volume)

    def test_it_writes_all_patterns(self):
        """Data, zeros by request, discards; hot spots are hotter than the rest."""
        volume, guest = self.guest(pattern="hot", zeros=0.2, rate=0, fill=True)
        time.sleep(2)
        guest.stop()
        journal = guest.journal
        self.assertEqual(journal.written, journal.count)
        self.assertGreater(sum(1 for zeroed in journal.zeroed if zeroed), journal.count // 100)
        writes = [sequence > 8 for sequence in journal.issued]
        sixteenth = journal.count // 16
        self.assertGreater(sum(writes[:sixteenth]) / sixteenth, 2 * sum(writes[sixteenth:]) / (journal.count - sixteenth))
        guest.assert_held(volume)

    def test_it_keeps_to_its_rate(self):
        volume, guest = self.guest(rate=2 * MIB)
        for rate in 2 * MIB, 8 * MIB:
            guest.rate(rate)
            time.sleep(0.3)
            before, begin = guest.report(), time.monotonic()
            time.sleep(2)
            after = guest.report()
            found = (after["bytes"] - before["bytes"]) / (time.monotonic() - begin)
            self.assertLess(abs(found - rate), 0.25 * rate)

    def test_a_part_of_an_image(self):
        volume, guest = self.guest(offset=8 * MIB, length=4 * MIB, fill=True)
        time.sleep(0.5)
        guest.stop()
        guest.assert_held(volume)
        self.assertEqual(volume.read(0, 8 * MIB).strip(b"\0"), b"")
        self.assertEqual(volume.read(12 * MIB, 20 * MIB).strip(b"\0"), b"")
        self.assertEqual(guest.journal.written, 1024)

    def test_a_check_while_it_writes(self):
        for cache in False, True:
            volume, guest = self.guest(rate=0, cache=cache, pattern="hot", flush_every=0.1)
            for _ in range(5):
                guest.assert_held(volume)
            guest.stop()
            guest.assert_held(volume)

    def test_killed_it_has_lost_nothing(self):
        """With a cache, what was flushed; without, what was acknowledged. And it goes on with its journal."""
        for cache in False, True:
            with self.subTest(cache=cache):
                volume, guest = self.guest(rate=0, cache=cache)
                time.sleep(1.5)
                guest.kill()
                volume.evict_others()
                guest.assert_held(volume)
                self.assertGreater(max(guest.journal.durable), 0)
                guest.start()
                self.assertTrue(guest.is_writing())
                guest.stop()
                guest.assert_held(volume)

    def test_what_it_costs(self):
        _, guest = self.guest(rate=5 * MIB)
        before = self.cpu(guest)
        time.sleep(2)
        self.assertLess(self.cpu(guest) - before, 0.7)

    @staticmethod
    def cpu(guest):
        with open(f"/proc/{guest._running.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ItObeys(GuestTest):
    def test_freeze_closes_and_thaw_goes_on(self):
        for cache in False, True:
            volume, guest = self.guest(cache=cache)
            time.sleep(0.3)
            guest.freeze()
            self.assertEqual(guest.state, "frozen")
            self.assert_left_alone(volume)
            guest.assert_held(volume, guest.frozen_journal)
            digests = volume.digests()
            time.sleep(0.3)
            self.assertEqual(volume.digests(), digests)
            guest.thaw()
            self.assertTrue(guest.is_writing())
            [hold] = guest.report()["holds"]
            self.assertEqual(hold["until"], "thaw")
            self.assertGreater(hold["gapSeconds"], 0.3)
            guest.assert_held(volume)

    def test_hold_keeps_the_image_open(self):
        volume, guest = self.guest(cache=True, rate=0)
        time.sleep(0.3)
        guest.order("hold")
        self.assertEqual(guest.state, "frozen")
        self.assertEqual(len(volume.watchers()), 1)
        self.assertEqual(guest.findings(volume, guest.frozen_journal), [])
        digests = volume.digests()
        copy = self.copied(volume)
        self.assertEqual(volume.digests(), digests)
        volume.evict_others()
        guest.switch(copy)
        self.assertTrue(guest.is_writing())
        guest.stop()
        guest.assert_held(copy)
        guest.assert_held(volume, guest.frozen_journal)

    def test_switch_goes_on_elsewhere(self):
        volume, guest = self.guest(rate=0)
        guest.freeze()
        copy = self.copied(volume)
        guest.switch(copy)
        self.assertTrue(guest.is_writing())
        guest.stop()
        guest.assert_held(copy)
        guest.assert_held(volume, guest.frozen_journal)
        self.assertNotEqual(guest.findings(volume), [])

    def test_thaw_without_freeze_and_freeze_twice(self):
        _, guest = self.guest()
        guest.thaw()
        self.assertTrue(guest.is_writing())
        guest.freeze()
        guest.freeze()
        guest.thaw()
        guest.thaw()
        self.assertTrue(guest.is_writing())

    def test_gaps_have_their_time(self):
        volume, guest = self.guest(rate=0)
        time.sleep(0.5)
        before = time.time()
        guest._running.send(19)  # SIGSTOP
        time.sleep(0.7)
        guest._running.send(18)  # SIGCONT
        time.sleep(0.2)
        longest = guest.report()["longest"]
        self.assertGreater(longest["seconds"], 0.6)
        self.assertLess(abs(longest["at"] - before), 0.5)
        self.assertFalse(longest["held"])

    def test_evicted_it_says_so_and_comes_back(self):
        volume, guest = self.guest(rate=0)
        volume.evict_others()
        self.wait_until(lambda: guest.state == "failed")
        guest.assert_held(volume)
        guest.thaw()
        self.assertTrue(guest.is_writing())
        guest.stop()
        guest.assert_held(volume)

    def test_another_cluster(self):
        volume, guest = self.guest()
        guest.freeze()
        there = self.volume("fast", 32 * MIB, on=2)
        there.write(0, volume.read(0, volume.size))
        guest.switch(there)
        self.assertTrue(guest.is_writing())
        guest.stop()
        guest.assert_held(there)


class Hooks(GuestTest):
    def hook(self, guest, *options, verb="freeze", address=(), rc=0):
        command = [*guest.hook(*options).removeprefix("exec:").split(), verb, *address]
        result = Running(command).wait(10)
        self.assertEqual(result.rc, rc, result)
        return result

    def test_freeze_thaw_switch(self):
        volume, guest = self.guest()
        self.assertLess(self.hook(guest).seconds, 1)
        self.assertEqual(guest.state, "frozen")
        self.hook(guest, verb="thaw")
        self.assertEqual(guest.state, "writing")
        self.hook(guest)
        copy = self.copied(volume)
        self.hook(guest, verb="switch", address=[copy.address])
        self.assertEqual(guest.report()["address"], copy.address)
        self.assertEqual(guest.calls, [("freeze", 0), ("thaw", 0), ("freeze", 0), ("switch", 0)])

    def test_faults(self):
        _, guest = self.guest()
        for options, rc, state in (
                (("--fail", "freeze"), 3, "writing"), (("--lie", "freeze"), 0, "writing"),
                (("--fail-after", "freeze"), 4, "frozen"), (("--kill", "freeze"), -9, "frozen"),
                (("--late", "freeze=0.2"), 0, "frozen"), (("--fail", "thaw"), 0, "frozen")):
            with self.subTest(options):
                self.hook(guest, *options, rc=rc)
                self.assertEqual(guest.state, state)
                guest.thaw()
        self.hook(guest, "--times", "1", "--fail", "thaw", verb="thaw", rc=3)
        self.hook(guest, "--times", "1", "--fail", "thaw", verb="thaw", rc=0)
        with self.assertRaisesRegex(AssertionError, "hung"):
            Running([*guest.hook("--hang", "freeze").removeprefix("exec:").split(), "freeze"]).wait(1)
        self.assertEqual(guest.state, "frozen")
        self.assertEqual(guest.calls[-1], ("freeze", None))


class ChecksFindWhatTheyLookFor(GuestTest):
    """Each fault is planted in an image that was right, and has to be found, where it is and as what it is."""

    def setUp(self):
        super().setUp()
        self.image, self.writer = self.guest(size=16 * MIB, rate=0, fill=True, zeros=0)
        time.sleep(0.5)
        self.writer.stop()
        self.writer.assert_held(self.image)
        self.log = self.writer.journal
        self.number = max(range(self.log.count), key=lambda number: self.log.issued[number])
        self.sequence = self.log.issued[self.number]

    def block(self, sequence=None, number=None, seed=None):
        return content(
            self.log.seed if seed is None else seed, self.number if number is None else number,
            self.sequence if sequence is None else sequence, 4096)

    def plant(self, kind, data):
        self.image.write(self.number * 4096, data)
        [finding] = self.writer.findings(self.image)
        self.assertEqual((finding.block, finding.offset, finding.kind), (self.number, self.number * 4096, kind))
        with self.assertRaisesRegex(AssertionError, f"1 blocks are wrong .1 {kind}.*{self.number * 4096}"):
            self.writer.assert_held(self.image)

    def test_planted_faults(self):
        right = self.image.read(self.number * 4096, 4096)
        self.assertEqual(right, self.block())
        older = self.block(self.sequence - 1)
        for kind, data in (
                ("lost", bytes(4096)), ("older", older), ("torn", right[:2048] + older[2048:]),
                ("torn", right[:512] + bytes(4096 - 512)), ("torn", right[:4095] + bytes([right[4095] ^ 1])),
                ("foreign", bytes(512) + right[512:]), ("foreign", self.block(seed=1)), ("foreign", os.urandom(4096)),
                ("misplaced", self.block(number=self.number ^ 1)), ("unwritten", self.block(self.log.last + 1))):
            with self.subTest(kind):
                self.plant(kind, data)
        self.image.write(self.number * 4096, right)
        self.writer.assert_held(self.image)

    def test_a_request_for_zeros_that_was_not_carried(self):
        volume, guest = self.guest(size=4 * MIB, rate=0, fill=True, zeros=1)
        time.sleep(0.5)
        guest.stop()
        guest.assert_held(volume)
        journal = guest.journal
        number = next(number for number in range(journal.count) if journal.zeroed[number])
        volume.write(number * 4096, content(journal.seed, number, 1, 4096))
        [finding] = guest.findings(volume)
        self.assertEqual((finding.block, finding.kind), (number, "older"))

    def test_an_image_that_lacks_the_last_writes(self):
        """A copy as of a moment before the writer stopped."""
        volume, guest = self.guest(rate=8 * MIB, fill=True)
        volume.snap("before")
        time.sleep(0.3)
        guest.stop()
        guest.assert_held(volume)
        with volume.open("before") as image:
            findings = guest.journal.check(image)
        self.assertGreater(len(findings), 20)
        self.assertEqual({finding.kind for finding in findings} - {"older", "lost"}, set())

    def test_an_image_that_lacks_one_write_of_a_cached_guest(self):
        volume, guest = self.guest(rate=MIB, cache=True, zeros=0, fill=True)
        guest.freeze()
        journal = guest.frozen_journal
        number = max(range(journal.count), key=lambda number: journal.issued[number])
        volume.write(number * 4096, content(journal.seed, number, journal.issued[number] - 1, 4096))
        [finding] = guest.findings(volume, journal)
        self.assertEqual(finding.kind, "older")

    def test_an_image_cut_off(self):
        self.image.resize(15 * MIB)
        findings = self.writer.findings(self.image)
        self.assertEqual({finding.kind for finding in findings}, {"beyond"})
        self.assertEqual(len(findings), 256)

    def test_an_image_never_written(self):
        empty = self.volume(size=16 * MIB)
        findings = self.writer.findings(empty)
        self.assertEqual(len(findings), self.log.count)
        self.assertEqual({finding.kind for finding in findings}, {"lost"})


class FioFinds(GuestTest):
    def test_its_own_writes_and_one_that_is_missing(self):
        volume = self.volume(size=16 * MIB)
        Fio(self, volume, seed=1).start().finish()
        with volume.open() as image:
            older = image.read(4 * MIB, 64 * KIB)
        writer = Fio(self, volume, seed=2).start()
        writer.finish()
        writer.assert_held(volume)
        copy = self.copied(volume)
        writer.assert_held(copy)
        for data in older, bytes(64 * KIB):
            copy.write(4 * MIB, data)
            self.assertNotEqual(writer.verify(copy).rc, 0)
        self.assertNotEqual(writer.verify(self.volume(size=16 * MIB)).rc, 0)
