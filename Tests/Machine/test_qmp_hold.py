"""A VM that is held by its QMP socket: frozen, sent on at the target, or let go again."""

import tempfile
import time

from machine_test import MIB, HoldError, MachineTest, Proxy, rbd_node

SIZE = 32 * MIB
SHAPES = [(shape, iothread) for shape in ("rbd", "raw") for iothread in (False, True)]


class Holding(MachineTest):
    def writing(self, source, seq=300, **options):
        """A VM that writes to the source, and has written some."""
        machine = self.boot(source, **options)
        machine.rate(150, jobs=2)
        self.wait_until(lambda: machine.info()["seq"] > seq)
        return machine

    def pair(self, **options):
        return self.volume("fast", SIZE), self.target("slow", **options)

    def assert_runs_at(self, machine, volume):
        """Its disk is that volume, it writes there, and QEMU has nothing open but that."""
        self.assertEqual(machine.status(), "running")
        filename = machine.disk()["image"]["filename"]
        self.assertIn(f'"pool": "{volume.pool}"', filename)
        self.assertIn(f'"image": "{volume.name}"', filename)
        before = machine.info()["seq"]
        self.wait_until(lambda: machine.info()["seq"] > before + 50)
        self.assert_nothing_left(machine)
        self.assertEqual(len(volume.watchers()), 1)

    def assert_nothing_left(self, machine, nodes=None):
        shape = machine.disk()["drv"]
        self.assertEqual(len(machine.nodes()), nodes or (2 if shape == "raw" else 1), machine.nodes())
        self.assertEqual(machine.monitor.execute("query-jobs"), [])
        objects = [item["name"] for item in machine.monitor.execute("qom-list", path="/objects")]
        self.assertEqual([name for name in objects if name.startswith("godwit")], [])


class Switching(Holding):
    def test_every_shape_of_disk(self):
        for shape, iothread in SHAPES:
            with self.subTest(shape=shape, iothread=iothread):
                self.begin_waiting()
                source, target = self.pair()
                machine = self.writing(source, shape=shape, iothread=iothread, direct=shape == "raw")
                hold = self.hold(machine, source, target)
                hold.prepare()
                self.assertEqual(machine.status(), "running")
                machine.gap(forget=True)
                hold.freeze()
                self.assertEqual(machine.status(), "paused")
                begin = time.monotonic()
                self.copy(source, target)
                copied = time.monotonic() - begin
                old = machine.disk()
                hold.switch()
                time.sleep(0.1)
                gap = machine.gap()
                self.assert_runs_at(machine, target)
                new = machine.disk()
                for key in ("cache", "detect_zeroes", "drv"):
                    self.assertEqual(old[key], new[key])
                self.assertEqual(source.watchers(), [])
                self.assert_right(machine, at=target, least=100)
                hold.thaw()  # nothing to let go any more
                self.assertEqual(machine.status(), "running")
                print(
                    f"\n{shape} iothread={iothread}: " + ", ".join(
                        f"{name} {value:.1f} ms" for name, value in hold.milliseconds.items())
                    + f"; write gap {gap * 1e3:.0f} ms, {copied * 1e3:.0f} ms of it the copy", end="")
                machine.close()

    def test_there_and_back_again(self):
        source, target = self.pair()
        machine = self.writing(source, shape="raw")
        for one, other in ((source, target), (target, source)):
            hold = self.hold(machine, one, other)
            hold.prepare()
            hold.freeze()
            other.remove()
            self.copy(one, other)
            hold.switch()
            self.assert_runs_at(machine, other)
            self.assert_right(machine)
            hold.close()
        self.assert_right(machine, at=source)

    def test_a_second_call_changes_nothing(self):
        source, target = self.pair()
        machine = self.writing(source)
        hold = self.hold(machine, source, target)
        hold.freeze()
        self.copy(source, target)
        hold.switch()
        disk = machine.disk()
        hold.switch()
        again = self.hold(machine, source, target)
        again.prepare()
        again.adopt()
        again.switch()
        self.assertEqual(machine.disk()["node-name"], disk["node-name"])
        self.assert_runs_at(machine, target)
        self.assert_right(machine, at=target)

    def test_a_vm_that_somebody_else_has_paused_stays_paused(self):
        source, target = self.pair()
        machine = self.writing(source)
        machine.monitor.execute("stop")
        hold = self.hold(machine, source, target)
        hold.prepare()
        hold.freeze()
        hold.thaw()
        self.assertEqual(machine.status(), "paused")
        hold.freeze()
        self.copy(source, target)
        hold.switch()
        self.assertEqual(machine.status(), "paused")
        self.assert_nothing_left(machine)
        machine.monitor.execute("cont")
        self.assert_runs_at(machine, target)
        self.assert_right(machine, at=target)

    def test_a_namespace_and_another_cache_mode(self):
        space = self.namespace("slow")
        source, target = self.pair(namespace=space)
        machine = self.writing(source, direct=False)
        hold = self.hold(machine, source, target)
        hold.prepare()
        hold.freeze()
        self.copy(source, target)
        hold.switch()
        self.assert_runs_at(machine, target)
        self.assertIn(f'"namespace": "{space}"', machine.disk()["image"]["filename"])
        self.assertFalse(machine.disk()["cache"]["direct"])
        self.assert_right(machine, at=target)

    def test_a_key_that_only_qemu_has(self):
        """As libvirt gives it: a secret by the node's name, and monitors rather than a configuration that names a key."""
        source, target = self.pair()
        ceph = source.cluster
        key = ceph.tool("ceph", "auth", "print-key", "client.admin").stdout.strip()
        monitor = ceph.tool("ceph", "mon", "dump", "--format", "json").json["mons"][0]["public_addrs"]["addrvec"][0]["addr"]
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as bare:
            bare.write(f"[global]\nmon host = v2:{monitor}\nkeyring = /nonexistent\n")
            bare.flush()
            node = rbd_node(
                "libvirt-1-storage", source.pool, source.name, conf=bare.name, user="admin",
                **{"key-secret": "libvirt-1-storage-auth-secret0"})
            machine = self.writing(
                source, nodes=[node, {"driver": "raw", "node-name": "libvirt-1-format", "file": "libvirt-1-storage"}],
                objects=[f"secret,id=libvirt-1-storage-auth-secret0,data={key}"])
            hold = self.hold(machine, source, target)
            hold.prepare()
            hold.freeze()
            self.copy(source, target)
            hold.switch()
            self.assert_runs_at(machine, target)
            self.assert_right(machine, at=target)

    def test_a_disk_made_by_drive(self):
        """Its nodes have no names of the operator's, and go with the last that uses them."""
        source, target = self.pair()
        machine = self.writing(source, drive=True)
        hold = self.hold(machine, source, target)
        hold.prepare()
        hold.freeze()
        self.copy(source, target)
        hold.switch()
        self.assert_runs_at(machine, target)
        self.assertEqual(source.watchers(), [])
        self.assert_right(machine, at=target)


