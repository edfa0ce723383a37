"""What a guest wrote, and what of that an image must hold: blocks that describe themselves, and a journal of them.

A block names its guest (by a seed), its own number, and the write that it comes from (by a sequence number), and ends
in bytes that follow from those three; a checksum covers all of it. So a block that is torn, misplaced, another
guest's or older than it should be is told from the block alone and the journal.

The journal is a file that the guest maps. It outlives the guest's death, whatever it died of, and can be read while the
guest writes. For each block it has four sequence numbers, 0 for none:
  issued        of the last write that was begun
  acknowledged  of the last write that librbd reported as done
  durable       of the last one that must survive the guest: as acknowledged, with a cache only once a flush was done
  zeroed        of the last write that was a discard or a request for zeros
There is never more than one write of a block under way.
"""

import array
import collections
import functools
import mmap
import random
import struct
import zlib

MAGIC = b"guest.1\n"
HEADER = struct.Struct("<8sQQQ")  # magic, seed, block, sequence
CHECKSUM = struct.Struct("<I")  # of the header before it and the body after it
BODY = HEADER.size + CHECKSUM.size
PIECE = 4 << 20
MOST = 256 << 10  # bytes of a block

_FILE = struct.Struct("<8sQQQQ")  # magic, seed, bytes of a block, offset of the first in the image, number of blocks
_FILE_MAGIC = b"journal1"
_TABLES = 4096  # where they begin in the file
_NAMES = ("issued", "acknowledged", "durable", "zeroed")


@functools.cache
def _pool(seed):
    """Bytes without a pattern, from which each block takes its body."""
    return random.Random(seed).randbytes((1 << 20) + MOST)


def content(seed, number, sequence, size):
    """The block as that write makes it."""
    header = HEADER.pack(MAGIC, seed, number, sequence)
    start = (sequence * 2654435761 + number * 40503) % (1 << 20)
    body = _pool(seed)[start:start + size - BODY]
    return header + CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body


class Finding(collections.namedtuple("Finding", "block offset kind text")):
    """A block that isn't what it must be.

    Kinds: lost (zeros where a write should be), older, torn, misplaced, foreign, unwritten (of a write that was never
    begun), beyond (the image ends before it).
    """

    def __str__(self):
        return f"block {self.block} at {self.offset}: {self.kind}: {self.text}"


class Journal:
    """A guest's journal.

    :param writable: whether this is the guest, which has made it, or makes it now
    """

    def __init__(self, path, writable=False):
        self.path = path
        with open(path, "r+b" if writable else "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))
        magic, self.seed, self.block_size, self.offset, self.count = _FILE.unpack_from(self._map)
        if magic != _FILE_MAGIC:
            raise ValueError(f"{path}: no journal")
        view = memoryview(self._map)
        for index, name in enumerate(_NAMES):
            start = _TABLES + index * 8 * self.count
            setattr(self, name, view[start:start + 8 * self.count].cast("Q"))

    @classmethod
    def make(cls, path, seed, block_size, offset, count):
        if block_size > MOST:
            raise ValueError(f"blocks of {block_size} bytes: at most {MOST}")
        with open(path, "wb") as file:
            file.write(_FILE.pack(_FILE_MAGIC, seed, block_size, offset, count))
            file.truncate(_TABLES + 8 * len(_NAMES) * count)
        return cls(path, writable=True)

    def copy(self, path):
        """A copy of it as it is now."""
        with open(path, "wb") as file:
            file.write(self._map)

    @property
    def last(self):
        """The last sequence number that was given out."""
        return max(self.issued, default=0)

    @property
    def written(self):
        """How many blocks were written at least once."""
        return sum(1 for sequence in self.acknowledged if sequence)

    # Looking at an image

    def check(self, image):
        """Compares an image, open to be read, with what was written to it.

        It may be done while the guest writes: what was durable before a block is read must be there, and nothing that
        wasn't begun after that.

        :returns: a list of findings, empty if all is well
        """
        durable = array.array("Q", self.durable)
        findings, size, end = [], image.size(), self.offset + self.count * self.block_size
        position = self.offset
        while position < min(end, size):
            piece = image.read(position, min(PIECE - position % PIECE, end - position, size - position))
            for start in range(0, len(piece), self.block_size):
                number = (position + start - self.offset) // self.block_size
                found = self._judge(number, piece[start:start + self.block_size], durable[number])
                if found:
                    findings.append(Finding(number, position + start, *found))
            position += len(piece)
        for number in range(max(0, size - self.offset) // self.block_size, self.count):
            if durable[number] > self.zeroed[number]:
                offset = self.offset + number * self.block_size
                findings.append(Finding(number, offset, "beyond", f"write {durable[number]}, past the end of the image"))
        return findings

    def _judge(self, number, block, durable):
        """Whether a block is right. :returns: nothing if it is, else the kind and what is to be said"""
        issued = self.issued[number]
        if issued == 0 and durable == 0:
            return None  # never the guest's
        wanted = f"write {durable} must be there" + (f" or one up to {issued}" if issued != durable else "")
        if not block.strip(b"\0"):
            return None if durable == 0 or self.zeroed[number] >= durable else ("lost", f"zeros; {wanted}")
        if len(block) < self.block_size or block[:8] != MAGIC:
            if durable == 0 and block[:8] != MAGIC:
                return None  # what was there before the guest, whose first write of it wasn't done
            return ("foreign", f"it begins with {block[:16].hex()}; {wanted}")
        _, seed, block_number, sequence = HEADER.unpack_from(block)
        body = block[BODY:]
        if zlib.crc32(body, zlib.crc32(block[:HEADER.size])) != CHECKSUM.unpack_from(block, HEADER.size)[0]:
            return ("torn", f"says it is write {sequence}, but its checksum is wrong; {wanted}")
        if seed != self.seed:
            return None if durable == 0 else ("foreign", f"of the guest {seed}; {wanted}")
        if block_number != number:
            return ("misplaced", f"it is block {block_number}, write {sequence}; {wanted}")
        if sequence < durable:
            return ("older", f"write {sequence}; {wanted}")
        if sequence > issued:
            return ("unwritten", f"write {sequence}, which was never begun; {wanted}")
        if block != content(seed, number, sequence, self.block_size):
            return ("torn", f"write {sequence} never had this content")
        return None


def told(findings, most=5):
    """Findings in words: how many of which kind, and the first few."""
    kinds = collections.Counter(finding.kind for finding in findings)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{len(findings)} blocks are wrong ({counts}): " + "; ".join(map(str, findings[:most]))
