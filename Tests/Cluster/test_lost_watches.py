"""Watches of clients that are gone, and that an OSD lists all the same.

An OSD that carries out a client's watch just after it noticed that the client's connection broke writes it into the
object and never times it out; evicting the client changes nothing (Ceph 16.2, PrimaryLogPG::do_osd_op_effects).
"""

import os
import re
import signal
import subprocess
import sys
import time

from environment import dev_cluster
from faults import HOLDER, RECORD, InterruptedTest
from harness import MIB, run

# Sends watches to an object of a pool, and never hears of them.
WATCHES = """
import os, sys, threading, time, rados
cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
cluster.connect()
ioctx = cluster.open_ioctx(sys.argv[1])
ioctx.stat(sys.argv[2])
print(cluster.get_addrs(), flush=True)
sys.stdin.readline()
for _ in range(10):
    threading.Thread(target=ioctx.watch, args=(sys.argv[2], lambda *_: None)).start()
time.sleep(60)
"""


class LostWatches(InterruptedTest):
    # One test waits as long as a client's watch may last; both try until the moment is met.
    limit = 240

    def signal_osds(self, number):
        for pid in re.findall(r"^osd\.\d+ +pid (\d+)", dev_cluster("status").stdout, re.MULTILINE):
            os.kill(int(pid), number)

    def watch_and_lose(self, volume):
        """:returns: the address of an evicted client that the OSD goes on to list as a watcher of the volume's header"""
        for _ in range(60):
            client = subprocess.Popen(
                [sys.executable, "-c", WATCHES, volume.pool, f"rbd_header.{volume.id}"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True)
            address = client.stdout.readline().strip().removeprefix("v1:")
            self.signal_osds(signal.SIGSTOP)
            try:
                client.stdin.write("\n")
                client.stdin.flush()
                time.sleep(0.2)
                client.kill()
                client.wait()
            finally:
                self.signal_osds(signal.SIGCONT)
            client.stdin.close()
            client.stdout.close()
            volume.cluster.tool("ceph", "osd", "blocklist", "add", address, "600")
            time.sleep(1)
            if address in volume.watchers():
                return address
        self.fail("no watch was lost in 60 attempts")

    def test_of_an_evicted_client_at_the_source(self):
        """It can't write: nobody has to be stopped before the move."""
        source, target = self.history(), self.target()
        address = self.watch_and_lose(source)
        self.assertEqual(self.move(source, target)["outcome"], "moved")
        self.assertIn(address, source.watchers(), "there all the time")
        source.lose_watchers()
        self.assert_right(source, target, self.states(source))

    def test_at_an_unfinished_target(self):
        """librbd removes no image that is watched; Godwit says where to look, and goes on once the OSD looks itself."""
        source, target = self.history(), self.target()
        moving = self.begin(source, target, "--bandwidth", "1M")
        self.until(lambda: target.unfinished.exists and target.unfinished.watchers(), "the target is open", moving=moving)
        moving.kill()
        moving.wait(10)
        # Both are there before anybody opens it: nobody has to wait for a run that was killed just then.
        self.assertLessEqual({HOLDER, RECORD}, set(target.unfinished.metadata))
        self.watch_and_lose(target.unfinished)
        aborted = run("abort", target.address)
        self.assertEqual(aborted.rc, 75, aborted)
        self.assertRegex(aborted.stderr, f"still open after 35 s.*\n.*rbd status {target.unfinished.spec}", aborted)
        target.unfinished.lose_watchers()
        self.assertEqual(run("abort", target.address).rc, 0)
        self.assertFalse(target.unfinished.exists)
        self.assert_clean(source)
