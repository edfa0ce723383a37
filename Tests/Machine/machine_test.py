"""The base of the tests with a real VM."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Cluster"))

from harness import GIB, KIB, MIB, ClusterTest, Volume, cluster, noise, run  # noqa: E402
from hold import Hold, HoldError, Proxy  # noqa: E402
from machine import BLOCK, Check, Machine, MachineError, check_image, rbd_node  # noqa: E402

__all__ = [
    "BLOCK", "Check", "GIB", "Hold", "HoldError", "KIB", "MIB", "Machine", "MachineError", "MachineTest", "Proxy",
    "Volume", "check_image", "cluster", "noise", "rbd_node", "run"]


class MachineTest(ClusterTest):
    """A test that boots VMs; each is ended after it."""

    limit = 300

    def boot(self, volume, **options):
        """A VM with the volume as its disk, whose guest runs."""
        machine = Machine.boot(
            volume.pool, volume.name, namespace=volume.namespace, conf=volume.cluster.conf, **options)
        self.addCleanup(machine.close)
        return machine

    def hold(self, machine, source, target, limit=30, socket=None):
        """:param target: a volume, or an address"""
        hold = Hold(f"qmp:{socket or machine.qmp}", source.address, getattr(target, "address", target), limit)
        self.addCleanup(hold.kill)
        return hold

    def check(self, machine, volume):
        """Reads the volume from outside; the guest must have been quiesced. :returns: the Check"""
        table = machine.table()
        with volume.open() as image:
            self.assertEqual(image.size(), len(table) * BLOCK)
            return check_image(image, table)

    def assert_right(self, machine, at=None, least=1):
        """The guest finds all that it wrote on its disk; so does librbd in the volume `at`."""
        inside = machine.verify()
        self.assertEqual(inside.bad, 0, inside)
        self.assertGreaterEqual(inside.good, least, inside)
        if at is not None:
            machine.quiesce()
            outside = self.check(machine, at)
            self.assertEqual(outside.bad, 0, outside)
        self.assertEqual(machine.info()["errors"], 0)

    def copy(self, source, target):
        """A copy by rbd, of a source that nobody writes to."""
        cluster().tool("rbd", "cp", source.spec, target.spec)
