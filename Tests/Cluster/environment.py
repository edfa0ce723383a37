"""The clusters that the tests run on, and the program under test.

The environment says where they are; Tests/run sets it:
  GODWIT              the binary
  CEPH_CONF           the first cluster's ceph.conf, which every address without :conf= means
  CEPH_CONF_2         the second cluster's, for moves from one to the other
  GODWIT_CLUSTER_DIR  the first cluster's folder, for stopping its OSDs
"""

import functools
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import rados

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

HOW_TO = """set {name}, or let 'Tests/run cluster' do it. By hand:
  Deploy/dev-cluster start --dir /var/tmp/west --port 6890 --osds 3
  Deploy/dev-cluster start --dir /var/tmp/east --port 6990 --osds 1
  export GODWIT=$PWD/.build/debug/godwit GODWIT_CLUSTER_DIR=/var/tmp/west
  export CEPH_CONF=/var/tmp/west/ceph.conf CEPH_CONF_2=/var/tmp/east/ceph.conf
  /usr/bin/python3 -m unittest discover -s Tests/Cluster -v"""


def setting(name):
    """An environment variable that the tests can't do without: none of them is skipped."""
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"{name} is not set: " + HOW_TO.format(name=name))
    if not os.path.exists(value):
        raise RuntimeError(f"{name}={value}: there is no such path; " + HOW_TO.format(name=name))
    return value


class Result:
    """What a program printed, and how it ended."""

    def __init__(self, command, rc, stdout, stderr, seconds):
        self.command, self.rc, self.seconds = command, rc, seconds
        self.stdout, self.stderr = stdout, stderr

    @property
    def json(self):
        """The whole of stdout as JSON: anything else there is an error."""
        return json.loads(self.stdout)

    @property
    def output(self):
        return self.stdout + self.stderr

    def __str__(self):
        command = " ".join(map(str, self.command))
        return f"{command}\nexit status {self.rc} after {self.seconds:.1f} s\n{self.stdout}{self.stderr}"


class Running:
    """A program that runs: its output goes to files, so it never waits for a reader."""

    def __init__(self, command, env=None):
        self.command = [word if isinstance(word, bytes) else str(word) for word in command]
        merged = {**os.environ, **{key: value for key, value in (env or {}).items() if value is not None}}
        for key, value in (env or {}).items():
            if value is None:
                merged.pop(key, None)
        self._files = tempfile.TemporaryFile("w+b"), tempfile.TemporaryFile("w+b")
        self._begin = time.monotonic()
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self._files[0], stderr=self._files[1], env=merged)
        self.pid = self._process.pid

    @property
    def has_ended(self):
        return self._process.poll() is not None

    def send(self, number=signal.SIGTERM):
        self._process.send_signal(number)

    def kill(self):
        self._process.kill()

    def text(self, which=1):
        """What it has printed so far: 0 for stdout, 1 for stderr."""
        self._files[which].flush()
        return os.pread(self._files[which].fileno(), 1 << 26, 0).decode("utf-8", "backslashreplace")

    def wait(self, timeout):
        """Its result; one that takes longer than that is killed, and the test fails with what it printed."""
        try:
            self._process.wait(timeout)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
            self.kill()
            self._process.wait()
        result = Result(
            self.command, self._process.returncode, self.text(0), self.text(1), time.monotonic() - self._begin)
        for file in self._files:
            file.close()
        if not ended:
            raise AssertionError(f"hung: killed after {timeout} s: {result}")
        return result


def start(*arguments, env=None):
    """Starts godwit."""
    return Running([setting("GODWIT"), *arguments], env)


def run(*arguments, timeout=90, env=None):
    """Runs godwit to its end, whatever its exit status."""
    return start(*arguments, env=env).wait(timeout)


def tool(*command, timeout=60, env=None):
    """Runs any other program, which has to succeed."""
    result = Running(command, env).wait(timeout)
    if result.rc != 0:
        raise AssertionError(str(result))
    return result


def dev_cluster(*arguments, timeout=90):
    """'osd-stop 1', 'osd-start 1' and so on, on the first cluster."""
    return tool(REPOSITORY / "Deploy/dev-cluster", *arguments, "--dir", setting("GODWIT_CLUSTER_DIR"), timeout=timeout)


class Cluster:
    """A connection to a cluster, for the tests' own reads and writes."""

    def __init__(self, variable):
        self.conf = setting(variable)
        self.is_default = variable == "CEPH_CONF"
        self.rados = rados.Rados(
            conffile=self.conf,
            conf={
                # Nothing may hang, the tests themselves included.
                "client_mount_timeout": "20", "rados_mon_op_timeout": "20", "rados_osd_op_timeout": "60",
                # What a test writes has to be there when it returns, and a discard of 4 KiB has to be done.
                "rbd_cache": "false", "rbd_discard_granularity_bytes": "4096",
                # Deleting a clone's parent snapshot moves it to the trash: clone format 2, with no protection.
                "rbd_default_clone_format": "2",
            })
        self.rados.connect()

    @functools.cache
    def ioctx(self, pool, namespace=""):
        ioctx = self.rados.open_ioctx(pool)
        ioctx.set_namespace(namespace)
        return ioctx

    def tool(self, program, *arguments, timeout=60, env=None):
        """Runs 'ceph', 'rbd' or 'rados' on this cluster; it has to succeed."""
        return tool(program, "--conf", self.conf, *arguments, timeout=timeout, env=env)

    def evicted(self):
        """The addresses of the clients that are on the OSDs' blocklist."""
        return {line.split()[0] for line in self.tool("ceph", "osd", "blocklist", "ls").stdout.splitlines() if line}

    def has_pool(self, name):
        return self.rados.pool_exists(name)


@functools.cache
def cluster(number=1):
    """The first or the second cluster."""
    return Cluster({1: "CEPH_CONF", 2: "CEPH_CONF_2"}[number])


# Whoever runs the tests in the background may have them, and what they start, ignore Ctrl-C: some tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without these no test can do anything: better to hear of it once than from each.
for name in ("GODWIT", "CEPH_CONF"):
    setting(name)
