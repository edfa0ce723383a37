"""Measures what payloads between two Godwits cost, against LZ4 by itself over the same chunks."""
import json
import os
import random
import statistics
import subprocess
import tempfile

MIB = 1 << 20
# At most so many times the library's CPU time.
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
    bench.say(f"  {'':48} {'godwit':>8} {'lz4':>8}  godwit's of lz4's")
    with tempfile.NamedTemporaryFile() as file:
        for kind, data in kinds(size):
            file.seek(0)
            file.write(data)
            file.flush()
            for chunk in CHUNKS:
                for mode in ("auto", "lz4"):
                    found = json.loads(bench.quiet(driver, file.name, str(chunk), mode, str(rounds)))
                    ours, bare = (statistics.median(found[name]) for name in ("godwit", "bare"))
                    title = f"{kind}, {chunk >> 10} KiB, {mode}"
                    figures[title] = ours / bare
                    bench.say(f"  {title:48} {ours * 1024 * MIB / size:8.2f} {bare * 1024 * MIB / size:8.2f}"
                              f"  {ours / bare:6.2f}")
                    if mode == "auto" and ours / bare > AIM:
                        missed.append(f"packing: {title}: {ours / bare:.2f} times LZ4's CPU time, aimed at {AIM}")
    return figures, missed if not options.tiny else []
