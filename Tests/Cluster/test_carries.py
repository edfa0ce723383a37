"""What a move carries of an image's bytes and of its history, case by case, each compared snapshot by snapshot."""

import unittest

from harness import ClusterTest, KIB, MIB, noise


class Data(ClusterTest):
    def test_data(self):
        source = self.volume(size=24 * MIB)
        with source:
            source.fill(0, 4 * MIB, seed=1)  # an object, full
            source.fill(5 * MIB + 512, 3 * KIB, seed=2)  # not aligned to anything
            source.fill(8 * MIB - 700, 1400, seed=3)  # across a border of objects
            source.fill(24 * MIB - 1, 1, seed=4)  # the last byte
        target = self.target()
        report = self.move_and_compare(source, target, "--verify")
        self.assertTrue(report["verified"])

    def test_many_small_writes(self):
        source = self.volume(size=32 * MIB)
        with source:
            for index in range(256):
                source.fill((index * 37 % 256) * 128 * KIB + index * 512, 4 * KIB + index, seed=index)
        self.move_and_compare(source, self.target())

    def test_full_objects(self):
        """So many of them in a row that they are copied from OSD to OSD."""
        source = self.volume(size=64 * MIB, order=20)
        with source:
            source.fill(0, 60 * MIB, seed=1)
            source.snap("full")
            source.fill(8 * MIB, 8 * MIB, seed=2)
        # Few at once, so that the first have told what the rest are likely to be.
        report = self.move_and_compare(source, self.target(), "--in-flight", "4M")
        self.assertGreater(report["steps"][0]["copiedBytes"], 32 * MIB, report)

    def test_discards(self):
        source = self.volume(size=24 * MIB)
        with source:
            source.fill(0, 24 * MIB, seed=1)
            source.snap("full")
            source.discard(0, 4 * KIB)
            source.discard(MIB, 64 * KIB)
            source.snap("small ones")
            source.discard(4 * MIB, 4 * MIB)  # an object
            source.discard(11 * MIB, 2 * MIB)  # the end of one, the beginning of the next
            source.snap("large ones")
            source.fill(5 * MIB, MIB, seed=2)  # what was removed comes back
            source.snap("back")
            source.discard(0, 24 * MIB)
        self.move_and_compare(source, self.target())

    def test_an_object_removed_and_made_again_between_snapshots(self):
        source = self.volume(size=8 * MIB)
        with source:
            source.fill(0, 8 * MIB, seed=1)
            source.snap("before")
            source.discard(0, 4 * MIB)
            source.fill(MIB, 8 * KIB, seed=2)
            source.snap("after")
            source.discard(0, 4 * MIB)
            source.snap("gone")
            source.fill(0, 12 * KIB, seed=3)
        self.move_and_compare(source, self.target())

    def test_zeroed_ranges(self):
        source = self.volume(size=16 * MIB)
        with source:
            source.fill(0, 16 * MIB, seed=1)
            source.snap("full")
            source.zero(700, 5000)
            source.zero(2 * MIB - 4096, 8192)
            source.snap("zeroed")
            source.zero(4 * MIB, 4 * MIB)
            source.zero(12 * MIB + 1, 4 * MIB - 1)
        self.move_and_compare(source, self.target())

    def test_a_bandwidth(self):
        source = self.volume(size=16 * MIB)
        source.fill(0, 12 * MIB, seed=1)
        report = self.move_and_compare(source, self.target(), "--bandwidth", "6M", "--in-flight", "1M")
        self.assertGreater(report["seconds"], 1.5)
        self.assertLess(report["seconds"], 6)

    def test_granularity_and_bounds_of_memory(self):
        for options in (["--granularity", "4K", "--in-flight", "1M"], ["--granularity", "32M", "--in-flight", "256M"]):
            with self.subTest(options):
                source = self.volume(size=16 * MIB)
                with source:
                    source.fill(MIB + 4096, 6 * MIB, seed=1)
                    source.snap("one")
                    source.fill(9 * MIB + 512, 512, seed=2)
                self.move_and_compare(source, self.target(), *options)


