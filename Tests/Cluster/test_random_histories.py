"""Random histories of an image, moved and compared; one seed is one history.

  GODWIT_SEEDS=200     how many seeds, from 0 (12)
  GODWIT_SEED=17       this seed alone, as a failure prints it
"""

import os
import random

import rbd

from harness import KIB, MIB, STANDARD, ClusterTest

LAYOUTS = [
    {}, {"order": 16}, {"order": 20, "features": ("layering",)}, {"order": 20, "stripe_unit": 64 * KIB, "stripe_count": 3},
    {"order": 20, "features": (*STANDARD, "journaling")}, {"order": 20, "features": ("layering", "exclusive-lock")}, {"order": 21}]
TARGETS = [[], [], [], ["--object-size", "512K"], ["--stripe-unit", "64K", "--stripe-count", "2"], ["--granularity", "4K"]]


class History:
    """What happens to an image, drawn from a seed and told in lines."""

    LIMIT = 24 * MIB

    def __init__(self, volume, seed):
        self.random = random.Random(seed)
        self.volume = volume
        self.told = []
        self.names = 0

    def extent(self):
        """Offset and length within the image: often at the borders of blocks and objects, often not."""
        size = self.volume.current_size
        unit = self.random.choice([1, 512, 4 * KIB, 64 * KIB, MIB])
        length = self.random.choice([1, 512, 4 * KIB, 60 * KIB, 256 * KIB, MIB, 3 * MIB, 5 * MIB])
        offset = self.random.randrange(0, max(1, size), unit) if size > unit else 0
        return offset, min(length, size - offset)

    def step(self):
        kinds = {
            self.write: 10, self.write_zeros: 3, self.zero: 3, self.discard: 5, self.discard_objects: 3, self.resize: 3,
            self.snap: 6, self.remove_snap: 4, self.rollback: 1}
        self.random.choices(list(kinds), list(kinds.values()))[0]()

    def tell(self, *what):
        self.told.append(" ".join(map(str, what)))

    def on_extent(self, name, act):
        offset, length = self.extent()
        if length:
            self.tell(name, offset, length)
            act(offset, length)

    def write(self):
        self.on_extent("write", lambda offset, length: self.volume.write(offset, self.random.randbytes(length)))

    def write_zeros(self):
        self.on_extent("write zeros", self.volume.write_zeros)

    def zero(self):
        self.on_extent("zero", self.volume.zero)

    def discard(self):
        self.on_extent("discard", self.volume.discard)

    def discard_objects(self):
        size = self.volume.current_size
        if size >= MIB:
            start = self.random.randrange(0, size // MIB) * MIB
            length = min(self.random.randint(1, 6) * MIB, size - start)
            self.tell("discard", start, length)
            self.volume.discard(start, length)

    def resize(self):
        unit = self.random.choice([1, 512, 4 * KIB, MIB])
        size = self.random.randrange(0, self.LIMIT, unit)
        self.tell("resize", size)
        self.volume.resize(size)
        if self.random.random() < 0.4:
            size = self.random.randrange(size, self.LIMIT + 1)
            self.tell("resize", size)
            self.volume.resize(size)

    def snap(self):
        self.names += 1
        protect = self.random.random() < 0.2 and "layering" in self.volume.features
        self.tell("snap", self.names, "protected" if protect else "")
        self.volume.snap(str(self.names), protect)

    def remove_snap(self):
        with self.volume.open() as image:
            names = [name for name in self.volume.snapshots if not image.is_protected_snap(name)]
        if len(names) > 1:
            name = self.random.choice(names)
            self.tell("remove snap", name)
            self.volume.remove_snap(name)

    def rollback(self):
        if names := self.volume.snapshots:
            name = self.random.choice(names)
            self.tell("roll back", name)
            self.volume.rollback(name)


class RandomHistories(ClusterTest):
    def test_histories(self):
        chosen = os.environ.get("GODWIT_SEED")
        seeds = [int(chosen)] if chosen else range(int(os.environ.get("GODWIT_SEEDS", "12")))
        for seed in seeds:
            with self.subTest(seed=seed):
                self.begin_waiting()
                self.move_history(seed)

    def move_history(self, seed):
        draw = random.Random(seed + 1_000_000)
        layout = LAYOUTS[seed % len(LAYOUTS)]
        source, target = self.volume(size=16 * MIB, **layout), self.target()
        history = History(source, seed)
        options = draw.choice(TARGETS)
        try:
            if seed % 5 == 4:
                source = self.as_clone(source, history)
            else:
                self.live(source, history, 30)
            self.move_and_compare(source, target, "--verify", *options, thin=False)
        except (AssertionError, rbd.Error) as error:
            lines = "\n  ".join(history.told)
            raise AssertionError(
                f"{error}\nseed {seed}: {layout} {' '.join(options)}\n  {lines}\nReplay it: "
                f"GODWIT_SEED={seed} python3 -m unittest discover -s Tests/Cluster -p test_random_histories.py") from error

    @staticmethod
    def live(volume, history, steps):
        history.volume = volume
        with volume:
            for _ in range(steps):
                history.step()

    def as_clone(self, parent, history):
        """Some of the history in a parent, the rest in its clone."""
        self.live(parent, history, 8)
        parent.snap("base")
        history.tell("clone")
        clone = self.clone(parent, "base")
        self.live(clone, history, 24)
        return clone
