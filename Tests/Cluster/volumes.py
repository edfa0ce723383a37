"""Images, as the tests make them and look at them: through librbd's own calls, never through Godwit's."""

import contextlib
import hashlib
import json
import random
import struct
import time

import rados
import rbd

from environment import cluster

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PIECE = 4 * MIB
UNFINISHED = ".godwit-unfinished"

FEATURES = {
    "layering": rbd.RBD_FEATURE_LAYERING, "exclusive-lock": rbd.RBD_FEATURE_EXCLUSIVE_LOCK,
    "object-map": rbd.RBD_FEATURE_OBJECT_MAP, "fast-diff": rbd.RBD_FEATURE_FAST_DIFF,
    "deep-flatten": rbd.RBD_FEATURE_DEEP_FLATTEN, "journaling": rbd.RBD_FEATURE_JOURNALING,
}
STANDARD = ("layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten")


def objects_named(prefix, ioctx):
    """Objects whose names begin so, even if only a snapshot shows them any more."""
    return sorted(item.key for item in ioctx.list_objects() if item.key.startswith(prefix))


def has_head(name, ioctx):
    """Whether an object is there now: what a removed snapshot showed is listed until its OSD gets to it."""
    try:
        ioctx.stat(name)
        return True
    except rados.ObjectNotFound:
        return False


def noise(length, seed=0):
    """Bytes without a pattern, the same for the same seed, and no block of zeros among them."""
    return random.Random(seed).randbytes(length)