class Thin(ClusterTest):
    """Holes stay holes, and written zeros become holes."""

    def test_holes_stay_holes(self):
        source = self.volume(size=1 << 40)
        with source:
            for index in range(8):
                source.fill(index * (128 << 30) + 12345 * 512, 4096, seed=index)
        target = self.target()
        report = self.move(source, target)
        self.assertLessEqual(report["steps"][0]["sentBytes"], 8 * 8 * KIB)
        self.assertLess(report["seconds"], 20)
        self.assert_thin(target, at_most=8 * 8 * KIB)
        self.assertEqual(len(target.objects()), 8)
        for index in range(8):
            offset = index * (128 << 30) + 12345 * 512
            self.assertEqual(target.read(offset - 4096, 12288), bytes(4096) + noise(4096, index) + bytes(4096))
        # 'rbd object-map check' would ask for each of 262,144 objects.
        self.assertEqual(target.mapped_objects(), target.present_objects())

    def test_objects_of_zeros(self):
        source = self.volume(size=24 * MIB)
        source.write_zeros(0, 24 * MIB)
        target = self.target()
        self.move_and_compare(source, target)
        self.assert_thin(target, at_most=0)
        self.assertEqual(target.objects(), [])

    def test_blocks_of_zeros_within_data(self):
        source = self.volume(size=8 * MIB)
        with source:
            source.fill(0, MIB, seed=1)
            for block in range(0, 128, 2):
                source.write_zeros(block * 4 * KIB, 4 * KIB)
        target = self.target()
        report = self.move_and_compare(source, target)
        self.assertEqual(report["steps"][0]["sentBytes"], MIB - 256 * KIB)
        self.assert_thin(target, at_most=MIB - 256 * KIB)

    def test_zeros_over_data_between_snapshots(self):
        source = self.volume(size=16 * MIB)
        with source:
            source.fill(0, 16 * MIB, seed=1)
            source.snap("data")
            source.write_zeros(0, 4 * MIB)
            source.write_zeros(5 * MIB, 64 * KIB)
            source.snap("zeros")
            source.write_zeros(8 * MIB, 8 * MIB)
        target = self.target()
        report = self.move_and_compare(source, target)
        self.assertEqual([step["sentBytes"] for step in report["steps"]], [16 * MIB, 0, 0])
        for snapshot, most in (("data", 16 * MIB), ("zeros", 12 * MIB - 64 * KIB)):
            self.assertEqual(sum(length for _, length in self.allocated(target, snapshot)), most)
        self.assert_thin(target, at_most=4 * MIB - 64 * KIB)

    def test_zeros_where_nothing_was(self):
        source = self.volume(size=16 * MIB)
        with source:
            source.fill(0, 4096)
            source.snap("little")
            source.write_zeros(0, 16 * MIB)
        target = self.target()
        self.move_and_compare(source, target)
        self.assert_thin(target, at_most=0)


class Sizes(ClusterTest):
    def test_odd_sizes(self):
        for size in (512, 4096 - 512, 4 * MIB - 512, 4 * MIB + 512, 9 * MIB + 3 * 512, 5 * MIB + 1000):
            with self.subTest(size=size):
                source = self.volume(size=size)
                with source:
                    source.write(max(0, size - 700), noise(min(700, size), seed=size))
                    source.snap("one")
                    source.write(0, noise(100, seed=1))
                self.move_and_compare(source, self.target(), "--verify")

    def test_an_image_never_written(self):
        source = self.volume(size=64 * MIB)
        target = self.target()
        report = self.move_and_compare(source, target, "--verify")
        self.assertEqual(sum(step["sentBytes"] for step in report["steps"]), 0)
        self.assertEqual(target.objects(), [])

    def test_an_image_never_written_with_snapshots(self):
        source = self.volume(size=64 * MIB)
        with source:
            source.snap("a")
            source.snap("b", protect=True)
        self.move_and_compare(source, self.target())

    def test_an_image_of_size_zero(self):
        source = self.volume(size=0)
        self.move_and_compare(source, self.target(), "--verify")

    def test_an_image_emptied_and_filled_again(self):
        source = self.volume(size=8 * MIB)
        with source:
            source.fill(0, 8 * MIB, seed=1)
            source.snap("full")
            source.resize(0)
            source.snap("nothing")
            source.resize(6 * MIB)
            source.snap("holes")
            source.fill(5 * MIB, MIB, seed=2)
        self.move_and_compare(source, self.target(), "--verify")

    def test_growths_between_snapshots(self):
        source = self.volume(size=3 * MIB + 512)
        with source:
            source.fill(0, 3 * MIB + 512, seed=1)
            source.snap("small")
            source.resize(9 * MIB)
            source.snap("grown")
            source.fill(3 * MIB, 6 * MIB, seed=2)
            source.snap("filled")
            source.resize(30 * MIB)
        self.move_and_compare(source, self.target())

    def test_shrinks_between_snapshots(self):
        source = self.volume(size=24 * MIB)
        with source:
            source.fill(0, 24 * MIB, seed=1)
            source.snap("large")
            source.resize(12 * MIB)  # at a border of objects
            source.snap("half")
            source.resize(5 * MIB + 4096)  # within one
            source.snap("small")
            source.resize(MIB + 77)  # at no multiple of anything
        self.move_and_compare(source, self.target())

    def test_shrunk_and_grown_again_between_two_snapshots(self):
        """What was cut off reads as zeros, though the size is what it was."""
        source = self.volume(size=16 * MIB)
        with source:
            source.fill(0, 16 * MIB, seed=1)
            source.snap("before")
            source.resize(6 * MIB + 512)
            source.resize(16 * MIB)
            source.snap("after")
            source.resize(5 * MIB)
            source.resize(10 * MIB)
            source.fill(7 * MIB, 4 * KIB, seed=2)
        self.move_and_compare(source, self.target())

    def test_shrunk_within_an_object_and_grown(self):
        source = self.volume(size=4 * MIB)
        with source:
            source.fill(0, 4 * MIB, seed=1)
            source.snap("a")
            source.resize(MIB + 100)
            source.resize(4 * MIB)
            source.fill(3 * MIB, 4 * KIB, seed=2)
            source.snap("b")
            source.resize(100)
            source.snap("c")
            source.resize(4 * MIB)
        self.move_and_compare(source, self.target())


