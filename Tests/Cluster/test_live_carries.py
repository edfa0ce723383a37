"""What a live move carries while everything changes: snapshots, sizes, layouts, and from one cluster to another."""

import time

import rbd

from guests import Guest
from harness import KIB, MIB
from live import FOLLOW, MOVED, PATIENT, THROTTLE, Cases, Watch

BUSY = {"rate": 6 * MIB, "block_size": 4 * KIB, "blocks": (1, 16)}


class CarriesTest(Cases):
    def following(self, source, guest, *options, rounds=2, target=None):
        target, watch = target or self.target(), Watch(self, source)
        moving = self.begin(source, target, *FOLLOW, *options, freeze=guest)
        self.when_following(moving, watch, rounds)
        return target, watch, moving

    def next_round(self, watch, moving, count=1):
        self.when_following(moving, watch, watch.rounds + count)

    def finishes(self, moving, guest, source, target, by_librbd=False):
        self.order("cutover", target.address)
        result = moving.wait(60)
        self.assertEqual(result.rc, 0, result)
        self.assert_handed_over(guest, source, target, by_librbd=by_librbd)
        return result.json

    def moved(self, source, guest, *options, target=None, by_librbd=False):
        target = target or self.target()
        report = self.live(source, target, *PATIENT, *options, freeze=guest)
        self.assert_handed_over(guest, source, target, by_librbd=by_librbd)
        return report


class Snapshots(CarriesTest):
    def case_there_before(self):
        source, guest = self.guest(**BUSY)
        for name in "one", "two", "three":
            source.snap(name, protect=name == "two")
            time.sleep(0.3)
        self.moved(source, guest)

    def case_taken_meanwhile(self):
        """In the bulk, between rounds, several in one round; protected and not."""
        source, guest = self.guest(**BUSY)
        source.snap("before")
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *FOLLOW, freeze=guest)
        self.when_bulk(moving, target, watch)
        source.snap("in the bulk", protect=True)
        self.when_following(moving, watch, 2)
        source.snap("while following")
        time.sleep(0.2)
        source.snap("two in a round", protect=True)
        self.next_round(watch, moving, 2)
        source.snap("last")
        self.finishes(moving, guest, source, target)
        self.assertEqual(
            target.snapshots, ["before", "in the bulk", "while following", "two in a round", "last"])

    def case_taken_just_before_the_hand_over(self):
        source, guest = self.guest(**BUSY)
        target, watch, moving = self.following(source, guest)
        source.snap("one")
        self.finishes(moving, guest, source, target)

    def case_removed_meanwhile(self):
        """The first, one in the middle, the last; some were carried already, some not yet."""
        source, guest = self.guest(**BUSY)
        for name in "one", "two", "three", "four", "five":
            source.snap(name)
            time.sleep(0.1)
        target, watch = self.target(), Watch(self, source)
        moving = self.begin(source, target, *FOLLOW, freeze=guest)
        self.when_bulk(moving, target, watch)
        source.remove_snap("four")
        self.when_following(moving, watch, 2)
        source.remove_snap("one")
        source.remove_snap("five")
        self.next_round(watch, moving)
        source.snap("six")
        self.next_round(watch, moving)
        source.remove_snap("six")
        source.snap("seven")
        self.finishes(moving, guest, source, target)
        self.assertEqual(target.snapshots, ["two", "three", "seven"])

    def case_renamed_and_protected_meanwhile(self):
        source, guest = self.guest(**BUSY)
        for name in "one", "two", "three":
            source.snap(name, protect=name == "two")
        target, watch, moving = self.following(source, guest)
        with source.writable() as image:
            image.rename_snap("one", "first")
            image.protect_snap("three")
            image.unprotect_snap("two")
        self.next_round(watch, moving)
        source.snap("four", protect=True)
        self.next_round(watch, moving)
        with source.writable() as image:
            image.unprotect_snap("four")
            image.rename_snap("four", "fourth")
            # Names that others had before.
            image.rename_snap("two", "one")
        self.finishes(moving, guest, source, target)
        self.assertEqual(target.snapshots, ["first", "one", "three", "fourth"])

    def case_two_change_names(self):
        source, guest = self.guest(**BUSY)
        source.snap("left")
        time.sleep(0.3)
        source.snap("right", protect=True)
        target, watch, moving = self.following(source, guest)
        with source.writable() as image:
            image.rename_snap("left", "between")
            image.rename_snap("right", "left")
            image.rename_snap("between", "right")
        self.finishes(moving, guest, source, target)
        self.assertEqual(target.snapshots, ["right", "left"])

    def case_replaced_by_one_of_the_same_name(self):
        source, guest = self.guest(**BUSY)
        source.snap("daily")
        target, watch, moving = self.following(source, guest)
        source.remove_snap("daily")
        time.sleep(0.3)
        source.snap("daily")
        self.next_round(watch, moving)
        self.finishes(moving, guest, source, target)

    def case_none_of_them(self):
        source, guest = self.guest(**BUSY)
        source.snap("one", protect=True)
        target = self.target()
        self.live(source, target, *PATIENT, "--snapshots", "none", freeze=guest)
        self.assertEqual(target.snapshots, [])
        guest.stop()
        guest.assert_held(target)
        self.assert_target(target)

    def case_changed_while_nobody_followed(self):
        """Between a Ctrl-C and the same command."""
        source, guest = self.guest(**BUSY)
        for name in "one", "two":
            source.snap(name)
        target, watch, moving = self.following(source, guest)
        self.interrupt(moving)
        source.remove_snap("two")
        source.snap("three", protect=True)
        time.sleep(0.5)
        with source.writable() as image:
            image.rename_snap("one", "first")
        self.moved(source, guest, target=target)
        self.assertEqual(target.snapshots, ["first", "three"])


