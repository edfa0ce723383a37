"""How an image lies on its objects, in which pools and namespaces, with which features: as it was, or as it is asked for."""

import rbd

from harness import FEATURES, KIB, MIB, STANDARD, ClusterTest, cluster, noise


class LayoutTest(ClusterTest):
    def with_history(self, size=12 * MIB, **layout):
        """An image of any layout: writes at the borders of objects of any size, discards, a shrink, a growth."""
        source = self.volume(size=size, **layout)
        with source:
            source.fill(0, 3 * MIB, seed=1)
            source.fill(size - 300 * KIB, 300 * KIB, seed=2)
            source.snap("one", protect="layering" in layout.get("features", STANDARD))
            source.fill(64 * KIB - 100, 200, seed=3)
            source.discard(MIB, 256 * KIB)
            source.write_zeros(2 * MIB, 512 * KIB)
            source.snap("two")
            source.resize(size // 2 + 5 * KIB)
            source.fill(size // 2, 5 * KIB, seed=4)
            source.snap("three")
            source.resize(size)
            source.fill(size - 2 * MIB, 70 * KIB, seed=5)
        return source

    def layout(self, volume):
        with volume.open() as image:
            pool = image.data_pool_id()
            return {
                "order": image.stat()["order"], "unit": image.stripe_unit(), "count": image.stripe_count(),
                "data pool": volume.cluster.rados.pool_reverse_lookup(pool), "features": volume.features}


class ObjectSizes(LayoutTest):
    def test_as_the_source(self):
        for order in (12, 16, 22, 25):
            with self.subTest(object_size=1 << order):
                source = self.with_history(size=4 * MIB if order < 20 else 70 * MIB, order=order)
                target = self.target()
                report = self.move_and_compare(source, target)
                self.assertEqual(report["route"], "object to object")
                self.assertEqual(self.layout(target)["order"], order)

    def test_as_asked_for(self):
        for option, order in (("64K", 16), ("1M", 20), ("32M", 25)):
            with self.subTest(option):
                source = self.with_history()
                target = self.target()
                self.move_and_compare(source, target, "--object-size", option, "--verify")
                self.assertEqual(self.layout(target)["order"], order)


class Striping(LayoutTest):
    def test_as_the_source(self):
        for unit, count, order in ((64 * KIB, 4, 22), (4 * KIB, 3, 16), (MIB, 2, 22), (512 * KIB, 5, 20), (4 * MIB, 3, 22)):
            with self.subTest(stripe_unit=unit, stripe_count=count, object_size=1 << order):
                source = self.with_history(order=order, stripe_unit=unit, stripe_count=count)
                target = self.target()
                self.move_and_compare(source, target, "--verify")
                found = self.layout(target)
                self.assertEqual((found["order"], found["unit"], found["count"]), (order, unit, count))

    def test_with_snapshots_removed_from_the_history(self):
        source = self.with_history(order=20, stripe_unit=64 * KIB, stripe_count=3)
        with source:
            source.remove_snap("two")
            source.fill(5 * MIB, 100 * KIB, seed=9)
        self.move_and_compare(source, self.target(), "--verify")

    def test_as_asked_for(self):
        source = self.with_history()
        target = self.target()
        self.move_and_compare(
            source, target, "--stripe-unit", "64K", "--stripe-count", "4", "--object-size", "1M", "--verify")
        found = self.layout(target)
        self.assertEqual((found["order"], found["unit"], found["count"]), (20, 64 * KIB, 4))

    def test_given_up(self):
        source = self.with_history(order=20, stripe_unit=64 * KIB, stripe_count=4)
        target = self.target()
        self.move_and_compare(
            source, target, "--stripe-unit", "4M", "--stripe-count", "1", "--object-size", "4M", "--verify")
        found = self.layout(target)
        self.assertEqual((found["order"], found["unit"], found["count"]), (22, 4 * MIB, 1))


class Pools(LayoutTest):
    def test_a_replicated_data_pool(self):
        """The target's data go to the same pool as the source's."""
        data = self.data_pool()
        source = self.with_history(data_pool=data)
        target = self.target()
        self.move_and_compare(source, target, "--verify")
        self.assertEqual(self.layout(target)["data pool"], data)

    def test_an_erasure_coded_data_pool(self):
        data = self.erasure_coded_pool()
        source = self.with_history(data_pool=data)
        target = self.target()
        self.move_and_compare(source, target, "--verify")
        self.assertEqual(self.layout(target)["data pool"], data)

    def test_into_an_erasure_coded_data_pool(self):
        data = self.erasure_coded_pool()
        source = self.with_history()
        target = self.target()
        self.move_and_compare(source, target, "--data-pool", data, "--verify", thin=False)
        self.assertEqual(self.layout(target)["data pool"], data)

    def test_out_of_an_erasure_coded_data_pool(self):
        data = self.erasure_coded_pool()
        source = self.with_history(data_pool=data)
        target = self.target()
        self.move_and_compare(source, target, "--data-pool", "slow", "--verify")
        self.assertEqual(self.layout(target)["data pool"], "slow")

    def test_within_a_pool(self):
        source = self.with_history()
        self.move_and_compare(source, self.target("fast"))

    def test_namespaces(self):
        one, other = self.namespace("fast"), self.namespace("slow")
        for source_at, target_at in ((one, ""), ("", other), (one, other)):
            with self.subTest(source=source_at, target=target_at):
                source = self.with_history(namespace=source_at)
                self.move_and_compare(source, self.target("slow", namespace=target_at), "--verify")

    def test_a_namespace_and_a_data_pool(self):
        namespace, data = self.namespace("fast"), self.data_pool()
        source = self.with_history(namespace=namespace, data_pool=data)
        target = self.target("fast", namespace=namespace)
        self.move_and_compare(source, target)
        self.assertEqual(self.layout(target)["data pool"], data)

    def test_the_same_name_at_both_ends(self):
        source = self.with_history()
        self.move_and_compare(source, self.target("slow", name=source.name))


class Features(LayoutTest):
    def test_as_the_source(self):
        for features in (
                (), ("layering",), ("layering", "deep-flatten"), ("layering", "exclusive-lock"),
                ("exclusive-lock", "object-map"), STANDARD, (*STANDARD, "journaling")):
            with self.subTest(features=features):
                source = self.with_history(features=features)
                target = self.target()
                self.move_and_compare(source, target, "--verify")
                self.assertEqual(target.features, source.features)

    def test_as_asked_for(self):
        for options, features in (
                (["layering"], {"layering"}), (["layering,exclusive-lock"], {"layering", "exclusive-lock"}),
                (["layering", "exclusive-lock", "journaling"], {"layering", "exclusive-lock", "journaling"})):
            with self.subTest(features=features):
                source = self.with_history()
                target = self.target()
                self.move_and_compare(source, target, *(word for name in options for word in ("--image-feature", name)))
                self.assertEqual(target.features, features)

    def test_an_object_map_without_fast_diff(self):
        """Which librbd makes only by switching the other off."""
        source = self.with_history()
        with source.writable() as image:
            image.update_features(FEATURES["fast-diff"], False)
        target = self.target()
        self.move_and_compare(source, target)
        self.assertEqual(target.features, source.features)

    def test_an_object_map_for_a_source_without(self):
        source = self.with_history(features=("layering",))
        target = self.target()
        self.move_and_compare(source, target, "--image-feature", ",".join(STANDARD))
        self.assertEqual(target.features, set(STANDARD))

    def test_an_object_map_that_is_flagged_as_invalid(self):
        """What such a map says is not believed."""
        source = self.with_history(size=16 * MIB)
        with source.open() as image:
            stray = image.block_name_prefix() + ".0000000000000001"
        ioctx = cluster().rados.open_ioctx("fast")
        ioctx.set_self_managed_snap_write([snapshot["id"] for snapshot in source.all_snapshots()])
        ioctx.write_full(stray, noise(8 * KIB, seed=7))
        ioctx.close()
        cluster().tool("rbd", "object-map", "check", "--no-progress", source.spec)
        with source.open() as image:
            self.assertTrue(image.flags() & rbd.RBD_FLAG_OBJECT_MAP_INVALID)
        self.assertEqual(source.read(4 * MIB, 8 * KIB), noise(8 * KIB, seed=7))
        target = self.target()
        before = source.portrait()
        self.move(source, target)
        self.assert_same(source, target, before["states"])
        self.assert_object_map_right(target)

    def test_features_switched_on_later(self):
        """The snapshots from before have no object map."""
        source = self.volume(features=("layering",))
        with source:
            source.fill(0, 3 * MIB, seed=1)
            source.snap("without")
            source.fill(2 * MIB, 3 * MIB, seed=2)
            with source.writable() as image:
                image.update_features(FEATURES["exclusive-lock"], True)
                image.update_features(FEATURES["object-map"] | FEATURES["fast-diff"], True)
            source.snap("with an invalid one")
            with source.writable() as image:
                image.rebuild_object_map()
            source.discard(0, MIB)
            source.snap("with a right one")
            source.fill(9 * MIB, MIB, seed=3)
        target = self.target()
        before = source.portrait()
        self.move(source, target)
        self.assert_same(source, target, before["states"])
        self.assertEqual(target.features, source.features)
        self.assert_object_map_right(target)