class Failing(Holding):
    def test_a_target_that_is_missing_or_of_another_size(self):
        source, target = self.pair()
        machine = self.writing(source)
        hold = self.hold(machine, source, target)
        for size in (None, SIZE // 2, SIZE * 2):
            with self.subTest(size=size):
                if size is not None:
                    target.create(size)
                hold.prepare()
                hold.freeze()
                with self.assertRaises(HoldError) as caught:
                    hold.switch()
                self.assertIn("No such file" if size is None else "different sizes", str(caught.exception))
                self.assertEqual(machine.status(), "paused")
                self.assertEqual(machine.nodes(), ["disk"])
                hold.thaw()
                self.assert_runs_at(machine, source)
                target.remove()
        self.assert_right(machine, at=source)

    def test_a_vm_that_somebody_else_let_go_meanwhile(self):
        source, target = self.pair()
        machine = self.writing(source)
        hold = self.hold(machine, source, target)
        hold.freeze()
        self.copy(source, target)
        machine.monitor.execute("cont")
        for words in ("doesn't stand still", "has written since"):
            with self.assertRaises(HoldError) as caught:
                hold.switch()
            self.assertIn(words, caught.exception.reason)
            before = machine.info()["seq"]
            self.wait_until(lambda: machine.info()["seq"] > before + 20)
            machine.monitor.execute("stop")
        hold.thaw()
        self.assert_runs_at(machine, source)
        self.assert_right(machine, at=source)

    def test_thaw_of_one_that_was_never_frozen(self):
        source, target = self.pair()
        machine = self.writing(source)
        hold = self.hold(machine, source, target)
        hold.thaw()
        hold.adopt()
        hold.thaw()
        self.assert_runs_at(machine, source)

    def test_what_is_refused(self):
        source, target = self.pair()
        other = self.volume("fast", SIZE)
        rbd = {"conf": source.cluster.conf, "user": "admin"}
        node = rbd_node("disk", source.pool, source.name, **rbd)
        cases = {
            "has no disk fast/": dict(volume=other),
            "is read-only": dict(read_only=True, guest=False),
            "more than one disk": dict(disks=2),
            "is throttle over rbd": dict(nodes=[node, {"driver": "throttle", "node-name": "t", "file": "disk",
                                                      "throttle-group": "g"}], objects=["throttle-group,id=g"]),
            "is raw over rbd": dict(nodes=[node, {"driver": "raw", "node-name": "s", "file": "disk", "offset": 0,
                                                 "size": SIZE // 2}]),
            "open as 2 nodes": dict(nodes=[rbd_node("other", source.pool, source.name, **rbd), node]),
        }
        for words, options in cases.items():
            with self.subTest(words):
                self.begin_waiting()
                machine = self.boot(options.pop("volume", source), **options)
                hold = self.hold(machine, source, target)
                with self.assertRaises(HoldError) as caught:
                    hold.prepare()
                self.assertIn(words, caught.exception.reason)
                self.assertIn("--freeze exec:", caught.exception.advice)
                machine.close()

    def test_a_disk_that_an_export_or_a_job_uses(self):
        source, target = self.pair()
        machine = self.writing(source)
        hold = self.hold(machine, source, target)
        machine.monitor.execute(
            "nbd-server-start", addr={"type": "unix", "data": {"path": str(machine.folder / "nbd")}})
        machine.monitor.execute("block-export-add", type="nbd", id="e", node_name="disk", name="disk")
        with self.assertRaises(HoldError) as caught:
            hold.prepare()
        self.assertIn("also used by", caught.exception.reason)
        machine.monitor.execute("block-export-del", id="e", mode="hard")
        machine.monitor.wait_event("BLOCK_EXPORT_DELETED")
        hold.prepare()

    def test_a_target_that_qemu_cannot_reach(self):
        source, target = self.pair()
        machine = self.writing(source)
        for address, words in (
                (target.address + ":id=nobody", "Permission denied"), ("rbd:nopool/v", "nopool"),
                (target.address + ":conf=/nonexistent", "conf file"), (target.address + ":keyring=/k", "no keyring")):
            with self.subTest(words):
                hold = self.hold(machine, source, address)
                with self.assertRaises(HoldError) as caught:
                    hold.prepare()
                self.assertIn(words, caught.exception.reason)
        self.assert_runs_at(machine, source)


class Dying(Holding):
    """A run that ends at any command of a switch, and the next one."""

    def cuts(self):
        """How many commands a switch takes, and its names; by one that is let through."""
        source, target = self.pair()
        machine = self.writing(source, shape="raw")
        hold = self.hold(machine, source, target)
        hold.freeze()
        self.copy(source, target)
        with Proxy(str(machine.folder / "proxy"), machine.qmp) as proxy:
            self.hold(machine, source, target, socket=proxy.path).switch()
            return machine, source, target, proxy.commands

    def test_the_next_run_completes_it(self):
        machine, _, volume, commands = self.cuts()
        self.assert_runs_at(machine, volume)
        for number in range(1, len(commands)):
            for after in (False, True):
                with self.subTest(command=commands[number], number=number, after=after):
                    self.begin_waiting()
                    # On from pool to pool: the same VM serves for all.
                    source, volume = volume, self.target("fast" if volume.pool == "slow" else "slow")
                    with self.hold(machine, source, volume) as hold:
                        hold.prepare()
                        hold.freeze()
                    self.copy(source, volume)
                    self.die(machine, source, volume, number, after)
                    with self.hold(machine, source, volume) as again:
                        again.prepare()
                        again.adopt()
                        again.switch()
                    self.assert_runs_at(machine, volume)
                    self.assertEqual(source.watchers(), [])
                    source.remove()
        self.assert_right(machine, at=volume)

    def die(self, machine, source, target, number, after):
        with Proxy(str(machine.folder / "proxy"), machine.qmp, number, after) as proxy:
            hold = self.hold(machine, source, target, limit=5, socket=proxy.path)
            with self.assertRaises(HoldError):
                hold.switch()
            self.assertTrue(proxy.has_cut)
            hold.kill()

    def test_the_next_run_can_let_it_go_on_at_the_source(self):
        machine, source, target, commands = self.cuts()
        for number in range(1, commands.index("block-job-complete") + 1):
            for after in (False, True):
                with self.subTest(command=commands[number], number=number, after=after):
                    if commands[number] == "block-job-complete" and after:
                        continue
                    self.begin_waiting()
                    other = self.target("fast")
                    hold = self.hold(machine, target, other)
                    hold.freeze()
                    hold.kill()
                    self.copy(target, other)
                    self.die(machine, target, other, number, after)
                    self.assertEqual(machine.status(), "paused")
                    again = self.hold(machine, target, other)
                    again.adopt()
                    again.thaw()
                    self.assert_runs_at(machine, target)
                    again.close()
        self.assert_right(machine, at=target)

    def test_a_vm_that_is_at_the_target_cannot_go_on_at_the_source(self):
        machine, source, target, commands = self.cuts()
        other = self.target("fast")
        hold = self.hold(machine, target, other)
        hold.freeze()
        hold.kill()
        self.copy(target, other)
        self.die(machine, target, other, commands.index("cont"), False)
        again = self.hold(machine, target, other)
        again.adopt()
        with self.assertRaises(HoldError) as caught:
            again.thaw()
        self.assertIn("can't go on at", caught.exception.reason)
        self.assertEqual(machine.status(), "paused")
        again.switch()
        self.assert_runs_at(machine, other)

    def test_a_vm_that_has_ended(self):
        source, target = self.pair()
        machine = self.writing(source)
        hold = self.hold(machine, source, target, limit=5)
        hold.freeze()
        machine.kill()
        for call in (hold.freeze, hold.switch, hold.thaw, hold.prepare):
            with self.assertRaises(HoldError) as caught:
                call()
            self.assertIn("see whether the VM still runs", caught.exception.advice)

    def test_a_socket_that_somebody_else_uses(self):
        source, target = self.pair()
        machine = self.boot(source)
        hold = self.hold(machine, source, target, limit=1, socket=machine._own)
        with self.assertRaises(HoldError) as caught:
            hold.prepare()
        self.assertIn("one client at a time", caught.exception.advice)