class Sizes(CarriesTest):
    def case_grown_and_shrunk_meanwhile(self):
        source, guest = self.guest(size=64 * MIB, length=32 * MIB, **BUSY)
        source.fill(48 * MIB, 16 * MIB, seed=1)
        target, watch, moving = self.following(source, guest)
        source.resize(80 * MIB)
        source.fill(70 * MIB, 10 * MIB, seed=2)
        self.next_round(watch, moving)
        source.resize(48 * MIB)
        self.next_round(watch, moving)
        # What was cut off comes back as zeros.
        source.resize(72 * MIB)
        source.fill(49 * MIB, 512 * KIB, seed=3)
        self.finishes(moving, guest, source, target)
        self.assertEqual(target.size, 72 * MIB)

    def case_shrunk_and_grown_between_two_rounds(self):
        """Sizes are the same before and after, and yet the data past the smaller one are gone."""
        source, guest = self.guest(size=64 * MIB, length=32 * MIB, **BUSY)
        source.fill(33 * MIB, 31 * MIB, seed=1)
        target, watch, moving = self.following(source, guest)
        source.resize(35 * MIB + 5 * KIB)
        source.resize(64 * MIB)
        self.finishes(moving, guest, source, target)

    def case_in_the_bulk(self):
        source, guest = self.guest(size=64 * MIB, length=32 * MIB, **BUSY)
        source.fill(32 * MIB, 32 * MIB, seed=1)
        for size in 50 * MIB + 4 * KIB, 70 * MIB:
            target, watch = self.target(), Watch(self, source)
            moving = self.begin(source, target, *PATIENT, "--bandwidth", "24M", freeze=guest)
            self.when_bulk(moving, target, watch)
            source.resize(size)
            result = moving.wait(60)
            self.assertEqual(result.rc, 0, result)
            self.assertEqual(target.size, size)
            self.assert_same_but_for(guest, source, target)
            self.assertTrue(guest.is_writing())
            guest.freeze()
            guest.assert_held(target)
            source = target
            guest.thaw()

    def case_with_snapshots_of_all_sizes(self):
        source, guest = self.guest(size=48 * MIB, length=24 * MIB, **BUSY)
        source.snap("48")
        target, watch, moving = self.following(source, guest)
        source.resize(64 * MIB)
        source.fill(60 * MIB, 4 * MIB, seed=1)
        source.snap("64")
        source.resize(32 * MIB)
        source.snap("32")
        self.next_round(watch, moving)
        source.resize(40 * MIB)
        self.finishes(moving, guest, source, target)


