"""NBD servers of others, on sockets in a folder of a test's own, and ended with it."""

import os
import signal
import socket
import subprocess
import time
import urllib.parse


class Server:
    """One server's process, in a group of its own."""

    def __init__(self, folder, name, words, address, log=None):
        self.address = address
        self.socket = os.path.join(folder, name)
        with open(log or os.devnull, "ab") as output:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)

    def wait(self, connect):
        """Until it takes connections."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll():
                raise AssertionError(f"{self.process.args} ended with {self.process.returncode}")
            try:
                connect()
                return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"{self.process.args} doesn't listen")

    def kill(self):
        """At once, as a host would be lost."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Daemon(Server):
    """A server that goes to the background, in a session of its own, and leaves its number in a file."""

    def __init__(self, folder, name, words, address):
        super().__init__(folder, name, words, address)
        self.file = os.path.join(folder, "pid")

    def kill(self):
        self.process.wait()
        try:
            with open(self.file) as file:
                number = int(file.read())
            os.killpg(number, signal.SIGKILL)
            os.unlink(self.file)
        except (FileNotFoundError, ProcessLookupError):
            return  # Ended already.


def connect_unix(path):
    def connect():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            if not client.recv(8):
                raise ConnectionError(path)
    return connect


def connect_tcp(port):
    def connect():
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            if not client.recv(8):
                raise ConnectionError(port)
    return connect


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nbdkit(folder, *words, name="nbdkit.sock"):
    """A plugin with its arguments: nbdkit(folder, "memory", "1G")."""
    path = os.path.join(folder, name)
    server = Server(folder, name, ["nbdkit", "--foreground", "--unix", path, *words], f"nbd+unix:///?socket={path}")
    return server.wait(connect_unix(path))


def qemu_nbd(folder, disk, form, *options, name="qemu.sock", export=""):
    """An image file in the format `form`."""
    path = os.path.join(folder, name)
    words = ["qemu-nbd", "--persistent", "--shared=8", "--discard=unmap", "--socket", path, "--format", form]
    words += ["--export-name", export] if export else []
    server = Server(folder, name, [*words, *options, disk], f"nbd+unix:///{urllib.parse.quote(export)}?socket={path}")
    return server.wait(connect_unix(path))


def nbd_server(folder, disk, export="disk", *settings):
    """A raw file, over TCP: this server has no options beyond the old ones."""
    port = free_port()
    config = os.path.join(folder, "nbd-server.conf")
    with open(config, "w") as file:
        file.write(f"[generic]\nport = {port}\nlistenaddr = 127.0.0.1\nallowlist = true\n")
        file.write(f"[{export}]\nexportname = {disk}\n" + "".join(f"{line}\n" for line in settings))
    words = ["nbd-server", "-C", config, "-p", os.path.join(folder, "pid")]
    server = Daemon(folder, "nbd-server", words, f"nbd://127.0.0.1:{port}/{export}")
    return server.wait(connect_tcp(port))
