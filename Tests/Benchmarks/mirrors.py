"""Moves the disk of a running VM by Godwit and by QEMU's own `blockdev-mirror`, under the same writes."""
import random
import signal
import struct
import time
import zlib

import rbd

from stage import (
    BLOCK, KIB, MAGIC, MIB, Machine, Stage, check_image, finished, limits, mib, pause, rbd_node, sent, settle)

MODES = {"background": "mirror", "write-blocking": "mirror, write-blocking"}
CHUNK = 64 * KIB  # what the mirror copies for a write, however small: its granularity, which is looked at each time
JOBS = 8  # writes of the guest under way at once

# A mirror sends a chunk for a block that was written. It can follow a writer whose chunks are fewer than it may send;
# with all of it dirty in the beginning, that takes ln(h / (h - 1)) times what the first pass would without a writer,
# for a bandwidth of h times what is written. Below 1 a share 1 - h of all chunks always stays dirty. These are in terms
# of what the guest writes while nobody moves it: while somebody does, it is an eighth or so less.
JUST_ENOUGH, TOO_LITTLE = 1.0, 0.6
# For a move to come to its end: so many seconds, and so many times what its bandwidth takes for all of the image.
LIMIT_SECONDS, LIMIT_PASSES = {False: 60, True: 6}, {False: 4, True: 2}
# Of what the mirror sends: of all of it where the bandwidth bounds both, and everywhere of what is sent besides the image
# itself, which nobody can do without.
MOST_SENT = 0.6
RUNS = {False: 3, True: 1}  # in turn, of what no bandwidth bounds: its seconds differ from run to run
ALLOWED = {False: 0.5, True: 5.0}  # seconds that Godwit may hold the guest still


