#!/usr/bin/python3
"""Times moves to a receiver on this host against local moves and others' ways over a socket, in one run.

Prints medians and ratios; only ratios of one run are quoted. CEPH_CONF names a cluster with the pools `fast` and `slow`;
GODWIT the program (by default the release build).
"""
import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GODWIT = os.environ.get("GODWIT", str(ROOT / ".build/release/godwit"))
SOURCE, TARGET = "fast/relay-source", "slow/relay-target"
MIB = 1 << 20


def run(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **options).stdout


def remove(spec):
    for name in (spec, spec + ".godwit-unfinished"):
        subprocess.run(["rbd", "rm", "--no-progress", name], capture_output=True)


def fill(size_mib, folder):
    """Half of it noise, half words, in pieces of 1 MiB with holes between."""
    remove(SOURCE)
    run("rbd", "create", SOURCE, "--size", f"{size_mib * 2}M")
    words = (b"the bar-tailed godwit makes the longest non-stop migration of any bird; " * (MIB // 72 + 1))[:MIB]
    path = Path(folder) / "image"
    with open(path, "wb") as file:
        file.truncate(size_mib * 2 * MIB)
        for index in range(size_mib):
            file.seek(index * 2 * MIB)
            file.write(os.urandom(MIB) if index % 2 else words)
    remove(SOURCE)
    run("rbd", "import", "--no-progress", path, SOURCE)
    path.unlink()


def timed(body):
    began = time.monotonic()
    body()
    return time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, metavar="MIB", help="data in the source")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(options.size, folder)
        socket = f"{folder}/r.sock"
        receiver = subprocess.Popen(
            [GODWIT, "receive", "--listen", f"unix:{socket}", "--allow", "rbd:slow"], stdout=subprocess.PIPE)
        tcp = subprocess.Popen(
            [GODWIT, "receive", "--listen", "127.0.0.1:0", "--allow", "rbd:slow"], stdout=subprocess.PIPE)
        try:
            receiver.stdout.readline()
            place = tcp.stdout.readline().decode().split()[-1]
            measure(options, f"godwit+unix:///rbd:{TARGET}?socket={socket}", f"{place}rbd:{TARGET}", folder)
        finally:
            for process in (receiver, tcp):
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            remove(SOURCE)
            remove(TARGET)


def measure(options, unix, tcp, folder):
    def migrate(target, *words):
        return lambda: run(GODWIT, "migrate", "--progress", "none", f"rbd:{SOURCE}", target, *words)

    def piped():
        run("sh", "-c", f"rbd export --no-progress {SOURCE} - | rbd import --no-progress - {TARGET}")

    def by_nbd():
        run("rbd", "create", TARGET, "--size", f"{options.size * 2}M")
        server = subprocess.Popen(
            ["qemu-nbd", "-t", "-f", "raw", "--discard=unmap", "-k", f"{folder}/nbd", f"rbd:{TARGET}"])
        while not os.path.exists(f"{folder}/nbd"):
            time.sleep(0.01)
        run("qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", f"rbd:{SOURCE}",
            f"nbd+unix:///?socket={folder}/nbd")
        server.send_signal(signal.SIGTERM)
        server.wait()

    ways = {
        "local, object to object": migrate(f"rbd:{TARGET}"),
        "local, read and write": migrate(f"rbd:{TARGET}", "--object-size", "8M"),
        "rbd export | rbd import": piped,
        "qemu-img to qemu-nbd": by_nbd,
    }
    for connections in (1, 2, 4):
        ways[f"unix, {connections}, uncompressed"] = migrate(unix, "--connections", connections, "--compress", "none")
    ways["unix, 2, auto"] = migrate(unix, "--connections", 2)
    for connections in (1, 2, 4):
        ways[f"tcp, {connections}, auto"] = migrate(tcp, "--connections", connections)
    times = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            remove(TARGET)
            times[name].append(timed(way))
    local = statistics.median(times["local, object to object"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:28} {median:7.2f} s  {options.size / median:7.0f} MiB/s  {median / local:5.2f} of local")
    return 0


if __name__ == "__main__":
    sys.exit(main())
