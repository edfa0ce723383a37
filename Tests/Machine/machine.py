"""A small VM on stock QEMU, which writes to an RBD image and knows what it wrote.

  with Machine.boot("fast", "disk", conf="/var/tmp/west/ceph.conf") as machine:
      machine.rate(100)                    # 100 writes of 8 KiB a second, from now on
      ...                                  # machine.qmp is the path of a QMP socket that nobody else uses
      print(machine.gap())                 # the longest time without an acknowledged write, in seconds
      print(machine.verify())              # Check(good=..., empty=..., bad=0, first=0)
      print(check_image(image, machine.table()))  # the same by librbd's own reads, from outside

Linux doesn't boot under KVM everywhere, so the guest runs under TCG.
"""

import array
import collections
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import zlib

import image as machine_image

BLOCK = 8192
MAGIC = int.from_bytes(b"godwit!!", "little")
EMPTY = bytes(BLOCK)

# QEMU before 9.0 loses dirty pages when the memory of a TCG guest is migrated, unless its size is no multiple of
# 256 KiB (cpu_physical_memory_sync_dirty_bitmap, include/exec/ram_addr.h). The guest needs some 60 MiB.
MEMORY = "131080k"

Check = collections.namedtuple("Check", "good empty bad first")


class MachineError(Exception):
    pass


class Monitor:
    """A QMP client, for what tests do by hand."""

    def __init__(self, path, timeout=30):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")
        self._timeout = timeout
        self.events = []
        greeting = self._read()
        if "QMP" not in greeting:
            raise MachineError(f"{path}: no greeting: {greeting}")
        self.execute("qmp_capabilities")

    def _read(self):
        line = self._file.readline()
        if not line:
            raise MachineError("QEMU closed its monitor")
        return json.loads(line)

    def try_execute(self, command, **arguments):
        """:returns: the whole answer, which has "return" or "error" """
        request = {"execute": command, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self._socket.settimeout(self._timeout)
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._read()
            if "event" not in message:
                return message
            self.events.append(message)

    def execute(self, command, **arguments):
        answer = self.try_execute(command, **arguments)
        if "error" in answer:
            raise MachineError(f"{command} {arguments}: {answer['error']}")
        return answer["return"]

    def wait_event(self, name, timeout=30):
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self.events):
                if event["event"] == name:
                    del self.events[: index + 1]
                    return event
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            self.events.append(self._read())

    def close(self):
        self._file.close()
        self._socket.close()


class Pulse(threading.Thread):
    """Reads the guest's log and ticks, and dates them by this machine's clock."""

    def __init__(self, connection):
        super().__init__(daemon=True)
        self._connection = connection
        self._lock = threading.Lock()
        self._log = bytearray()
        self._last = {"write": None, "tick": None}
        self._longest = {"write": 0.0, "tick": 0.0}

    def run(self):
        while True:
            try:
                data = self._connection.recv(4096)
            except OSError:
                data = b""
            if not data:
                self._connection.close()
                return
            now = time.monotonic()
            text = data.translate(None, b"\1\2")
            with self._lock:
                self._log += text
                del self._log[:-65536]
                if b"\1" in data:
                    self._note("write", now)
                if len(text) < len(data):
                    self._note("tick", now)

    def _note(self, kind, now):
        if self._last[kind] is not None:
            self._longest[kind] = max(self._longest[kind], now - self._last[kind])
        self._last[kind] = now

    def longest(self, kind, forget):
        with self._lock:
            now = time.monotonic()
            open_gap = now - self._last[kind] if self._last[kind] is not None else 0.0
            longest = max(self._longest[kind], open_gap)
            if forget:
                self._longest[kind], self._last[kind] = 0.0, now
            return longest

    @property
    def log(self):
        with self._lock:
            return self._log.decode("utf-8", "replace")


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, <linux/prctl.h>


def rbd_node(name, pool, image, namespace="", conf=None, user=None, direct=True, **more):
    """Options of blockdev-add for an image."""
    node = {
        "driver": "rbd", "node-name": name, "pool": pool, "image": image, "discard": "unmap",
        "cache": {"direct": direct, "no-flush": False}, **more}
    for key, value in (("namespace", namespace), ("conf", conf), ("user", user)):
        if value:
            node[key] = value
    return node


