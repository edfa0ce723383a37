"""A receiver that runs for the time of a test."""

import os
import signal
import subprocess
import tempfile

from serving import GODWIT


class Process:
    """A `godwit` that runs, ended with the test."""

    def __init__(self, test, *words):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [GODWIT, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        test.addCleanup(self.errors.close)
        test.addCleanup(self.end, signal.SIGKILL)

    def line(self):
        line = self.process.stdout.readline().strip()
        if not line:
            raise AssertionError(f"exit status {self.process.wait(20)}\n{self.said()}")
        return line

    def said(self):
        return os.pread(self.errors.fileno(), 1 << 20, 0).decode()

    def end(self, number=signal.SIGTERM, timeout=30):
        """Ends it. :returns: its exit status"""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout)
        self.process.stdout.close()
        return status
