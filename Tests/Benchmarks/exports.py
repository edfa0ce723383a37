"""Measures exports: copies in and out and single requests, against nbdkit and qemu-nbd over the same file or image."""
import contextlib
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

MIB = 1 << 20
# At least so many times as much as the peer (Docs/Promises.md).
AIMS = {"export-file": ("nbdkit", 1.0), "export-rbd": ("qemu-nbd", 1.3)}
IMAGE = "exported"
# Block size, requests at a time.
LOADS = [("4k", 1), ("4k", 32), ("64k", 1), ("64k", 32)]
# One request at a time, most of the time goes to waking the other end's CPU: on a virtual machine as long as all else
# together, and another time with each run. On one CPU there is nothing to wake, and that is what is judged for a file.
TOGETHER = ", on one CPU"
START_SECONDS = 20


def measure(bench, options, parts):
    """:param bench: the module of Tests/Benchmarks/run; :returns: the figures, and what was aimed at and not reached"""
    size = (64 if options.tiny else 512) * MIB
    seconds, runs, kinds = (1, 1, LOADS[1:3]) if options.tiny else (1, 2 * options.runs + 1, LOADS)
    figures, missed = {}, []
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(options.dir))) as folder:
        source = fill(os.path.join(folder, "source"), size)
        for part in parts:
            with {"export-file": on_file, "export-rbd": on_image}[part](bench, folder, size) as servers:
                rows = compare(part, servers, folder, source, size, seconds, runs, kinds)
            figures[part] = rows
            missed += show(bench, part, rows, size)
    return figures, missed if not options.tiny else []


def fill(path, size):
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path


# What serves it: each takes the path of its socket, and is a command that runs until it is ended.


@contextlib.contextmanager
def on_file(bench, folder, size):
    path = fill(os.path.join(folder, "disk"), size)
    yield {
        "godwit": lambda socket: [bench.GODWIT, "export", path, "--listen", f"unix:{socket}", "--name", "disk"],
        "nbdkit": lambda socket: ["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "file", path],
        "qemu-nbd": lambda socket: qemu_nbd(socket, path),
    }
    os.remove(path)


@contextlib.contextmanager
def on_image(bench, folder, size):
    bench.quiet("rbd", "create", f"fast/{IMAGE}", "--size", f"{size // MIB}M")
    bench.quiet("rbd", "bench", "--io-type", "write", "--io-size", "4M", "--io-total", str(size), "--io-pattern", "seq",
                f"fast/{IMAGE}")
    yield {
        "godwit": lambda socket: [
            bench.GODWIT, "export", f"rbd:fast/{IMAGE}", "--listen", f"unix:{socket}", "--name", "disk"],
        "qemu-nbd": lambda socket: qemu_nbd(socket, f"rbd:fast/{IMAGE}:conf={os.environ['CEPH_CONF']}"),
    }
    bench.quiet("rbd", "--no-progress", "rm", f"fast/{IMAGE}")


def qemu_nbd(socket, what):
    return ["qemu-nbd", "--persistent", "--shared=16", "--format=raw", "--cache=writeback", "--discard=unmap",
            f"--socket={socket}", "--export-name=disk", what]


@contextlib.contextmanager
def served(command, socket):
    """:returns: the server and its URI; it is ended afterwards"""
    process = subprocess.Popen(
        command(socket), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(socket):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args}: doesn't listen\n{process.stderr.read() if process.poll() else ''}")
            time.sleep(0.02)
        yield process, f"nbd+unix:///disk?socket={socket}"
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()
        with contextlib.suppress(FileNotFoundError):
            os.remove(socket)


# What is measured


def compare(part, servers, folder, source, size, seconds, runs, kinds):
    """Everybody in turn, in another order each time: a machine that gets slower for a while does so for all.

    :returns: for each load, the median of each server; on an image with librbd by itself, which nobody can surpass
    """
    rows, chance = {}, random.Random(1)

    def note(load, name, value):
        rows.setdefault(load, {}).setdefault(name, []).append(value)

    for _ in range(runs):
        for name in chance.sample(sorted(servers), len(servers)):
            with served(servers[name], os.path.join(folder, f"{name}.sock")) as (process, uri):
                note("copy in, MB/s", name, copied([source, uri], size))
                note("copy out, MB/s", name, copied([uri, "null:"], size))
                for load, words in requests(kinds):
                    engine = ["--ioengine=nbd", f"--uri={uri}"]
                    note(load, name, per_second(engine, words, seconds))
                    if part == "export-file" and words["--iodepth"] == 1:
                        with on_one_cpu(process) as prefix:
                            note(load + TOGETHER, name, per_second(engine, words, seconds, prefix))
        if part == "export-rbd":
            for load, words in requests(kinds):
                engine = ["--ioengine=rbd", "--clientname=admin", "--pool=fast", f"--rbdname={IMAGE}"]
                note(load, "librbd", per_second(engine, words, seconds))
    return {load: {name: statistics.median(values) for name, values in row.items()} for load, row in rows.items()}


def copied(ends, size):
    begin = time.monotonic()
    subprocess.run(["nbdcopy", "--flush", *ends], check=True, capture_output=True, timeout=600)
    return size / (time.monotonic() - begin) / 1e6


def requests(kinds):
    for block, depth in kinds:
        for pattern in ("read", "write"):
            yield (f"{pattern} {block}, {depth} at a time, per s",
                   {"--rw": f"rand{pattern}", "--bs": block, "--iodepth": depth})


@contextlib.contextmanager
def on_one_cpu(process):
    """:returns: what a command has to begin with to run where all of that process does"""
    cpus = sorted(os.sched_getaffinity(0))

    def put(on):
        for thread in os.listdir(f"/proc/{process.pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), on)

    put(cpus[:1])
    try:
        yield ["taskset", "--cpu-list", str(cpus[0])]
    finally:
        put(cpus)


def per_second(engine, words, seconds, prefix=()):
    done = subprocess.run(
        [*prefix, "fio", "--name=load", *engine, *(f"{name}={value}" for name, value in words.items()), "--time_based",
         f"--runtime={seconds}", "--ramp_time=0.3", "--refill_buffers=1", "--output-format=json"],
        check=True, capture_output=True, text=True, timeout=600)
    # What fio prints before its JSON is of its engine.
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return job[words["--rw"].removeprefix("rand")]["iops"]


def show(bench, part, rows, size):
    peer, aim = AIMS[part]
    bench.say(f"\n{part}: {size // MIB} MiB, {'a file in the page cache' if part == 'export-file' else 'an image, by librbd'}")
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    floor = "librbd" if "librbd" in names else None
    bench.say(f"  {'':42}" + "".join(f"{name:>12}" for name in names) + f"  godwit's of {peer}'s"
              + (f", and of {floor}'s" if floor else ""))
    missed = []
    for load, row in rows.items():
        ratio = row["godwit"] / row[peer]
        bench.say(f"  {load:42}" + "".join(f"{row[name]:12.0f}" if name in row else f"{'':12}" for name in names)
                  + f"  {ratio:6.2f}" + (f"  {row['godwit'] / row[floor]:6.2f}" if floor in row else ""))
        # See TOGETHER.
        if ratio < aim and load + TOGETHER not in rows:
            missed.append(f"{part}: {load}: {ratio:.2f} of {peer}'s, aim {aim}")
    return missed
