"""Another client with an image open, as a VM has it: a process of its own, so that it can be killed."""

import signal
import sys

from environment import Running

PROGRAM = """
import sys, time, rados, rbd
conf, pool, namespace, image, action = sys.argv[1:]
client = rados.Rados(conffile=conf, conf={"rbd_cache": "false", "rados_osd_op_timeout": "60"})
client.connect()
ioctx = client.open_ioctx(pool)
ioctx.set_namespace(namespace)
opened = rbd.Image(ioctx, image, read_only=action == "read")
if action != "read" and action != "open":
    exec(action)
print("ready", client.get_instance_id(), flush=True)
time.sleep(600)
"""


class Client:
    """Opens a volume, does something with it as `opened`, and keeps it open until it is killed.

    :param action: "open" for writing, "read", or statements of Python
    """

    def __init__(self, test, volume, action="open"):
        self._volume = volume
        self._running = Running(
            [sys.executable, "-c", PROGRAM, volume.cluster.conf, volume.pool, volume.namespace, volume.name, action])
        test.addCleanup(self.end)
        test.wait_until(lambda: self._running.has_ended or "ready" in self._running.text(0))
        test.assertFalse(self._running.has_ended, "the client died: see its output above")
        self.id = int(self._running.text(0).split()[1])
        with volume.open() as image:
            self.address = next((w["addr"] for w in image.watchers_list() if w["id"] == self.id), None)

    def end(self):
        """Ends it as a crash would; its watch and its lock stay until they time out, or it is evicted."""
        if self._running is not None:
            self._running.send(signal.SIGKILL)
            self._running.wait(10)
            self._running = None

    def evict(self):
        """Ends it, and the cluster doesn't wait for its return."""
        self.end()
        self._volume.evict_others()