class History(ClusterTest):
    NAMES = ["s0", "s1", "s2", "s3", "s4", "s5"]

    def with_history(self):
        """Six snapshots, each with writes, zeros and discards after the one before, in the same and in other places."""
        source = self.volume(size=16 * MIB)
        with source:
            for index, name in enumerate(self.NAMES):
                source.fill(0, 64 * KIB, seed=index)
                source.fill(MIB + index * 96 * KIB, 128 * KIB, seed=index + 10)
                source.fill(4 * MIB + (index % 3) * MIB, MIB, seed=index + 20)
                if index % 2:
                    source.discard(8 * MIB, 4 * MIB)
                else:
                    source.fill(8 * MIB + index * 64 * KIB, 256 * KIB, seed=index + 30)
                source.zero(12 * MIB + index * 100 * KIB, 150 * KIB)
                source.fill(12 * MIB, 900 * KIB, seed=index + 40)
                source.discard(13 * MIB - index * 64 * KIB, 64 * KIB)
                source.snap(name)
        return source

    def test_snapshots_removed_from_the_history(self):
        patterns = {
            "one from the middle": ["s2"], "two beside each other": ["s2", "s3"], "every other": ["s1", "s3", "s5"],
            "all but the ends": ["s1", "s2", "s3", "s4"], "the first three": ["s0", "s1", "s2"], "the last two": ["s4", "s5"],
            "newest to oldest": ["s4", "s3", "s1"],
        }
        for title, names in patterns.items():
            with self.subTest(title):
                source = self.with_history()
                with source:
                    for name in names:
                        source.remove_snap(name)
                self.move_and_compare(source, self.target())

    def test_snapshots_removed_while_the_history_went_on(self):
        source = self.volume(size=12 * MIB)
        with source:
            for index in range(10):
                source.fill((index % 3) * 4 * MIB + index * 32 * KIB, 512 * KIB, seed=index)
                source.discard(((index + 1) % 3) * 4 * MIB, 4 * MIB if index % 4 == 3 else 128 * KIB)
                source.snap(f"s{index}")
                if index >= 2:
                    source.remove_snap(f"s{index - 1}")
                if index % 3 == 2:
                    source.fill(index * MIB, 8 * KIB, seed=index + 50)
                    source.snap(f"extra {index}")
        self.move_and_compare(source, self.target())

    def test_rolled_back_to_the_first(self):
        source = self.with_history()
        source.rollback("s0")
        self.move_and_compare(source, self.target())

    def test_rolled_back_to_the_middle_then_written_on(self):
        source = self.with_history()
        with source:
            source.rollback("s3")
            source.fill(2 * MIB, 300 * KIB, seed=60)
            source.snap("after the rollback")
            source.discard(4 * MIB, 2 * MIB)
            source.rollback("s1")
            source.fill(9 * MIB, 5 * KIB, seed=61)
            source.snap("after another")
            source.remove_snap("s3")
        self.move_and_compare(source, self.target())

    def test_rolled_back_to_another_size(self):
        source = self.volume(size=8 * MIB)
        with source:
            source.fill(0, 8 * MIB, seed=1)
            source.snap("large")
            source.resize(3 * MIB)
            source.snap("small")
            source.rollback("large")
            source.fill(MIB, MIB, seed=2)
            source.snap("large again")
            source.rollback("small")
        self.move_and_compare(source, self.target())

    def test_many_snapshots(self):
        """More than librbd lists in one go."""
        source = self.volume(size=MIB)
        with source:
            for index in range(66):
                source.fill((index * 7 % 64) * 16 * KIB, 4 * KIB, seed=index)
                source.snap(f"{index:03}")
        target = self.target()
        self.move(source, target)
        self.assert_same(source, target)

    def test_no_snapshots_when_none_are_wanted(self):
        source = self.with_history()
        before = source.portrait()
        target = self.target()
        report = self.move(source, target, "--snapshots", "none")
        self.assertEqual(len(report["steps"]), 1)
        self.assertEqual(target.snapshots, [])
        self.assert_unchanged(source, before)
        self.assert_same(source, target, before["states"][-1:])
        self.assert_object_map_right(target)
        self.assert_left_alone(target)