class Layouts(CarriesTest):
    def case_without_object_map(self):
        source, guest = self.guest(layout={"features": ("layering", "exclusive-lock")}, **BUSY)
        source.snap("one")
        self.moved(source, guest)

    def case_without_exclusive_lock(self):
        """A writer without the lock isn't held up by a snapshot, and writes past it for a moment: that is refused, until
        the lock was enabled, which the writer takes up as it runs."""
        source, guest = self.guest(
            layout={"features": ("layering",)}, rate=40 * MIB, block_size=16 * KIB, blocks=(1, 1), depth=16)
        target = self.target()
        result = self.live(source, target, *PATIENT, freeze=guest, rc=73)
        self.assertIn("rbd feature enable", result.stderr)
        self.assertFalse(target.unfinished.exists)
        self.assert_at_source(guest, source)
        with source.writable() as image:
            image.update_features(rbd.RBD_FEATURE_EXCLUSIVE_LOCK, True)
        self.moved(source, guest, "--bandwidth", "16M", "--max-pause", "800ms", target=target)

    def case_stripes(self):
        source, guest = self.guest(layout={"stripe_unit": 64 * KIB, "stripe_count": 4}, **BUSY)
        source.snap("one")
        self.moved(source, guest, by_librbd=True)

    def case_another_object_size(self):
        source, guest = self.guest(**BUSY)
        source.snap("one", protect=True)
        target, watch, moving = self.following(source, guest, "--object-size", "1M")
        source.snap("two")
        self.next_round(watch, moving)
        self.finishes(moving, guest, source, target, by_librbd=True)
        with target.open() as image:
            self.assertEqual(image.stat()["order"], 20)

    def case_small_objects(self):
        source, guest = self.guest(size=32 * MIB, layout={"order": 17}, **BUSY)
        self.moved(source, guest)

    def case_a_clone(self):
        parent = self.volume(size=64 * MIB)
        parent.fill(0, 24 * MIB, seed=1)
        parent.snap("base", protect=True)
        source = self.clone(parent, "base")
        guest = Guest(self, source, length=48 * MIB, **BUSY)
        self.moved(source, guest)

    def case_a_namespace(self):
        source = self.volume(size=32 * MIB, namespace=self.namespace("fast"))
        guest = Guest(self, source, fill=True, **BUSY)
        self.moved(source, guest, target=self.target("slow", self.namespace("slow")))

    def case_the_same_pool(self):
        source, guest = self.guest(**BUSY)
        self.moved(source, guest, target=self.target("fast"))

    def case_metadata(self):
        """The user's own comes along; the move's own doesn't."""
        source, guest = self.guest(**BUSY)
        source.set_metadata("owner", "somebody")
        source.set_metadata("conf_rbd_cache", "true")
        target, watch, moving = self.following(source, guest)
        source.set_metadata("later", "yes")
        self.finishes(moving, guest, source, target)
        metadata = target.metadata
        self.assertEqual(metadata.get("owner"), "somebody")
        self.assertEqual(metadata.get("conf_rbd_cache"), "true")
        self.assertNotIn(MOVED, metadata)
        self.assertNotIn(THROTTLE, metadata)


class Clusters(CarriesTest):
    def case_from_one_to_the_other(self):
        source, guest = self.guest(**BUSY)
        source.snap("one", protect=True)
        target, watch, moving = self.following(source, guest, target=self.target("slow", on=2))
        source.snap("two")
        self.next_round(watch, moving)
        self.finishes(moving, guest, source, target)

    def case_and_back(self):
        """The source's cluster is the one that has to be named: its throttle, its fence."""
        source, guest = self.guest(on=2, rate=24 * MIB, block_size=64 * KIB, blocks=(1, 1), depth=8)
        target, watch = self.target("fast"), Watch(self, source)
        self.live(source, target, *PATIENT, "--bandwidth", "6M", "--fence", "blocklist",
                  freeze=guest.hook("--hold"))
        self.assertNotEqual(self.limits_of(watch.end()), [])
        self.assert_handed_over(guest, source, target)


class Verified(CarriesTest):
    def case_before_the_guest_goes_on(self):
        source, guest = self.guest(**BUSY)
        source.snap("one")
        target = self.target()
        report = self.live(source, target, "--max-pause", "10s", "--verify", freeze=guest)
        self.assertTrue(report["verified"])
        self.assert_handed_over(guest, source, target)

    def case_what_was_planted_is_found(self):
        """A block of the unfinished target is spoiled while the move follows: it isn't committed, and the guest goes on."""
        source, guest = self.guest(rate=6 * MIB, length=32 * MIB)
        target, watch, moving = self.following(source, guest, "--verify")
        source.fill(40 * MIB, MIB, seed=1)
        self.next_round(watch, moving, 2)
        with target.unfinished.open() as image:
            name = image.block_name_prefix() + f".{40 * MIB // (4 * MIB):016x}"
        target.ioctx.write(name, b"spoiled", 4096)
        self.order("cutover", target.address)
        result = moving.wait(60)
        self.assertIn(result.rc, (65, 75), result)
        self.assertIn(str(40 * MIB + 4096), result.stderr)
        self.assertFalse(target.exists)
        self.assert_at_source(guest, source)
        self.abort(target)
        self.assert_source_left(source, moved=False)