def fill(volume):
    """Writes every block as the guest would have, from outside."""
    words = random.Random(1).randbytes(BLOCK + (1 << 16))
    with rbd.Image(volume.ioctx, volume.name) as image:
        per_piece, piece = 4 * MIB // BLOCK, []
        for index in range(image.size() // BLOCK):
            head = struct.pack("<QQQQ", MAGIC, index, index + 1, 1)
            rest = bytes(4) + words[index % (1 << 16):][:BLOCK - 40]
            checksum = zlib.crc32(rest, zlib.crc32(bytes(4), zlib.crc32(head)))
            piece.append(head + struct.pack("<I", checksum) + rest)
            if len(piece) == per_piece:
                image.write(b"".join(piece), (index + 1) * BLOCK - len(piece) * BLOCK)
                piece = []


class Disk:
    """The disk of a VM, which goes from volume to volume."""

    def __init__(self, stage, size):
        self.stage, self.size = stage, size
        self.volume = stage.volume(size)
        fill(self.volume)
        self.machine = Machine.boot(self.volume.pool, self.volume.name, conf=self.volume.cluster.conf)
        stage.addCleanup(self.machine.close)
        found = self.machine.adopt(300)
        if found.good != size // BLOCK:
            raise SystemExit(f"the VM found {found} on its disk")
        self.number = 0

    def written(self):
        """Blocks so far, and when."""
        return self.machine.info()["seq"], time.monotonic()

    def rate(self, duration):
        """Writes a second, as they are now."""
        before, began = self.written()
        time.sleep(duration)
        after, ended = self.written()
        return (after - before) / (ended - began)

    def verify(self):
        """Compares what librbd reads with what the guest wrote, after which it writes no more."""
        self.machine.quiesce()
        filename = self.machine.disk()["image"]["filename"]
        if f'"image": "{self.volume.name}"' not in filename:
            raise SystemExit(f"the VM's disk is {filename} instead of {self.volume}")
        table = self.machine.table(300)
        with self.volume.open() as image:
            found = check_image(image, table)
        errors = self.machine.info()["errors"]
        if found.bad or errors or found.good != self.size // BLOCK:
            raise SystemExit(f"{self.volume} after a move: {found}, {errors} errors in the guest")

    def arrive(self, volume):
        """The disk is that volume now: the one that it was is of no use any more."""
        old, self.volume = self.volume, volume
        self.verify()
        old.remove()

    def measure(self, move, rate, bandwidth, limit):
        """Moves it under so many writes a second. :returns: a row"""
        target = self.stage.target("slow" if self.volume.pool == "fast" else "fast")
        self.machine.rate(rate, jobs=JOBS)
        time.sleep(1)
        before, began = self.written()
        self.machine.gap(forget=True)
        row = move(self, target, bandwidth, limit)
        after, ended = self.written()
        time.sleep(0.5)
        row.update(longestGap=self.machine.gap(), writesPerSecond=(after - before) / (ended - began))
        if row["converged"]:
            self.arrive(target)
        else:
            self.verify()
            target.unfinished.remove()
            target.remove()
        return row


# Those who move it


def by_mirror(mode):
    return lambda *arguments: mirror(mode, *arguments)


def mirror(mode, disk, target, bandwidth, limit):
    target.create(disk.size)
    disk.number += 1
    monitor, node, source = disk.machine.monitor, f"target{disk.number}", disk.machine.disk()["node-name"]
    monitor.execute(
        "blockdev-add", **rbd_node(node, target.pool, target.name, conf=target.cluster.conf, user="admin"))
    monitor.events.clear()
    began, deadline = time.time(), time.monotonic() + limit
    monitor.execute(
        "blockdev-mirror", job_id="move", device=source, target=node, sync="full", copy_mode=mode, speed=bandwidth)
    row, order = {"granularity": None, "readySeconds": None}, None
    while True:
        # Its answer has those events behind it that came before.
        jobs = monitor.execute("query-block-jobs")
        ends = [event for event in monitor.events if event["event"] in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")]
        if ends:
            break
        if row["granularity"] is None:
            found = [
                bitmap["granularity"] for entry in monitor.execute("query-named-block-nodes")
                for bitmap in entry.get("dirty-bitmaps", [])]
            row["granularity"] = found[0] if found else None
        if order is None and jobs and jobs[0]["ready"]:
            row["readySeconds"] = time.time() - began
            order = "complete"
            monitor.execute("block-job-complete", device="move")
        elif order != "cancel" and jobs and time.monotonic() > deadline:
            order = "cancel"
            monitor.execute("block-job-cancel", device="move", force=True)
        time.sleep(0.02)
    data, stamp = ends[0]["data"], ends[0]["timestamp"]
    if "error" in data:
        raise SystemExit(f"blockdev-mirror: {data}")
    row["converged"] = disk.machine.disk()["node-name"] == node
    row.update(seconds=stamp["seconds"] + stamp["microseconds"] / 1e6 - began, sentBytes=data["offset"])
    monitor.execute("blockdev-del", node_name=source if row["converged"] else node)
    return row


def godwit(disk, target, bandwidth, limit, allowed):
    began = time.monotonic()
    moving = disk.stage.begin(
        disk.volume, target, f"qmp:{disk.machine.qmp}", "--max-pause", pause(allowed), "--bandwidth", bandwidth)
    while not moving.has_ended and time.monotonic() < began + limit:
        time.sleep(0.02)
    row = {"seconds": time.monotonic() - began, "converged": moving.has_ended, "sentBytes": None}
    if not moving.has_ended:
        moving.send(signal.SIGINT)
    result = moving.wait(60)
    if result.rc == 75 and not row["converged"]:
        return row
    report = finished(result)
    # It may have handed over already when it was to end.
    row["converged"] = True
    row.update(
        sentBytes=sent(report), rounds=len(report["rounds"]), pause=report["pause"],
        snapshotSeconds=report["snapshotSeconds"], limitsBytesPerSecond=limits(report))
    return row


# All of them


def measure(bench, tiny, size):
    """:returns: the figures, and what was aimed at and not reached"""
    say = bench.say
    with Stage() as stage:
        disk = Disk(stage, size)
        disk.machine.rate(-1, jobs=JOBS)
        time.sleep(1)
        most = disk.rate(2 if tiny else 5)
        rate = max(1, int(most / 2))
        disk.machine.rate(rate, jobs=JOBS)
        time.sleep(1)
        writes = disk.rate(2 if tiny else 5)
        say(f"\nmirror: the disk of a VM, {size // MIB} MiB; its guest can write 8 KiB at random {most:.0f} times "
            f"a second, and does so {writes:.0f} times")
        movers = {name: by_mirror(mode) for mode, name in MODES.items()}
        movers["godwit"] = lambda *arguments: godwit(*arguments, ALLOWED[tiny])
        rows = []
        for title, asked, enough in loads(tiny, rate):
            bandwidth = int(enough * writes * CHUNK)
            limit = max(LIMIT_SECONDS[tiny], LIMIT_PASSES[tiny] * size / bandwidth if bandwidth else 0)
            say(f"\n  {title}" + (f", {mib(bandwidth)} MiB/s" if bandwidth else "") + f"; within {limit:.0f} s")
            say(f"    {'':22} {'seconds':>8} {'MiB sent':>9} {'of it':>6} {'longest':>8} {'writes/s':>8}  end")
            measured = {name: [] for name in movers}
            for _ in range(1 if bandwidth else RUNS[tiny]):
                for name, move in movers.items():
                    measured[name].append({
                        "load": title, "mover": name, "bandwidth": bandwidth,
                        **disk.measure(move, asked, bandwidth, limit)})
                    settle(bench, tiny)
            for all_of_it in measured.values():
                rows.append(median(all_of_it))
                show(say, rows[-1], size)
    granularities = {row["granularity"] for row in rows if row.get("granularity")}
    say(f"  The mirror's granularity was {', '.join(str(g // KIB) for g in granularities)} KiB, QEMU's own choice.")
    return {"mostWritesPerSecond": most, "writesPerSecond": writes, "rows": rows}, [] if tiny else misses(rows, size)


def loads(tiny, rate):
    """What it is moved under: a title, the guest's writes a second (-1 for as many as can be), and what the movers may
    send, as a multiple of the chunks that the guest dirties (0 for as much as they can)."""
    yield "as fast as it goes", rate, 0
    if not tiny:
        yield "as fast as it goes, the guest too", -1, 0
        yield "a bandwidth that a mirror can just follow with", rate, JUST_ENOUGH
    yield "a bandwidth that is too little for a mirror", rate, TOO_LITTLE


def median(rows):
    """The run in the middle, with the others' seconds."""
    middle = sorted(rows, key=lambda row: row["seconds"])[len(rows) // 2]
    return {**middle, "allSeconds": [row["seconds"] for row in rows]}


def show(say, row, size):
    total = f"{mib(row['sentBytes']):>9} {row['sentBytes'] / size:6.2f}" if row["sentBytes"] else f"{'?':>9} {'':>6}"
    if not row["converged"]:
        ready = row.get("readySeconds")
        end = f"ready after {ready:.1f} s, but never done" if ready else "not within that time"
    elif row["mover"] == "godwit":
        held = row["limitsBytesPerSecond"]
        end = f"rounds: {row['rounds']}, pause {row['pause']['seconds']:.2f} s" + (
            f", held to {mib(min(held))} MiB/s" if held else "")
    else:
        end = f"ready after {row['readySeconds']:.1f} s"
    if len(row["allSeconds"]) > 1:
        end += f"; all: {', '.join(f'{seconds:.1f}' for seconds in row['allSeconds'])} s"
    say(f"    {row['mover']:22} {row['seconds']:8.2f} {total} {row['longestGap']:6.2f} s "
        f"{row['writesPerSecond']:8.0f}  {end}")


def misses(rows, size):
    missed = []
    by_load = {}
    for row in rows:
        by_load.setdefault(row["load"], {})[row["mover"]] = row
    for load, movers in by_load.items():
        mine, other = movers["godwit"], movers["mirror"]
        if not mine["converged"]:
            missed.append(f"{load}: Godwit didn't come to its end in time")
            continue
        share = mine["sentBytes"] / other["sentBytes"]
        if mine["bandwidth"] and share > MOST_SENT:
            missed.append(f"{load}: {share:.2f} of the bytes that blockdev-mirror sent, aim {MOST_SENT}")
        share = (mine["sentBytes"] - size) / max(1, other["sentBytes"] - size)
        if share > MOST_SENT:
            missed.append(f"{load}: besides the image {share:.2f} of blockdev-mirror's bytes, aim {MOST_SENT}")
        if other["converged"] and mine["seconds"] > other["seconds"]:
            missed.append(f"{load}: {mine['seconds']:.1f} s, blockdev-mirror took {other['seconds']:.1f} s")
    return missed


__all__ = ["measure"]
