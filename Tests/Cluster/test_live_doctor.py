"""What 'godwit doctor' tells of moves that run, or were lost with their host, and what it removes."""

import json
import os
import pathlib
import signal

import rados

from faults import HOLDER
from harness import KIB, MIB, run
from live import Cases, Watch

SLOWED = {"rate": 36 * MIB, "block_size": 64 * KIB, "blocks": (1, 1), "depth": 8}
SLOWLY = ("--max-pause", "1s", "--bandwidth", "10M")
OWN = "88888888"  # the limit that the user had put on the source
LEFT = {"unfinished target", "transient snapshot", "write limit", "mark of a move"}


class Doctor(Cases):
    """Each case has namespaces of its own, so that the doctor sees to its moves alone."""

    def slowed(self):
        """A move that holds its guest to a limit. :returns: the guest, source, target, watch, the move"""
        source, guest = self.guest(layout={"namespace": self.namespace("fast")}, **SLOWED)
        source.set_metadata("conf_rbd_qos_write_bps_limit", OWN)
        target, watch = self.target("slow", self.namespace("slow")), Watch(self, source)
        moving = self.begin(source, target, *SLOWLY, freeze=guest)
        self.until(lambda: watch.limit not in (None, OWN), "the throttle", 60, moving)
        return guest, source, target, watch, moving

    def lose(self, moving):
        """Ends the move, and the process that would let its guest go on."""
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == moving.pid and b"guard" in words:
                os.kill(int(process.name), signal.SIGKILL)
                break
        else:
            self.fail("no process watches over the move")
        moving.kill()
        moving.wait(10)

    def doctor(self, source, target, *options, rc):
        scopes = [f"rbd:{volume.pool}/{volume.namespace}/" for volume in (source, target)]
        result = run("doctor", *scopes, "--progress", "none", *options, timeout=120, env=self.env)
        self.assertEqual(result.rc, rc, result)
        return result

    def case_a_move_that_runs(self):
        guest, source, target, watch, moving = self.slowed()
        found = self.doctor(source, target, "--json", rc=0).json
        self.assertLessEqual({"unfinished target", "write limit", "mark of a move"}, {entry["kind"] for entry in found})
        self.assertEqual({entry["life"] for entry in found}, {"alive"})
        limit = watch.limit
        said = self.doctor(source, target, "--fix", rc=0).stdout
        self.assertIn(f"process {moving.pid} on", said)
        self.assertIn("left alone", said)
        self.assertNotIn("removed", said)
        self.assertFalse(moving.has_ended)
        self.assertIn(limit, watch.values[-2:])
        self.assertTrue(target.unfinished.exists)
        self.interrupt(moving)
        self.assert_at_source(guest, source, limit=OWN)

    def case_a_move_that_was_lost(self):
        guest, source, target, watch, moving = self.slowed()
        self.lose(moving)
        self.assertNotEqual(watch.end().limit, OWN, "the limit that is to be found")
        found = self.doctor(source, target, "--json", rc=65).json
        self.assertEqual({entry["kind"] for entry in found}, LEFT)
        self.assertEqual({entry["life"] for entry in found}, {"gone"})
        said = self.doctor(source, target, rc=65).stdout
        for words in (f"process {moving.pid} on", "which is gone", "--fix", "give its command again"):
            self.assertIn(words, said)
        said = self.doctor(source, target, "--fix", rc=0).stdout
        self.assertIn("removed", said)
        self.assertFalse(target.exists or target.unfinished.exists)
        self.assert_at_source(guest, source, limit=OWN)
        self.assert_source_left(source, limit=OWN, moved=False)
        self.assertIn("nothing of a move is left", self.doctor(source, target, rc=0).stdout)

    def case_a_move_that_may_run_on_another_host(self):
        """It is left alone as long as its process may live, which is told by its watch on the target."""
        guest, source, target, _, moving = self.slowed()
        self.lose(moving)
        self.disguise(target.ioctx, f"rbd_header.{target.unfinished.id}", f"metadata_{HOLDER}")
        [claim] = [key for key in source.metadata if key.startswith("godwit.move.")]
        self.disguise(source.ioctx, f"rbd_header.{source.id}", f"metadata_{claim}")
        said = self.doctor(source, target, "--fix", rc=0).stdout
        self.assertIn(f"process {moving.pid} on elsewhere that is running: left alone", said)
        self.assertTrue(target.unfinished.exists)
        self.until(
            lambda: run("doctor", target.address.rsplit("/", 1)[0] + "/", env=self.env).rc == 65,
            "its watch to expire", 60)
        self.doctor(source, target, "--fix", rc=0)
        self.assertFalse(target.exists or target.unfinished.exists)
        self.assert_at_source(guest, source, limit=OWN)
        self.assert_source_left(source, limit=OWN, moved=False)

    @staticmethod
    def disguise(ioctx, header, key):
        """Makes a holder look as if it were on another host: there is one here."""
        with rados.ReadOpCtx() as operation:
            values, _ = ioctx.get_omap_vals_by_keys(operation, (key,))
            ioctx.operate_read_op(operation, header)
            value = json.loads(dict(values)[key])
        (value["holder"] if "holder" in value else value).update(boot="another", host="elsewhere")
        with rados.WriteOpCtx() as operation:
            ioctx.set_omap(operation, (key,), (json.dumps(value).encode(),))
            ioctx.operate_write_op(operation, header)
