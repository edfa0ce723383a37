"""A VM whose disk is moved while it runs, by 'godwit migrate --live --freeze qmp:', and checked in the guest and outside."""

import signal
import tempfile
import time

from environment import start
from machine_test import MIB, Proxy, cluster
from test_qmp_hold import SHAPES, Holding

THROTTLE = "conf_rbd_qos_write_bps_limit"
# What the promise may be missed by where the machine is busy with other things (Docs/Promises.md).
SLACK = 0.4


class Moves(Holding):
    def setUp(self):
        super().setUp()
        runtime = tempfile.TemporaryDirectory(prefix="godwit-")
        self.addCleanup(runtime.cleanup)
        self.env = {"GODWIT_RUNTIME_DIR": runtime.name}

    def begin(self, source, target, *options, socket):
        moving = start(
            "migrate", "--live", "--freeze", f"qmp:{socket}", "--json", "--progress", "plain", *options, source.address,
            target.address, env=self.env)
        self.addCleanup(lambda: None if moving.has_ended else moving.kill())
        return moving

    def move(self, machine, source, target, *options, rc=0, socket=None):
        result = self.begin(source, target, *options, socket=socket or machine.qmp).wait(120)
        self.assertEqual(result.rc, rc, result)
        return result.json if rc == 0 else result

    def assert_moved_on(self, machine, source, target, least=100):
        self.assert_runs_at(machine, target)
        self.assert_right(machine, at=target, least=least)
        self.assertEqual(source.watchers(), [])
        self.assertEqual({key for key in source.metadata if key.startswith("godwit")}, {"godwit.moved"})
        self.assertNotIn(THROTTLE, source.metadata)
        self.assertNotIn(THROTTLE, target.metadata)
        self.assertEqual([name for name in source.all_snapshots() if "godwit" in str(name)], [])
        self.assertFalse(target.unfinished.exists)

    def assert_at_source(self, machine, source):
        self.wait_until(lambda: machine.status() == "running")
        self.assert_runs_at(machine, source)
        self.assertNotIn(THROTTLE, source.metadata)


class LiveMoves(Moves):
    def test_every_shape_of_disk(self):
        for shape, iothread in SHAPES:
            with self.subTest(shape=shape, iothread=iothread):
                self.begin_waiting()
                source, target = self.pair()
                machine = self.writing(source, shape=shape, iothread=iothread)
                machine.gap(forget=True)
                report = self.move(machine, source, target)
                time.sleep(0.2)
                gap = machine.gap()
                self.assertLessEqual(report["pause"]["seconds"], 0.3 + SLACK, report["pause"])
                self.assertLessEqual(gap, 0.3 + SLACK + report["rounds"][-1]["snapshotSeconds"], report)
                self.assert_moved_on(machine, source, target)
                print(f"\n  {shape}, iothread {iothread}: pause {report['pause']['seconds'] * 1000:.0f} ms, "
                      f"the guest's longest gap {gap * 1000:.0f} ms, in {report['seconds']:.1f} s", flush=True)
                machine.close()

    def test_with_a_past_and_compared(self):
        source, target = self.pair()
        source.snap("before", protect=True)
        machine = self.writing(source)
        source.snap("meanwhile")
        report = self.move(machine, source, target, "--verify")
        self.assertTrue(report["verified"])
        self.assertEqual([name for name, *_ in target.states()][:2], ["before", "meanwhile"])
        self.assert_moved_on(machine, source, target)

    def test_there_and_back(self):
        source, target = self.pair()
        machine = self.writing(source)
        self.move(machine, source, target, "--source", "trash")
        self.assertFalse(source.exists)
        cluster().tool("rbd", "trash", "purge", "fast")
        back = self.target("fast")
        self.move(machine, target, back, "--source", "rename")
        self.addCleanup(self._remove, target.sibling(target.name + ".godwit-moved"))
        self.assertFalse(target.exists)
        self.assert_runs_at(machine, back)
        self.assert_right(machine, at=back, least=100)

    def test_a_writer_that_is_too_fast_is_slowed_and_let_go(self):
        source, target = self.pair()
        machine = self.writing(source)
        machine.rate(1000, jobs=4)
        report = self.move(machine, source, target, "--bandwidth", "2M", "--throttle-floor", "64K", "--max-pause", "600ms")
        self.assertTrue([entry for entry in report["rounds"] if entry.get("limitBytesPerSecond")], report["rounds"])
        self.assert_moved_on(machine, source, target)


class Mishaps(Moves):
    def proxied(self, machine, **cut):
        folder = tempfile.TemporaryDirectory(prefix="godwit-")
        self.addCleanup(folder.cleanup)
        proxy = Proxy(f"{folder.name}/qmp", machine.qmp, **cut)
        self.addCleanup(proxy.close)
        return proxy

    def test_the_target_goes_away_in_the_pause(self):
        """QEMU can't open it: as if nothing had been, and the same command goes on."""
        source, target = self.pair()
        machine = self.writing(source)
        # What QEMU is told to open isn't there: another pool of that name is what it finds.
        result = self.begin(source, target, "--cutover", "manual", socket=machine.qmp)
        self.wait_until(lambda: "ready" in result.text() or "round 1:" in result.text(), 60)
        result.send(signal.SIGTERM)
        self.assertEqual(result.wait(60).rc, 75)
        self.assert_at_source(machine, source)
        self.assertTrue(target.unfinished.exists)
        self.move(machine, source, target)
        self.assert_moved_on(machine, source, target)

    def test_killed_at_any_moment_of_the_hand_over(self):
        """kill -9 in the pause: the guard lets the VM go on, unless it was told already where to go; the same command ends it."""
        for delay in 0.0, 0.05, 0.1, 0.15, 0.2, 0.3:
            with self.subTest(delay=delay):
                self.begin_waiting()
                source, target = self.pair()
                machine = self.writing(source)
                moving = self.begin(source, target, "--max-pause", "5s", socket=machine.qmp)
                self.wait_until(lambda: moving.has_ended or machine.status() != "running", 60)
                time.sleep(delay)
                moving.kill()
                moving.wait(10)
                # Not committed: it goes on at the source by itself. Committed: it waits for the command.
                if not target.exists:
                    self.wait_until(lambda: machine.status() == "running", 20)
                    self.assertEqual(machine.verify().bad, 0)
                # Killed after the last of it was done, there is nothing left to do.
                if not (target.exists and "godwit.record" not in target.metadata):
                    result = self.begin(source, target, "--max-pause", "2s", socket=machine.qmp).wait(120)
                    self.assertEqual(result.rc, 0, result)
                self.assert_moved_on(machine, source, target)
                machine.close()
