"""The checks themselves: each is shown the fault that it exists to find."""

from harness import ClusterTest, MIB, Running, STANDARD


class ChecksFindWhatTheyLookFor(ClusterTest):
    def pair(self):
        """Two images with the same snapshots and the same bytes."""
        volumes = self.volume("fast", 12 * MIB), self.volume("slow", 12 * MIB)
        for volume in volumes:
            with volume:
                volume.fill(0, 5 * MIB, seed=1)
                volume.snap("one", protect=True)
                volume.fill(MIB, MIB, seed=2)
                volume.snap("two")
        return volumes

    def test_equal_images_pass(self):
        source, target = self.pair()
        self.assert_moved(source, target)

    def test_a_byte_of_a_snapshot(self):
        source, target = self.pair()
        other = self.volume("slow", 12 * MIB)
        with other:
            other.fill(0, 5 * MIB, seed=1)
            other.write(4 * MIB + 77, b"?")
            other.snap("one", protect=True)
            other.fill(0, 5 * MIB, seed=1)
            other.fill(MIB, MIB, seed=2)
            other.snap("two")
        with self.assertRaisesRegex(AssertionError, f"one: 1 pieces of 4 MiB differ.* from {4 * MIB + 77}"):
            self.assert_same(source, other)

    def test_a_byte_of_the_head(self):
        source, target = self.pair()
        target.write(12 * MIB - 1, b"?")
        with self.assertRaisesRegex(AssertionError, f"head: .* 1 bytes from {12 * MIB - 1}"):
            self.assert_same(source, target)

    def test_protection_size_order_and_names(self):
        def unprotect(volume):
            with volume.writable() as image:
                image.unprotect_snap("one")

        for change in (
                unprotect, lambda volume: volume.resize(13 * MIB), lambda volume: volume.snap("three"),
                lambda volume: volume.remove_snap("two"),
                lambda volume: (volume.remove_snap("two"), volume.snap("Two"))):
            source, target = self.pair()
            change(target)
            with self.assertRaises(AssertionError):
                self.assert_same(source, target)

    def test_an_object_that_its_object_map_lacks(self):
        _, target = self.pair()
        with target.open() as image:
            target.ioctx.write_full(image.block_name_prefix() + ".0000000000000002", b"surprise")
        with self.assertRaisesRegex(AssertionError, "object map"):
            self.assert_object_map_right(target)

    def test_an_object_map_with_an_object_too_many(self):
        _, target = self.pair()
        target.ioctx.remove_object(target.objects()[-1])
        with self.assertRaisesRegex(AssertionError, "objects in its object map"):
            self.assert_object_map_right(target)

    def test_data_where_the_source_has_none(self):
        source, target = self.pair()
        target.write_zeros(8 * MIB, 4096)
        self.assert_same(source, target)
        with self.assertRaisesRegex(AssertionError, "bytes allocated"):
            self.assert_thin(target, source)
        with self.assertRaisesRegex(AssertionError, "bytes allocated"):
            self.assert_thin(target, at_most=5 * MIB)

    def test_things_left_behind(self):
        for leave in (lambda volume: volume.snap("godwit.1234"), lambda volume: volume.set_metadata("godwit.record", "{}")):
            volume = self.volume()
            self.assert_left_alone(volume)
            leave(volume)
            with self.assertRaises(AssertionError):
                self.assert_left_alone(volume)

    def test_a_client_and_its_lock(self):
        for features, found in ((("layering",), "watched"), (STANDARD, "locked")):
            volume = self.volume(features=features)
            with volume:
                volume.fill(0, 4096)
                with self.assertRaisesRegex(AssertionError, found):
                    self.assert_left_alone(volume)
            self.assert_left_alone(volume)

    def test_a_change_of_the_source(self):
        volume = self.volume()
        before = volume.portrait()
        self.assert_unchanged(volume, before)
        volume.write(3, b"x")
        with self.assertRaisesRegex(AssertionError, "states changed"):
            self.assert_unchanged(volume, before)

    def test_an_object_that_outlives_its_image(self):
        volume = self.volume()
        volume.fill(0, MIB)
        with volume.open() as image:
            stray = image.block_name_prefix() + ".0000000000000003"
        volume.ioctx.write_full(stray, b"left")
        self.addCleanup(volume.ioctx.remove_object, stray)
        with self.assertRaisesRegex(AssertionError, stray):
            self._remove(volume)

    def test_a_program_that_hangs(self):
        sleeper = Running(["sleep", "60"])
        with self.assertRaisesRegex(AssertionError, "hung: killed after 0.2 s: sleep 60"):
            sleeper.wait(0.2)
        self.assertTrue(sleeper.has_ended)