class Machine:
    """A VM that runs until close(), or until this process ends."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="godwit-vm-"))
        self.qmp = str(self.folder / "qmp")
        self._own = str(self.folder / "monitor")
        self._listeners, self._process, self._commands, self.monitor = {}, None, None, None

    @classmethod
    def boot(
            cls, pool, image, namespace="", conf=None, user="admin", shape="rbd", iothread=False, direct=True,
            read_only=False, nodes=None, objects=(), disks=1, drive=False, guest=True, timeout=90):
        """Boots it, and waits until the guest has opened its disk.

        :param shape: "rbd" for the image as the device's root node; "raw" for a raw node over it, as libvirt has it
        :param nodes: options of all block nodes instead of those, the device's root last
        :param objects: what -object is given
        :param disks: how many devices have that node (with share-rw)
        :param drive: made by -drive, as it was done before -blockdev
        :param guest: whether to wait for the guest; it needs a disk that it can write to
        """
        conf = conf or os.environ.get("CEPH_CONF")
        machine = cls()
        try:
            if nodes is None:
                nodes = machine._nodes(shape, dict(
                    pool=pool, image=image, namespace=namespace, conf=conf, user=user, direct=direct))
            if drive:
                nodes = [f"file=rbd:{pool}/{image}:conf={conf}:id={user},format=raw,if=none,id=disk,cache=none,discard=unmap"]
            machine._start(nodes, iothread, read_only, disks, objects)
            machine._await_guest(time.monotonic() + timeout, guest)
        except BaseException:
            machine.close()
            raise
        return machine

    @staticmethod
    def _nodes(shape, place):
        direct = place["direct"]
        if shape == "rbd":
            return [rbd_node("disk", **place)]
        # As libvirt 9 writes them (qemuBlockStorageSourceGetBlockdevProps and qemuBlockStorageSourceGetFormatProps).
        cache = {"direct": direct, "no-flush": False}
        return [
            rbd_node("libvirt-1-storage", **place, **{"auto-read-only": True}),
            {"driver": "raw", "node-name": "libvirt-1-format", "read-only": False, "discard": "unmap",
             "detect-zeroes": "unmap", "cache": cache, "file": "libvirt-1-storage"}]

    def _listen(self, name):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.folder / name))
        listener.listen(1)
        self._listeners[name] = listener
        return self.folder / name

    def _start(self, nodes, iothread, read_only, disks, objects):
        kernel, initramfs = machine_image.build()
        root = "disk" if isinstance(nodes[-1], str) else nodes[-1]["node-name"]
        device = {"driver": "virtio-blk-pci", "drive": root, "werror": "stop", "rerror": "stop"}
        command = [
            "qemu-system-x86_64", "-nodefaults", "-machine", "pc,accel=tcg", "-cpu", "qemu64", "-m", MEMORY, "-smp", "1",
            "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd", initramfs,
            "-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on tsc=reliable",
            "-chardev", f"socket,id=log,path={self._listen('log')}", "-serial", "chardev:log",
            "-chardev", f"socket,id=commands,path={self._listen('commands')}", "-serial", "chardev:commands",
            "-qmp", f"unix:{self.qmp},server=on,wait=off", "-qmp", f"unix:{self._own},server=on,wait=off"]
        if iothread:
            command += ["-object", "iothread,id=io0"]
            device["iothread"] = "io0"
        for text in objects:
            command += ["-object", text]
        for node in nodes:
            if isinstance(node, str):
                command += ["-drive", node]
            else:
                command += ["-blockdev", json.dumps({**node, "read-only": True} if read_only else node)]
        for number in range(disks):
            one = {**device, "id": f"vd{number}", **({"share-rw": True} if disks > 1 else {})}
            command += ["-device", json.dumps(one)]
        self._stderr = open(self.folder / "stderr", "wb")
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr,
            preexec_fn=die_with_parent)
        self.pid = self._process.pid

    def _accept(self, name, deadline):
        listener = self._listeners.pop(name)
        with listener:
            listener.settimeout(0.2)
            while True:
                try:
                    return listener.accept()[0]
                except TimeoutError:
                    self._expect_alive(deadline, "QEMU to connect")

    def _expect_alive(self, deadline, what):
        if not self.is_alive:
            raise MachineError(f"QEMU ended with {self._process.returncode}: {self.stderr}")
        if time.monotonic() > deadline:
            log = self.pulse.log[-2000:] if hasattr(self, "pulse") else ""
            raise MachineError(f"waited in vain for {what}: {self.stderr}\n{log}")

    def _await_guest(self, deadline, guest):
        log = self._accept("log", deadline)
        self.pulse = Pulse(log)
        self.pulse.start()
        self._commands = self._accept("commands", deadline)
        self._buffer = b""
        while self.monitor is None:
            try:
                self.monitor = Monitor(self._own)
            except (FileNotFoundError, ConnectionRefusedError):
                self._expect_alive(deadline, "QEMU's monitor")
                time.sleep(0.01)
        if not guest:
            return
        ready = self._line(deadline).split()
        if ready[:2] != ["ready", "blocks"]:
            raise MachineError(f"the guest said {ready}")
        self.blocks = int(ready[2])

    @property
    def is_alive(self):
        return self._process is not None and self._process.poll() is None

    @property
    def stderr(self):
        return (self.folder / "stderr").read_text("utf-8", "replace")

    # The guest's commands

    def _line(self, deadline):
        while b"\n" not in self._buffer:
            self._commands.settimeout(0.2)
            try:
                data = self._commands.recv(1 << 16)
            except TimeoutError:
                self._expect_alive(deadline, "the guest's answer")
                continue
            if not data:
                raise MachineError(f"QEMU has ended: {self.stderr}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def ask(self, command, timeout=60):
        self._commands.settimeout(timeout)
        self._commands.sendall(command.encode() + b"\n")
        answer = self._line(time.monotonic() + timeout)
        if not answer.startswith("ok"):
            raise MachineError(f"{command}: the guest says: {answer}")
        return answer[3:]

    def _numbers(self, answer):
        words = answer.split()
        return {key: int(value) for key, value in zip(words[::2], words[1::2])}

    def rate(self, writes, span=1, jobs=1):
        """Keeps writing from now on: requests a second (0 for none, -1 for as many as can be) of `span` blocks each."""
        self.ask(f"write {writes} {span} {jobs}")

    def region(self, first, count):
        """Where it writes from now on, in blocks of 8 KiB."""
        self.ask(f"region {first} {count}")

    def seed(self, number):
        self.ask(f"seed {number}")

    def quiesce(self):
        """Ends the writing, and has all of it flushed."""
        self.ask("quiesce")

    def trim(self, first, count):
        self.ask(f"trim {first} {count}")

    def info(self):
        """blocks, seq (blocks written so far), errors, worst (the slowest write since the last call, in microseconds,
        by the guest's clock, which stands still with the VM)"""
        return self._numbers(self.ask("info"))

    def verify(self, timeout=120):
        """Has the guest read all of its disk and compare it with what it wrote."""
        return Check(**self._numbers(self.ask("verify", timeout)))

    def adopt(self, timeout=120):
        """Has the guest believe what is on its disk: for a second boot."""
        return Check(**self._numbers(self.ask("adopt", timeout)))

    def table(self, timeout=120):
        """What the guest has written, by block: 0 for nothing. Meaningful after quiesce()."""
        table = array.array("Q")
        for run in self.ask("table", timeout).split():
            seq, count = (int(part, 16) for part in run.split("*"))
            table.extend(array.array("Q", [seq]) * count)
        return table

    # What is seen from outside

    def gap(self, forget=False):
        """The longest time without an acknowledged write since the last gap(forget=True), in seconds of this machine."""
        return self.pulse.longest("write", forget)

    def pause(self, forget=False):
        """The longest time in which the guest didn't run at all."""
        return self.pulse.longest("tick", forget)

    def status(self):
        return self.monitor.execute("query-status")["status"]

    def disk(self, device="vd0"):
        """What query-block says about the device's root node."""
        for entry in self.monitor.execute("query-block"):
            if device in (entry.get("qdev") or ""):
                return entry["inserted"]
        raise MachineError(f"no {device}")

    def nodes(self):
        return sorted(node["node-name"] for node in self.monitor.execute("query-named-block-nodes"))

    def kill(self):
        """As a crash would."""
        if self.is_alive:
            self._process.kill()
        if self._process is not None:
            self._process.wait(30)

    def close(self):
        """Ends it: in order, so that the image is left without a watcher; by force if that takes too long."""
        try:
            if self.is_alive and self.monitor is not None:
                self.monitor.execute("quit")
                self._process.wait(20)
        except (MachineError, OSError, subprocess.TimeoutExpired):
            pass
        self.kill()
        if hasattr(self, "pulse"):
            self.pulse.join(10)
        for closable in (self.monitor, self._commands, getattr(self, "_stderr", None), *self._listeners.values()):
            if closable is not None:
                closable.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def check_image(image, table, piece=4 << 20):
    """Reads an open rbd.Image from outside, and compares each block with the guest's table."""
    good = empty = bad = first = 0
    for offset in range(0, len(table) * BLOCK, piece):
        data = image.read(offset, min(piece, len(table) * BLOCK - offset))
        for at in range(0, len(data), BLOCK):
            index, block = (offset + at) // BLOCK, data[at:at + BLOCK]
            seq = table[index]
            if is_right(block, index, seq):
                good, empty = (good + 1, empty) if seq else (good, empty + 1)
            else:
                first = first if bad else index
                bad += 1
    return Check(good, empty, bad, first)


def is_right(block, index, seq):
    if seq == 0:
        return block == EMPTY
    magic, at, written, _, checksum, zero = struct.unpack_from("<QQQQII", block)
    if (magic, at, written, zero) != (MAGIC, index, seq, 0):
        return False
    return zlib.crc32(block[36:], zlib.crc32(b"\0\0\0\0", zlib.crc32(block[:32]))) == checksum
