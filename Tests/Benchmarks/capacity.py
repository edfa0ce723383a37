"""Times `godwit capacity` against `rbd du`, and holds its figures against what was written."""
import json
import random
import time

import rados
import rbd

MIB = 1 << 20
KIB = 1 << 10
WRITES, BLOCK = 13, 64 * KIB


def make(images, size, conf):
    """Images with scattered writes each, every third with a snapshot between two of them. :returns: bytes allocated"""
    chance = random.Random(1)
    cluster = rados.Rados(conffile=conf)
    cluster.connect()
    written = 0
    with cluster.open_ioctx("fast") as pool:
        for number in range(images):
            name = f"volume-{number:04}"
            rbd.RBD().create(pool, name, size)
            with rbd.Image(pool, name) as image:
                # No block twice: what is written is what is allocated, with a snapshot or without.
                for index, block in enumerate(chance.sample(range(size // BLOCK), WRITES)):
                    image.write(chance.randbytes(BLOCK), block * BLOCK)
                    written += BLOCK
                    if number % 3 == 0 and index == WRITES // 2:
                        image.create_snap("monday")
    cluster.shutdown()
    return written


def remove(images, conf):
    cluster = rados.Rados(conffile=conf)
    cluster.connect()
    with cluster.open_ioctx("fast") as pool:
        for number in range(images):
            with rbd.Image(pool, f"volume-{number:04}") as image:
                if number % 3 == 0:
                    image.remove_snap("monday")
            rbd.RBD().remove(pool, f"volume-{number:04}")
    cluster.shutdown()


def measure(bench, options):
    """:param bench: the module of Tests/Benchmarks/run; :returns: what was promised and not reached"""
    images = 30 if options.tiny else 300
    runs = 1 if options.tiny else options.runs
    bench.say(f"making {images} images of 10 GiB with {WRITES} writes of 64 KiB each, a third with a snapshot")
    conf = f"{options.dir}/ceph.conf"
    written = make(images, 10 << 30, conf)
    time.sleep(bench.SETTLE_SECONDS)
    godwit = [bench.GODWIT, "capacity", "--progress", "none", "--format", "json", "rbd:fast"]
    rows = {
        "godwit --fast": [*godwit, "--fast"], "rbd du": ["rbd", "du", "-p", "fast"],
        "godwit": godwit, "rbd du --exact": ["rbd", "du", "--exact", "-p", "fast"]}
    medians = {name: bench.repeated([command], 1 if name == "rbd du --exact" else runs) for name, command in rows.items()}
    bench.say(f"\ncapacity: {images} images")
    for name, (wall, cpu, memory) in medians.items():
        bench.say(f"  {name:14} {wall:8.2f} s {cpu:7.2f} CPU s {memory:6.0f} MiB")
    few = bench.repeated([[*godwit[:-1], *(f"rbd:fast/volume-{number:04}" for number in range(images // 10))]], runs)
    fast, exact = (medians[peer][0] / medians[own][0] for own, peer in (
        ("godwit --fast", "rbd du"), ("godwit", "rbd du --exact")))
    bench.say(f"  --fast: {fast:.1f} times as fast; exact: {exact:.1f} times as fast")
    bench.say(f"  memory for {images // 10} images: {few[2]:.0f} MiB")
    said = json.loads(bench.quiet(*godwit))["totals"]["allocatedBytes"]
    bench.say(f"  {written} bytes were written, in blocks of 64 KiB; godwit says {said}")
    remove(images, conf)

    if said != written:
        raise SystemExit(f"capacity: {said} bytes, where {written} were written")
    if options.tiny:
        return []
    missed = []
    if fast < 5:
        missed.append(f"capacity --fast: {fast:.1f} times as fast as rbd du, promised 5")
    if exact < 40:
        missed.append(f"capacity: {exact:.1f} times as fast as rbd du --exact, promised 40")
    if medians["godwit"][2] > few[2] + 8:
        missed.append(f"capacity: {medians['godwit'][2]:.0f} MiB of memory, {few[2]:.0f} for a tenth of the images")
    return missed


def measure_sparse(bench, options):
    """One image of 1 TiB with 110 MiB in it; it is there."""
    wall, _, _ = bench.repeated(
        [[bench.GODWIT, "capacity", "--progress", "none", "rbd:fast/sparse"]], 1 if options.tiny else options.runs)
    bench.say(f"  capacity of it: {wall:.2f} s")
    return [f"capacity: 1 TiB with 110 MiB took {wall:.2f} s, promised 0.5"] if wall > 0.5 and not options.tiny else []