class Names(ClusterTest):
    # "/" and "@" separate names for rbd's command line only: librbd takes them.
    NAMES = [
        "plain", "with space", " leading", "trailing ", "日本語のスナップショット", "🦤 emoji 👩‍👩‍👧", "Ελληνικά", "עברית",
        "caf\u00e9 precomposed", "cafe\u0301 combining", "'single' \"double\" `back`", "back\\slash", "per%cent %s %n", "new\nline",
        "tab\tulator", "a:b=c", "-dash", "--all", ".", "..", "#!$&*(){}[]|;<>?~^", "a@b", "a/b", "\x01\x7f", "x" * 255,
    ]

    def test_names_in_any_utf8(self):
        source = self.volume(size=8 * MIB)
        with source:
            for index, name in enumerate(self.NAMES):
                source.fill(index * 256 * KIB, 4 * KIB, seed=index)
                source.snap(name, protect=index % 3 == 0)
        self.assertEqual(source.snapshots, self.NAMES)
        target = self.target()
        report = self.move(source, target, "--verify")
        self.assertEqual([step.get("snapshot") for step in report["steps"]], [*self.NAMES, None])
        self.assert_same(source, target)
        self.assert_left_alone(source)
        self.assert_left_alone(target)

    def test_names_that_only_look_the_same(self):
        """One letter or a letter and an accent: other bytes, so another snapshot."""
        source = self.volume(size=4 * MIB)
        with source:
            for index, name in enumerate(["\u00e9", "e\u0301", "\u212b", "\u00c5", "A\u030a"]):
                source.fill(0, 4096, seed=index)
                source.snap(name, protect=index % 2 == 1)
        self.move_and_compare(source, self.target(), "--verify")

    def test_names_that_look_like_godwits_own(self):
        source = self.volume(size=4 * MIB)
        with source:
            for index, name in enumerate(["godwit", "godwit-1", "godwitness", "Godwit.1", ".godwit-unfinished"]):
                source.fill(0, 4096, seed=index)
                source.snap(name)
        target = self.target()
        self.move(source, target)
        self.assert_same(source, target)

    def test_order_is_that_of_time(self):
        source = self.volume(size=4 * MIB)
        with source:
            for index, name in enumerate(["zulu", "alpha", "mike", "10", "9"]):
                source.fill(0, 4096, seed=index)
                source.snap(name)
        target = self.target()
        self.move_and_compare(source, target)
        self.assertEqual(target.snapshots, ["zulu", "alpha", "mike", "10", "9"])

    def test_a_renamed_snapshot(self):
        source = self.volume(size=4 * MIB)
        with source:
            source.snap("one")
            source.fill(0, 4096)
            source.snap("two")
            with source.writable() as image:
                image.rename_snap("one", "zzz")
        target = self.target()
        self.move_and_compare(source, target)
        self.assertEqual(target.snapshots, ["zzz", "two"])

    def test_protection(self):
        source = self.volume(size=4 * MIB)
        with source:
            for index in range(4):
                source.snap(f"s{index}", protect=index in (0, 2))
        target = self.target()
        self.move_and_compare(source, target)
        self.assertEqual([protected for _, protected, _, _ in target.states()], [True, False, True, False, False])


if __name__ == "__main__":
    unittest.main()
