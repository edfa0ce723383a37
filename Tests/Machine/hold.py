"""Drives what holds a writer (WriterHold) from a test, call by call, through the program HoldDriver."""

import json
import pathlib
import select
import socket
import subprocess
import threading

from environment import setting

DRIVER = pathlib.Path(setting("GODWIT")).resolve().parent / "HoldDriver"


class HoldError(Exception):
    """A call that failed, as the program told it."""

    def __init__(self, failure):
        self.kind, self.operation, self.object, self.reason = (
            failure[key] for key in ("kind", "operation", "object", "reason"))
        self.advice = failure.get("advice")
        super().__init__(f"{self.object}: {self.operation}: {self.reason} ({self.kind})\n  {self.advice}")


class Hold:
    """One run of the hold; kill() ends it as a crash would."""

    def __init__(self, how, source, target, limit=30):
        """:param how: "qmp:SOCKET" or "exec:COMMAND" """
        self._limit = limit
        self._process = subprocess.Popen(
            [DRIVER, how, source, target, str(limit)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.milliseconds = {}

    def call(self, name):
        self._process.stdin.write(name.encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], 2 * self._limit + 30)[0]:
            raise AssertionError(f"{name}: no end after {2 * self._limit + 30} s")
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"{name}: the driver has ended with {self._process.wait(5)}")
        answer = json.loads(line)
        self.milliseconds[name] = answer["milliseconds"]
        if "error" in answer:
            raise HoldError(answer["error"])

    def prepare(self):
        self.call("prepare")

    def adopt(self):
        self.call("adopt")

    def freeze(self):
        self.call("freeze")

    def switch(self):
        self.call("switch")

    def thaw(self):
        self.call("thaw")

    def kill(self):
        self._process.kill()
        self.close()

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Proxy:
    """Stands between a QMP client and QEMU, and can cut the line at any command.

    :param cut: the number of the command (from 0, qmp_capabilities included) at which the client is cut off
    :param after: whether QEMU still gets that command; the client never sees its answer
    """

    def __init__(self, path, upstream, cut=None, after=False):
        self.path, self._upstream, self.cut, self.after = path, upstream, cut, after
        self.commands = []
        self.has_cut = False
        self._stop = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(4)
        self._listener.settimeout(0.1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while not self._stop.is_set():
            try:
                client = self._listener.accept()[0]
            except TimeoutError:
                continue
            if self.has_cut:  # the run is dead, and so is all it tries afterwards
                client.close()
                continue
            with client, socket.socket(socket.AF_UNIX) as server:
                server.connect(self._upstream)
                self._forward(client, server)

    def _forward(self, client, server):
        requests, answers = bytearray(), bytearray()
        wait_for = None
        while not self._stop.is_set():
            for ready in select.select([client, server], [], [], 0.1)[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                if ready is server:
                    if wait_for is None:
                        client.sendall(data)
                        continue
                    # QEMU has done the last command when its answer is there.
                    answers += data
                    for line in answers.split(b"\n"):
                        if b'"id": %d' % wait_for in line and (b'"return"' in line or b'"error"' in line):
                            return
                    continue
                requests += data
                while b"\n" in requests:
                    line, _, rest = bytes(requests).partition(b"\n")
                    requests = bytearray(rest)
                    request = json.loads(line)
                    number = len(self.commands)
                    self.commands.append(request["execute"])
                    if number == self.cut:
                        self.has_cut = True
                        if not self.after:
                            return
                        wait_for = request["id"]
                    server.sendall(line + b"\n")

    def close(self):
        self._stop.set()
        self._thread.join(30)
        self._listener.close()
        pathlib.Path(self.path).unlink()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