class Volume:
    """An image by its name, whether it exists or not.

    'with volume:' keeps it open, for a history of many operations; otherwise each opens it for itself. An image that
    a test holds open has a watcher, as one that a VM uses.
    """

    def __init__(self, pool, name, namespace="", on=1):
        self.pool, self.name, self.namespace, self.cluster = pool, name, namespace, cluster(on)
        self._image = None

    # How it is named

    @property
    def spec(self):
        """As rbd writes it."""
        return "/".join(part for part in (self.pool, self.namespace, self.name) if part)

    @property
    def address(self):
        """As Godwit takes it."""
        def escaped(name):
            return "".join("\\" + character if character in ":/@\\" else character for character in name)
        path = "/".join(escaped(part) for part in (self.pool, self.namespace, self.name) if part)
        return f"rbd:{path}" + ("" if self.cluster.is_default else f":conf={self.cluster.conf}")

    @property
    def unfinished(self):
        """The image that stands in for it until a move has ended."""
        return self.sibling(self.name + UNFINISHED)

    def sibling(self, name):
        other = Volume(self.pool, name, self.namespace)
        other.cluster = self.cluster
        return other

    def __repr__(self):
        return self.spec

    # Opening

    @property
    def ioctx(self):
        return self.cluster.ioctx(self.pool, self.namespace)

    @property
    def exists(self):
        return self.name in rbd.RBD().list(self.ioctx)

    def open(self, snapshot=None):
        """The image to read, which leaves no watcher on it."""
        return rbd.Image(self.ioctx, self.name, snapshot=snapshot, read_only=True)

    def __enter__(self):
        self._image = rbd.Image(self.ioctx, self.name)
        return self

    def __exit__(self, *_):
        image, self._image = self._image, None
        image.close()

    @contextlib.contextmanager
    def writable(self):
        if self._image is not None:
            yield self._image
        else:
            with rbd.Image(self.ioctx, self.name) as image:
                yield image

    # Making it, and its history

    def create(self, size, order=22, features=STANDARD, stripe_unit=0, stripe_count=0, data_pool=None):
        mask = sum(FEATURES[name] for name in features)
        if stripe_count > 1:
            mask |= rbd.RBD_FEATURE_STRIPINGV2
        if data_pool:
            mask |= rbd.RBD_FEATURE_DATA_POOL
        rbd.RBD().create(
            self.ioctx, self.name, size, order=order, old_format=False, features=mask, stripe_unit=stripe_unit,
            stripe_count=stripe_count, data_pool=data_pool)
        return self

    def clone_of(self, parent, snapshot, features=STANDARD, order=None):
        rbd.RBD().clone(
            parent.ioctx, parent.name, snapshot, self.ioctx, self.name, features=sum(FEATURES[f] for f in features),
            order=order)
        return self

    def write(self, offset, data):
        with self.writable() as image:
            image.write(data, offset)

    def fill(self, offset, length, seed=0):
        self.write(offset, noise(length, seed))

    def write_zeros(self, offset, length):
        """Zeros as data, as a guest's dd from /dev/zero."""
        with self.writable() as image:
            for start in range(offset, offset + length, PIECE):
                image.write(bytes(min(PIECE, offset + length - start)), start)

    def zero(self, offset, length):
        """Asks for zeros, as a guest's WRITE SAME or fallocate."""
        with self.writable() as image:
            image.write_zeroes(offset, length)

    def discard(self, offset, length):
        with self.writable() as image:
            image.discard(offset, length)

    def snap(self, name, protect=False):
        with self.writable() as image:
            image.create_snap(name)
            if protect:
                image.protect_snap(name)

    def remove_snap(self, name):
        with self.writable() as image:
            image.remove_snap(name)

    def rollback(self, name):
        with self.writable() as image:
            image.rollback_to_snap(name)

    def resize(self, size):
        with self.writable() as image:
            image.resize(size)

    def flatten(self):
        with self.writable() as image:
            image.flatten()

    def set_metadata(self, key, value):
        with self.writable() as image:
            image.metadata_set(key, value)

    # Looking at it

    @property
    def size(self):
        with self.open() as image:
            return image.size()

    @property
    def current_size(self):
        """The size, as a client that has it open knows it."""
        with self.writable() as image:
            return image.size()

    @property
    def id(self):
        """As the pool knows it: without opening the image, for who asks a thousand times a second."""
        try:
            return self.ioctx.read(f"rbd_id.{self.name}")[4:].decode()
        except rados.ObjectNotFound:
            raise rbd.ImageNotFound(f"no image {self.spec}") from None

    @property
    def snapshot_count(self):
        """Of all kinds; as the header has it, without opening the image."""
        try:
            _, context = self.ioctx.execute(f"rbd_header.{self.id}", "rbd", "get_snapcontext", b"")
        except rados.ObjectNotFound:
            raise rbd.ImageNotFound(f"no header of {self.spec}") from None
        return struct.unpack_from("<QI", context)[1]

    @property
    def snapshots(self):
        """Names of the user's snapshots, oldest first."""
        return [snapshot["name"] for snapshot in self.all_snapshots()
                if snapshot["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER]

    def all_snapshots(self):
        with self.open() as image:
            return sorted(image.list_snaps(), key=lambda snapshot: snapshot["id"])

    @property
    def metadata(self):
        """The pairs as its header holds them; librbd's Python binding loses empty values, and those after them."""
        with rados.ReadOpCtx() as operation:
            values, _ = self.ioctx.get_omap_vals(operation, "", "metadata_", 10_000)
            try:
                self.ioctx.operate_read_op(operation, f"rbd_header.{self.id}")
            except rados.ObjectNotFound:
                return {}  # librbd makes a name first, and its header last
            return {key.removeprefix("metadata_"): (value or b"").decode("utf-8", "surrogateescape") for key, value in values}

    @property
    def features(self):
        with self.open() as image:
            mask = image.features()
        return {name for name, bit in FEATURES.items() if mask & bit}

    def read(self, offset, length, snapshot=None):
        with self.open(snapshot) as image:
            return image.read(offset, length)

    def digests(self, snapshot=None):
        """The size of a state, and a hash of each 4 MiB of it, by librbd's own reads."""
        with self.open(snapshot) as image:
            size = image.size()
            pieces = (image.read(offset, min(PIECE, size - offset)) for offset in range(0, size, PIECE))
            return size, [hashlib.sha256(piece).digest() for piece in pieces]

    def states(self):
        """Every state that a move carries: the user's snapshots as (name, is protected, size, hashes), then the head."""
        with self.open() as image:
            protected = {name: image.is_protected_snap(name) for name in self.snapshots}
        return [(name, protected[name], *self.digests(name)) for name in self.snapshots] + [
            (None, False, *self.digests())]

    def portrait(self):
        """All about the image that a move must leave as it was."""
        with self.open() as image:
            return {
                "id": image.id(), "size": image.size(), "features": image.features(), "flags": image.flags(),
                "snapshots": [(s["id"], s["name"], s["size"], s["namespace"]) for s in self.all_snapshots()],
                "metadata": self.metadata, "lockers": image.list_lockers(),
                "watchers": [watcher["addr"] for watcher in image.watchers_list()], "states": self.states(),
            }

    @property
    def has_stripes(self):
        with self.open() as image:
            return image.stripe_count() > 1

    def data_ioctx(self):
        with self.open() as image:
            pool = image.data_pool_id()
        name = self.cluster.rados.pool_reverse_lookup(pool)
        return self.cluster.ioctx(name, self.namespace)

    def objects(self):
        """Names of its data objects."""
        with self.open() as image:
            prefix = image.block_name_prefix() + "."
        return objects_named(prefix, self.data_ioctx())

    def mapped_objects(self, snapshot=None):
        """Numbers of the objects that a state has, as its object map says; the image needs fast-diff, and no stripes."""
        found = set()
        with self.open(snapshot) as image:
            if image.size() == 0:
                return found  # of which librbd 16.2 dies (DiffIterate.cc, ceph_assert)
            size = 1 << image.stat()["order"]
            def note(offset, length, exists):
                if exists:
                    found.update(range(offset // size, -(-(offset + length) // size)))
            image.diff_iterate(0, image.size(), None, note, include_parent=False, whole_object=True)
        return found

    def present_objects(self, snapshot=None):
        """Numbers of the objects that a state has, as their OSDs say."""
        ioctx = self.cluster.rados.open_ioctx(self.data_ioctx().name)
        ioctx.set_namespace(self.namespace)
        if snapshot is not None:
            ioctx.set_read(next(s["id"] for s in self.all_snapshots() if s["name"] == snapshot))
        present = {int(name.rsplit(".", 1)[1], 16) for name in self.objects() if has_head(name, ioctx)}
        ioctx.close()
        return present

    # Getting rid of it

    def remove(self, limit=90):
        """Removes it with its snapshots, and evicts whoever still holds it: a client that was killed would for 30 s."""
        deadline = time.monotonic() + limit
        while True:
            try:
                self.evict_others()
                return self._remove()
            except rbd.ImageNotFound:
                return None
            except (rbd.ImageBusy, rbd.ImageHasSnapshots, rados.Error):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def watchers(self):
        """Addresses of the clients that have it open for writing, without this one."""
        own = self.cluster.rados.get_instance_id()
        with self.open() as image:
            return [watcher["addr"] for watcher in image.watchers_list() if watcher["id"] != own]

    def evict_others(self):
        for address in self.watchers():
            self.cluster.tool("ceph", "osd", "blocklist", "add", address, "60")
        # Until the OSD has heard of it, whatever tells the watchers of a change waits for the dead one.
        if not self._is_let_go(5):
            self.lose_watchers()

    def lose_watchers(self):
        """Makes the OSD look who watches the image. It lists a client as a watcher for as long as it runs whose watch it
        was just about to set as its connection broke, evicted or not."""
        where = json.loads(self.cluster.tool(
            "ceph", "osd", "map", self.pool, f"rbd_header.{self.id}", self.namespace, "--format", "json").output)
        self.cluster.tool("ceph", "osd", "down", str(where["acting_primary"]))
        self._is_let_go(45)

    def _is_let_go(self, limit):
        deadline = time.monotonic() + limit
        while self.watchers():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _remove(self):
        with rbd.Image(self.ioctx, self.name) as image:
            for snapshot in list(image.list_snaps()):
                if snapshot["namespace"] != rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
                    continue
                if image.is_protected_snap(snapshot["name"]):
                    image.unprotect_snap(snapshot["name"])
                image.remove_snap(snapshot["name"])
        rbd.RBD().remove(self.ioctx, self.name)
