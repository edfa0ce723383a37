"""Measures live moves: what they send for what is written meanwhile, and what their guest notices of them."""
import time

import mirrors
from stage import KIB, MIB, Guest, Marks, Stage, conditions, limits, mib, pause, seconds, sent, settle, verify

RATE = 2_000_000  # bytes a second of the writer that the amplification is measured with
BLOCKS = [size * KIB for size in (4, 8, 16, 32, 64, 128, 256)]
MOST_SENT = 1.1  # bytes for a byte that was written and not written again
# What a byte that a guest writes has been reported to cost in writes of this size, by the granularity of QEMU's bitmap.
PUBLISHED = {8 * KIB: "92.5 with a bitmap of 1 MiB, 7.6 with one of 64 KiB"}

# The rounds of a small image on a machine that does other things as well may take their time.
ALLOWED = {False: 0.5, True: 5.0}
ALONE = {False: 10, True: 2}  # seconds of the guest by itself


def measure(bench, options, parts):
    """:param bench: the module of Tests/Benchmarks/run; :returns: the figures, and what was aimed at and not reached"""
    sizes = {
        "amplification": (48 if options.tiny else 2048) * MIB, "guest": (64 if options.tiny else 2048) * MIB,
        "mirror": (16 if options.tiny else 512) * MIB}
    found = conditions({part: sizes[part] for part in parts})
    figures, missed = {"conditions": found}, []
    bench.say(
        f"\nlive moves: {found['cores']} cores, {found['osds']} OSDs, Ceph {found['ceph']}, QEMU {found['qemu']}, "
        f"load {found['loadBefore']} before; fully written images")
    for part in parts:
        begin = time.monotonic()
        measured = {"amplification": amplification, "guest": guest, "mirror": mirrors.measure}[part]
        figures[part], more = measured(bench, options.tiny, sizes[part])
        missed += more
        bench.say(f"  it took {time.monotonic() - begin:.0f} s")
    return figures, missed


# What a written byte costs


def amplification(bench, tiny, size):
    # So fast that the bulk takes some ten seconds: that long the writer writes for the first round.
    bandwidth = size // (2 if tiny else 10)
    blocks = [BLOCKS[1], BLOCKS[-1]] if tiny else BLOCKS
    bench.say(
        f"\namplification: {size // MIB} MiB, written at {RATE / 1e6:.0f} MB/s in single blocks at random, none twice")
    bench.say(f"  {'':>6} {'MiB':>8} {'':>6} {'sent in':>8} {'dirtied':>8} {'in the':>7}")
    bench.say(f"  {'block':>6} {'written':>8} {'rounds':>6} {'all':>8} {'in all':>8} {'map':>7}")
    rows, missed = [], []
    for block in blocks:
        row = amplified(block, size, bandwidth, ALLOWED[tiny])
        rows.append(row)
        rounds = [f"{row[key]:.2f}" if row[key] is not None else "–" for key in ("dirtied", "map")]
        note = PUBLISHED.get(block)
        bench.say(
            f"  {block // KIB:4} K {mib(row['writtenBytes']):>8} {row['rounds']:6} {row['sent']:8.2f} {rounds[0]:>8} "
            f"{rounds[1]:>7}" + (f"  (published: {note})" if note else ""))
        if row["sent"] > MOST_SENT:
            missed.append(
                f"amplification: {row['sent']:.2f} bytes sent for a byte written in blocks of {block // KIB} KiB, "
                f"aim {MOST_SENT}")
        settle(bench, tiny)
    bench.say("  Each in bytes for a byte written; the map has a bit for 64 KiB, which several writes may share.")
    return rows, missed if not tiny else []


def amplified(block, size, bandwidth, allowed):
    with Stage() as stage:
        source, target = stage.volume(size), stage.target()
        writer = Guest(
            stage, source, rate=RATE, blocks=(1, 1), block_size=block, pattern="once", zeros=0, depth=8, fill=True)
        time.sleep(1)
        marks = Marks(writer, source)
        report = stage.move(source, target, writer.hook(), "--bandwidth", bandwidth, "--max-pause", pause(allowed))
        seen, rounds = marks.end(), report["rounds"]
        verify(writer, target)
        # The last snapshot is made while the writer stands still.
        written = seen[-1][1] - seen[0][1]
        # The bulk was all of the image, and what was sent besides is the rounds' and the last bytes.
        after_bulk = sent(report) - report["sizeBytes"]
        row = {
            "blockBytes": block, "writtenBytes": written, "sentBytes": after_bulk, "rounds": len(rounds),
            "sent": after_bulk / written, "dirtied": None, "map": None, "attempts": report.get("attempts") or 0}
        # A hand-over that was given up has a snapshot without a round in the report.
        if len(seen) == len(rounds) + 2 and rounds:
            in_rounds = seen[-2][1] - seen[0][1]
            row["dirtied"] = sum(entry["dirtiedBytes"] for entry in rounds) / in_rounds
            row["map"] = sum(entry["mapBytes"] for entry in rounds) / in_rounds
        return row


