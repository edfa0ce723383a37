"""A guest: a program that writes to an image through librbd and keeps a journal of it, until it is told otherwise.

It is a process of its own, as a virtual machine is: tests start it by guests.Guest. Its only argument is a JSON object of
options, named as the arguments of Guest. On its socket it takes an order a line, and answers each with a line of JSON:

  freeze          finish what is under way, flush, close the image
  hold            the same, but keep the image open, as a virtual machine that is stopped does
  thaw            open the image again where it was, and go on
  switch ADDRESS  open that image instead, and go on
  rate N          write N bytes a second from now on; 0 for as fast as it goes
  flush           flush, so that all that was acknowledged is durable
  report          what it did so far
  stop            freeze, report and end
"""

import collections
import json
import os
import random
import socket
import sys
import threading
import time

import rados
import rbd

from journal import Journal, content

LONG = 0.1  # seconds between two acknowledged writes that are worth a note
MOST_GAPS = 2000
FILL = 4 << 20  # bytes of a write that fills the image in the beginning
DATA, ZEROS, DISCARD = range(3)


def parse(address):
    """An address as Godwit has it. :returns: the configuration's path or None, the pool, the namespace, the image"""
    parts, escaped = [[""]], False
    for character in address.removeprefix("rbd:"):
        if escaped or character not in "\\:/":
            parts[-1][-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ":":
            parts.append([""])
        elif len(parts) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += character
    words = parts[0]
    options = dict(part[0].split("=", 1) for part in parts[1:])
    if len(words) not in (2, 3):
        raise ValueError(f"{address}: not rbd:POOL/IMAGE")
    return options.get("conf"), words[0], words[1] if len(words) == 3 else "", words[-1]


class Order:
    """What came over the socket, and the answer to it."""

    def __init__(self, line):
        self.word, _, self.rest = line.strip().partition(" ")
        self.answer, self.is_answered = None, threading.Event()

    def reply(self, **answer):
        self.answer = answer
        self.is_answered.set()


class Guest:
    def __init__(self, options):
        self.address = options["address"]
        self.rate = options["rate"]
        self.depth = options["depth"]
        self.cache = options["cache"]
        self.zeros = options["zeros"]
        self.pattern = options["pattern"]
        self.flush_every = options["flush_every"]
        self.least, self.most = options["blocks"]
        self.path = options["journal"]
        self.random = random.Random(options["seed"])
        if os.path.exists(self.path):
            self.journal = Journal(self.path, writable=True)
        else:
            self.journal = Journal.make(
                self.path, options["seed"], options["block_size"], options["offset"],
                options["length"] // options["block_size"])
        self.sequence = self.journal.last
        self.next_block, self.shuffled = 0, []
        self.clusters, self.lost, self.image, self.cluster = {}, [], None, None
        self.bell = threading.Condition(threading.Lock())
        # All below is guarded by the bell's lock, as are the journal's tables.
        self.orders = collections.deque()
        self.busy = set()  # blocks with a write under way
        self.in_flight = 0
        self.errors = collections.Counter()
        self.is_failed = False
        self.unflushed = {}  # block: the sequence number acknowledged last, not yet flushed
        self.is_flushing, self.flushed_at = False, time.monotonic()
        self.writes = self.bytes = 0
        self.last_acknowledged, self.gaps, self.holds, self.held = None, [], [], None
        self.due = 0.0  # when the rate allows the next write
        self.is_held, self.is_stopped = False, False

    # The image

    def connection(self, conf):
        conf = conf or os.environ["CEPH_CONF"]
        if conf not in self.clusters:
            cluster = rados.Rados(conffile=conf, conf={
                "rbd_cache": "true" if self.cache else "false",
                # As QEMU has it with cache=writeback.
                "rbd_cache_policy": "writeback",
                # A discard does all that it was asked for, so that the journal can say what is there.
                "rbd_discard_granularity_bytes": "4096",
                "client_mount_timeout": "30"})
            cluster.connect()
            self.clusters[conf] = cluster
        return self.clusters[conf]

    def open(self):
        conf, pool, namespace, name = parse(self.address)
        for attempt in range(2):
            if self.is_failed:
                # The cluster may have shut this client out for good: it comes back as a new one. The old connections
                # are kept, for their end would wait for answers.
                self.lost.append(self.clusters)
                self.clusters = {}
            try:
                self.cluster = self.connection(conf)
                ioctx = self.cluster.open_ioctx(pool)
                ioctx.set_namespace(namespace)
                self.image = rbd.Image(ioctx, name)
                break
            except (rados.ConnectionShutdown, rbd.ConnectionShutdown):
                self.is_failed = True
                if attempt:
                    raise
        self.is_failed = False
        self.limit = min(self.journal.count, (self.image.size() - self.journal.offset) // self.journal.block_size)

    def fill(self):
        """Writes every block once."""
        step = max(1, FILL // self.journal.block_size)
        for first in range(0, self.limit, step):
            with self.bell:
                while self.in_flight >= 4:
                    self.bell.wait()
            self.submit(DATA, first, min(step, self.limit - first))
        self.drain()
        self.flush()
        self.writes = self.bytes = 0
        self.last_acknowledged, self.gaps = None, []

    # Writing

    def choose(self):
        """The next write: its kind, its first block, and how many."""
        count = min(self.random.randint(self.least, self.most), self.limit)
        if self.pattern == "sequential":
            if self.next_block + count > self.limit:
                self.next_block = 0
            first = self.next_block
            self.next_block += count
        elif self.pattern == "once":
            if not self.shuffled:
                self.shuffled = self.random.sample(range(self.limit), self.limit)
            first, count = self.shuffled.pop(), 1
        elif self.pattern == "hot" and self.random.random() < 0.9:
            first = self.random.randrange(max(1, self.limit // 16))  # 9 of 10 writes to a sixteenth of the blocks
        else:
            first = self.random.randrange(self.limit)
        chance = self.random.random()
        kind = DISCARD if chance < self.zeros / 2 else ZEROS if chance < self.zeros else DATA
        return kind, first, min(count, self.limit - first)

    def submit(self, kind, first, count):
        """Begins a write, unless one of its blocks has one under way. :returns: whether it did"""
        numbers, journal = range(first, first + count), self.journal
        with self.bell:
            if not self.busy.isdisjoint(numbers):
                return False
            self.busy.update(numbers)
            self.in_flight += 1
            self.sequence += 1
            sequence = self.sequence
            for number in numbers:
                journal.issued[number] = sequence
                if kind != DATA:
                    journal.zeroed[number] = sequence
        size = journal.block_size
        offset, length = journal.offset + first * size, count * size

        def done(completion):
            self.acknowledge(completion.get_return_value(), numbers, sequence, length)

        try:
            if kind == DATA:
                data = b"".join([content(journal.seed, number, sequence, size) for number in numbers])
                self.image.aio_write(data, offset, done)
            elif kind == ZEROS:
                self.image.aio_write_zeroes(offset, length, done)
            else:
                self.image.aio_discard(offset, length, done)
        except (rbd.Error, rados.Error) as error:
            self.acknowledge(-(error.errno or 5), numbers, sequence, 0)
        return True

    def acknowledge(self, code, numbers, sequence, length):
        now = time.monotonic()
        with self.bell:
            self.busy.difference_update(numbers)
            self.in_flight -= 1
            if code < 0:
                self.errors[-code] += 1
                self.is_failed = True
            else:
                self.writes += 1
                self.bytes += length
                for number in numbers:
                    self.journal.acknowledged[number] = sequence
                    if self.cache:
                        self.unflushed[number] = sequence
                    else:
                        self.journal.durable[number] = sequence
                self.note_gap(now)
            self.bell.notify_all()

    def note_gap(self, now):
        if self.last_acknowledged is not None:
            gap = now - self.last_acknowledged
            if gap > LONG and len(self.gaps) < MOST_GAPS:
                self.gaps.append({"at": time.time() - gap, "seconds": gap, "held": self.held is not None})
            if self.held is not None and "until" in self.held:
                self.held["gapSeconds"] = gap
                self.holds.append(self.held)
                self.held = None
        self.last_acknowledged = now

    # Flushing

    def begin_flush(self):
        with self.bell:
            covered, self.unflushed = self.unflushed, {}
            self.is_flushing, self.flushed_at = True, time.monotonic()

        def done(completion):
            code = completion.get_return_value()
            with self.bell:
                self.is_flushing = False
                if code < 0:
                    self.errors[-code] += 1
                    self.is_failed = True
                else:
                    for number, sequence in covered.items():
                        self.journal.durable[number] = sequence
                self.bell.notify_all()

        try:
            self.image.aio_flush(done)
        except (rbd.Error, rados.Error) as error:
            with self.bell:
                self.is_flushing, self.is_failed = False, True
                self.errors[error.errno or 5] += 1

    def flush(self):
        self.wait_for(lambda: not self.is_flushing)
        self.begin_flush()
        self.wait_for(lambda: not self.is_flushing)

    def wait_for(self, holds, gives_up=lambda: False):
        with self.bell:
            while not holds():
                if gives_up():
                    return False
                self.bell.wait(1)
        return True

    def drain(self, gives_up=lambda: False):
        return self.wait_for(lambda: self.in_flight == 0 and not self.is_flushing, gives_up)

    # Orders

    def close(self):
        image, self.image = self.image, None
        try:
            image.close()
        except (rbd.Error, rados.Error) as error:
            self.errors[error.errno or 5] += 1

    def freeze(self, order, closes=True):
        begin = time.monotonic()
        if self.image is None or (self.is_held and not closes):
            return order.reply(ok=True, state="frozen already")
        self.held = {"at": time.time()}
        # Whoever asks for a thaw meanwhile doesn't wait for the freeze.
        if not self.drain(lambda: any(other.word == "thaw" for other in self.orders)):
            self.held = None
            return order.reply(ok=False, error="thawed before the freeze was done")
        self.flush()
        if self.is_failed:
            return order.reply(ok=False, error=f"writes or the flush failed: {dict(self.errors)}")
        flushed = time.monotonic()
        if closes:
            self.close()
        self.is_held = True
        closed = time.monotonic()
        self.held.update(flushSeconds=flushed - begin, closeSeconds=closed - flushed)
        self.journal.copy(self.path + ".frozen")
        return order.reply(ok=True, **self.held)

    def go_on(self, order, until):
        begin = time.monotonic()
        self.is_held = False
        if self.image is not None and (until == "switch" or self.is_failed):
            self.drain()
            self.close()
        if self.image is None:
            self.open()
        if self.held is not None:
            self.held.update(until=until, openSeconds=time.monotonic() - begin)
        self.due = 0.0
        order.reply(ok=True, seconds=time.monotonic() - begin)

    def obey(self, order):
        try:
            if order.word == "freeze":
                self.freeze(order)
            elif order.word == "hold":
                self.freeze(order, closes=False)
            elif order.word == "thaw":
                self.go_on(order, "thaw")
            elif order.word == "switch":
                before, self.address = self.address, order.rest
                try:
                    self.go_on(order, "switch")
                except Exception:
                    self.address = before  # there a thaw takes it
                    raise
            elif order.word == "rate":
                self.rate, self.due = int(order.rest), 0.0
                order.reply(ok=True)
            elif order.word == "flush":
                if self.image is not None:
                    self.flush()
                order.reply(ok=not self.is_failed)
            elif order.word == "report":
                order.reply(ok=True, **self.report())
            elif order.word == "stop":
                if self.image is not None:
                    if self.drain() and not self.is_failed:
                        self.flush()
                    self.close()
                self.is_stopped = True
                order.reply(ok=True, **self.report())
            else:
                order.reply(ok=False, error=f"no such order: {order.word}")
        except Exception as error:  # the answer to an order that failed, whatever it was
            order.reply(ok=False, error=f"{type(error).__name__}: {error}")

    def report(self):
        with self.bell:
            state = "frozen" if self.image is None or self.is_held else "failed" if self.is_failed else "writing"
            return {
                "state": state, "address": self.address, "writes": self.writes, "bytes": self.bytes,
                "errors": {os.strerror(code): count for code, count in self.errors.items()},
                "gaps": list(self.gaps), "longest": max(self.gaps, key=lambda gap: gap["seconds"], default=None),
                "holds": list(self.holds), "client": self.cluster.get_instance_id() if self.cluster else None}

    # Running

    def write_on(self):
        """Obeys and writes until it is stopped."""
        while not self.is_stopped:
            with self.bell:
                order = self.orders.popleft() if self.orders else None
                if order is None:
                    if self.image is None or self.is_held or self.is_failed or self.in_flight >= self.depth:
                        self.bell.wait()
                        continue
                    now = time.monotonic()
                    if self.rate and self.due > now:
                        self.bell.wait(self.due - now)
                        continue
                    wants_flush = self.cache and not self.is_flushing and now - self.flushed_at > self.flush_every
            if order is not None:
                self.obey(order)
                continue
            if wants_flush:
                self.begin_flush()
            kind, first, count = self.choose()
            if self.submit(kind, first, count) and self.rate:
                # What a stall cost is made up for, but no more than a quarter of a second of it.
                self.due = max(self.due, now - 0.25) + count * self.journal.block_size / self.rate

    def listen(self, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(16)

        def serve(connection):
            with connection, connection.makefile("rw") as file:
                for line in file:
                    order = Order(line)
                    with self.bell:
                        self.orders.append(order)
                        self.bell.notify_all()
                    order.is_answered.wait()
                    try:
                        file.write(json.dumps(order.answer) + "\n")
                        file.flush()
                    except OSError:
                        return  # who asked has gone

        def accept():
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()


def end_with(parent):
    """A guest doesn't outlive who started it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main():
    options = json.loads(sys.argv[1])
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    sys.setswitchinterval(0.001)
    guest = Guest(options)
    guest.open()
    if options["fill"] and guest.sequence == 0:
        guest.fill()
    guest.listen(options["socket"])
    print("ready", guest.cluster.get_instance_id(), flush=True)
    guest.write_on()
    # The last answer is on its way; what a connection that was shut out still waits for isn't waited for.
    time.sleep(0.1)
    sys.stdout.flush()
    os._exit(0)


main()
