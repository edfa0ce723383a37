"""Times moves to a receiver on this host against local moves and others' ways over a socket."""
import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

SOURCE, TARGET = "fast/relay-source", "slow/relay-target"
MIB = 1 << 20
# A remote move takes at most so many times as long as a local one.
AIM = 1.25


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


def measure(bench, options):
    """:param bench: the module of Tests/Benchmarks/run; :returns: the figures, and what was aimed at and not reached"""
    size_mib, runs = (32, 1) if options.tiny else (256, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        fill(size_mib, folder)
        socket = f"{folder}/r.sock"
        receivers = [
            subprocess.Popen([bench.GODWIT, "receive", "--listen", where, "--allow", "rbd:slow"], stdout=subprocess.PIPE)
            for where in (f"unix:{socket}", "127.0.0.1:0")]
        try:
            receivers[0].stdout.readline()
            place = receivers[1].stdout.readline().decode().split()[-1]
            ways = list_ways(
                bench, size_mib, f"godwit+unix:///rbd:{TARGET}?socket={socket}", f"{place}rbd:{TARGET}", folder)
            return compare(bench, ways, size_mib, runs)
        finally:
            for process in receivers:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            remove(SOURCE)
            remove(TARGET)


def list_ways(bench, size_mib, unix, tcp, folder):
    def migrate(target, *words):
        return lambda: run(bench.GODWIT, "migrate", "--progress", "none", f"rbd:{SOURCE}", target, *words)

    def piped():
        run("sh", "-c", f"rbd export --no-progress {SOURCE} - | rbd import --no-progress - {TARGET}")

    def by_nbd():
        run("rbd", "create", TARGET, "--size", f"{size_mib * 2}M")
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
    return ways


def compare(bench, ways, size_mib, runs):
    times = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            remove(TARGET)
            times[name].append(timed(way))
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    local = medians["local, object to object"]
    bench.say(f"\nrelay: {size_mib} MiB of data to a receiver on this host")
    for name, median in medians.items():
        bench.say(f"  {name:28} {median:7.2f} s  {size_mib / median:7.0f} MiB/s  {median / local:5.2f} of local")
    remote = min(median for name, median in medians.items() if name.startswith(("unix", "tcp")))
    missed = [f"relay: {remote / local:.2f} times as long as a local move, aimed at {AIM}"] if remote / local > AIM else []
    return medians, missed
