"""The guest of these tests is right itself: it finds what is wrong, and so does the look from outside."""

import time

from machine_test import BLOCK, MIB, Check, MachineTest


class TheGuest(MachineTest):
    def test_finds_all_that_it_wrote(self):
        volume = self.volume("fast", 32 * MIB)
        machine = self.boot(volume)
        self.assertEqual(machine.verify(), Check(good=0, empty=4096, bad=0, first=0))
        machine.rate(-1, span=4, jobs=2)
        self.wait_until(lambda: machine.info()["seq"] > 500)
        self.assert_right(machine, at=volume, least=100)

    def test_writes_at_the_rate_that_it_is_told(self):
        machine = self.boot(self.volume("fast", 32 * MIB))
        machine.rate(100)
        time.sleep(1)
        before = machine.info()["seq"]
        time.sleep(3)
        written = machine.info()["seq"] - before
        self.assertGreater(written, 200)
        self.assertLess(written, 400)

    def test_keeps_to_its_region(self):
        volume = self.volume("fast", 32 * MIB)
        machine = self.boot(volume)
        machine.region(1024, 256)
        machine.rate(-1, jobs=2)
        self.wait_until(lambda: machine.info()["seq"] > 500)
        machine.quiesce()
        table = machine.table()
        self.assertTrue(all(seq == 0 for index, seq in enumerate(table) if not 1024 <= index < 1280))
        self.assert_right(machine, at=volume, least=100)

    def test_a_planted_wrong_block_is_found(self):
        volume = self.volume("fast", 32 * MIB)
        machine = self.boot(volume)
        machine.rate(-1, jobs=2)
        self.wait_until(lambda: machine.info()["seq"] > 1000)
        machine.quiesce()
        table = machine.table()
        one, other, third = [index for index, seq in enumerate(table) if seq][:3]
        empty = next(index for index, seq in enumerate(table) if not seq)
        block = volume.read(one * BLOCK, BLOCK)
        flipped = bytes([block[5000] ^ 1])
        for name, at, data in (
                ("a bit", one * BLOCK + 5000, flipped), ("a lost block", one * BLOCK, bytes(BLOCK)),
                ("a misplaced block", other * BLOCK, block), ("half a block", third * BLOCK, bytes(BLOCK // 2)),
                ("a write where none was", empty * BLOCK + 4096, b"x")):
            with self.subTest(name):
                index = at // BLOCK
                right = volume.read(index * BLOCK, BLOCK)
                volume.write(at, data)
                self.assertEqual((machine.verify().bad, machine.verify().first), (1, index))
                outside = self.check(machine, volume)
                self.assertEqual((outside.bad, outside.first), (1, index))
                volume.write(index * BLOCK, right)
                self.assertEqual(machine.verify().bad, 0)

    def test_a_write_that_came_too_late_is_found(self):
        volume = self.volume("fast", 32 * MIB)
        machine = self.boot(volume)
        machine.region(0, 64)
        machine.rate(-1)
        self.wait_until(lambda: machine.info()["seq"] > 200)
        machine.quiesce()
        old = volume.read(0, 64 * BLOCK)
        machine.rate(-1)
        self.wait_until(lambda: machine.info()["seq"] > 1200)
        machine.quiesce()
        volume.write(0, old)
        self.assertGreater(machine.verify().bad, 32)
        self.assertGreater(self.check(machine, volume).bad, 32)

    def test_tells_how_long_it_stood_still(self):
        machine = self.boot(self.volume("fast", 32 * MIB))
        machine.rate(200)
        time.sleep(1)
        machine.gap(forget=True), machine.pause(forget=True)
        time.sleep(0.5)
        self.assertLess(machine.pause(), 0.4)
        machine.monitor.execute("stop")
        time.sleep(1)
        machine.monitor.execute("cont")
        time.sleep(0.3)
        for measured in (machine.gap(), machine.pause()):
            self.assertGreater(measured, 0.9)
            self.assertLess(measured, 1.6)

    def test_finds_its_blocks_again_after_a_boot(self):
        volume = self.volume("fast", 32 * MIB)
        machine = self.boot(volume)
        machine.rate(-1)
        self.wait_until(lambda: machine.info()["seq"] > 300)
        machine.quiesce()
        good = machine.verify().good
        machine.close()
        again = self.boot(volume, shape="raw", iothread=True)
        self.assertEqual(again.adopt()[::2], (good, 0))
        again.trim(0, 512)
        again.rate(-1)
        self.wait_until(lambda: again.info()["seq"] > 600)
        self.assert_right(again, at=volume)
