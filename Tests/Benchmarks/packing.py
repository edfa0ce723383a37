"""Measures what payloads between two Godwits cost, against LZ4 by itself over the same chunks."""
import json
import os
import random
import statistics
import subprocess
import tempfile

MIB = 1 << 20
# At most so many times the library's CPU time, besides the checksums, which are there without LZ4 as well.
AIM = 1.3
CHUNKS = 64 << 10, MIB


def kinds(size):
    """What volumes hold: each a name and its bytes."""
    words = (b"the bar-tailed godwit makes the longest non-stop migration of any bird; " * (MIB // 72 + 1))[:MIB]
    chance = random.Random(1)
    text = [b"%x" % chance.getrandbits(28) for _ in range(4000)]
    lines = b" ".join(chance.choices(text, k=MIB // 6))[:MIB].ljust(MIB)
    noise = os.urandom(size)
    yield "noise", noise
    yield "text", lines * (size // MIB)
    yield "half noise, half text, by MiB", b"".join(
        noise[start:start + MIB] if start // MIB % 2 else lines for start in range(0, size, MIB))
    yield "mostly repeated", words * (size // MIB)


def measure(bench, options):
    """:param bench: the module of Tests/Benchmarks/run; :returns: the figures, and what was aimed at and not reached"""
    bench.quiet("swift", "build", "-c", "release", "--product", "PackDriver", cwd=bench.ROOT)
    driver = bench.ROOT / ".build/release/PackDriver"
    size, rounds = (4 * MIB, 3) if options.tiny else (64 * MIB, 9)
    figures, missed = {}, []
    bench.say(f"\npacking: {size // MIB} MiB of each kind, packed and unpacked; CPU seconds per GiB")
    bench.say(f"  {'':42} {'godwit':>7} {'its checksums':>14} {'lz4':>7}  godwit's of lz4's, and without checksums")
    with tempfile.NamedTemporaryFile() as file:
        for kind, data in kinds(size):
            file.seek(0)
            file.write(data)
            file.flush()
            for chunk in CHUNKS:
                for mode in ("auto", "lz4"):
                    found = json.loads(bench.quiet(driver, file.name, str(chunk), mode, str(rounds)))
                    ours, bare, sums = (statistics.median(found[name]) for name in ("godwit", "bare", "checksums"))
                    title = f"{kind}, {chunk >> 10} KiB, {mode}"
                    figures[title] = {"with checksums": ours / bare, "without": (ours - sums) / bare}
                    bench.say(f"  {title:42} " + " ".join(
                        f"{seconds * 1024 * MIB / size:{width}.2f}" for seconds, width in ((ours, 7), (sums, 14), (bare, 7)))
                        + f"  {ours / bare:6.2f} {(ours - sums) / bare:6.2f}")
                    if mode == "auto" and (ours - sums) / bare > AIM:
                        missed.append(f"packing: {title}: {(ours - sums) / bare:.2f} times LZ4's CPU time, aimed at {AIM}")
    return figures, missed if not options.tiny else []