# What the guest notices


def guest(bench, tiny, size):
    block = 8 * KIB
    with Stage() as stage:
        source, target = stage.volume(size), stage.target()
        writer = Guest(stage, source, rate=0, blocks=(1, 1), block_size=block, zeros=0, depth=8, fill=True)
        time.sleep(1)
        before, began = writer.report(), time.monotonic()
        time.sleep(ALONE[tiny])
        after, ended = writer.report(), time.monotonic()
        alone = (after["bytes"] - before["bytes"]) / (ended - began)
        since = time.time()
        marks = Marks(writer, source)
        begin = time.monotonic()
        report = stage.move(source, target, writer.hook(), "--max-pause", pause(ALLOWED[tiny]))
        took, seen = time.monotonic() - begin, marks.end()
        time.sleep(1)
        last = verify(writer, target)
    held = [entry for entry in last["holds"] if entry.get("until") == "switch"][-1]
    (bulk_began, bulk_before), (bulk_ended, bulk_after) = seen[:2]
    freeze_began, freeze_before = seen[-1]
    in_bulk = (bulk_after - bulk_before) / (bulk_ended - bulk_began)
    in_rounds = (freeze_before - bulk_after) / (freeze_began - bulk_ended) if len(seen) > 2 else None
    figures = {
        "aloneBytesPerSecond": alone, "bulkBytesPerSecond": in_bulk, "bulkShare": in_bulk / alone,
        "bulkSeconds": bulk_ended - bulk_began, "roundsBytesPerSecond": in_rounds, "rounds": len(report["rounds"]),
        "limitsBytesPerSecond": limits(report), "seconds": took, "snapshotSeconds": report["snapshotSeconds"],
        "snapshotShare": report["snapshotSeconds"] / report["seconds"], "attempts": report.get("attempts") or 0,
        "longestGapAlone": longest_gap(after, 0), "longestGap": longest_gap(last, since),
        "longestGapBesidesPause": longest_gap(last, since, held=False), "pause": report["pause"],
        "pauseSeen": held["gapSeconds"], "pauseAllowed": ALLOWED[tiny]}
    show_guest(bench, figures, block)
    missed = []
    if report["pause"]["seconds"] > ALLOWED[tiny]:
        missed.append(f"guest: a pause of {seconds(report['pause']['seconds'])}, allowed {seconds(ALLOWED[tiny])}")
    return figures, missed if not tiny else []


def longest_gap(report, since, held=None):
    """The longest time without an acknowledged write since then, nothing if none was over 0.1 s.

    :param held: only those while the guest was held still, or only those while it wasn't
    """
    return max((
        gap["seconds"] for gap in report["gaps"]
        if gap["at"] + gap["seconds"] >= since and held in (None, gap["held"])), default=None)


def show_guest(bench, figures, block):
    say, parts = bench.say, dict(figures["pause"])
    say(f"\nguest: a librbd client that writes {block // KIB} KiB at random as fast as it goes, 8 at once")
    say(f"  alone                 {mib(figures['aloneBytesPerSecond']):>8} MiB/s")
    say(f"  while the bulk moves  {mib(figures['bulkBytesPerSecond']):>8} MiB/s   {figures['bulkShare']:.0%} of that, "
        f"for {seconds(figures['bulkSeconds'])}")
    if figures["roundsBytesPerSecond"] is not None:
        held = sorted(set(figures["limitsBytesPerSecond"]), reverse=True)
        say(f"  while rounds follow   {mib(figures['roundsBytesPerSecond']):>8} MiB/s   "
            + (f"held to {', '.join(map(mib, held))} MiB/s" if held else "never slowed"))
    longest, besides, alone = (
        seconds(figures[key]) if figures[key] else "<0.1 s"
        for key in ("longestGap", "longestGapBesidesPause", "longestGapAlone"))
    say(f"  longest write gap     {longest:>8}         {besides} besides the pause; {alone} alone")
    say(f"  rounds, snapshots     {figures['rounds']:8}         snapshots: {seconds(figures['snapshotSeconds'])}, "
        f"{figures['snapshotShare']:.0%} of the move's {seconds(figures['seconds'])}")
    say(f"  pause                 {seconds(parts.pop('seconds')):>8}         the guest saw "
        f"{seconds(figures['pauseSeen'])}; allowed {seconds(figures['pauseAllowed'])}")
    say("    " + ", ".join(f"{name} {value:.3f}" for name, value in parts.items()))
    if figures["attempts"]:
        say(f"  hand-overs given up   {figures['attempts']:8}")
