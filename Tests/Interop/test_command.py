"""What `godwit export` takes and says."""

import os
import signal
import unittest

from serving import GODWIT, NBDSH, SIZE, FileVolume, ServingTest, run


class CommandTests(ServingTest):
    def test_several_exports(self):
        second = FileVolume(self.folder)
        server, uris = self.serve(
            self.volume.address, second.address, "--name", "one", "--name", "two/3", "--listen", f"unix:{self.socket}",
            count=2)
        self.assertEqual(uris, [f"nbd+unix:///{name}?socket={self.socket}" for name in ("one", "two%2F3")])
        for uri in uris:
            self.assertEqual(run("nbdinfo", "--size", uri).strip(), str(SIZE))
        run(*NBDSH, "--uri", uris[1], "--command", "h.pwrite(b'two', 0)")
        self.end(server)
        self.assertEqual(second.bytes()[:3], b"two")
        self.assertEqual(self.volume.bytes()[:3], bytes(3))

    def test_names_that_clash(self):
        (self.folder / "other").mkdir()
        other = self.folder / "other" / self.volume.name
        other.touch()
        self.assertIn("give --name for each", run(GODWIT, "export", self.volume.address, other, rc=64))
        self.assertIn("2 volumes and 1 names", run(
            GODWIT, "export", self.volume.address, other, "--name", "a", rc=64))

    def test_tcp(self):
        server, (uri,) = self.serve(self.volume.address, "--listen", "127.0.0.1:0")
        self.assertRegex(uri, r"^nbd://127\.0\.0\.1:[1-9][0-9]*/")
        self.assertEqual(run("nbdinfo", "--size", uri).strip(), str(SIZE))
        server.end()
        refused = run(GODWIT, "export", self.volume.address, "--listen", "0.0.0.0:0", rc=77)
        self.assertIn("--insecure", refused)
        server, (uri,) = self.serve(self.volume.address, "--listen", "0.0.0.0:0", "--insecure")
        self.assertEqual(run("nbdinfo", "--size", uri.replace("0.0.0.0", "127.0.0.1")).strip(), str(SIZE))
        server.end()

    def test_a_killed_server_leaves_room_for_the_next(self):
        server, _ = self.export()
        server.end(signal.SIGKILL)
        self.assertTrue(self.socket.exists())
        server, uri = self.export()
        self.assertEqual(run("nbdinfo", "--size", uri).strip(), str(SIZE))
        refused = run(GODWIT, "export", self.volume.address, "--read-only", "--listen", f"unix:{self.socket}", rc=73)
        self.assertIn("there already", refused)
        self.end(server)

    def test_a_place_of_its_own(self):
        directory = self.folder / "run"
        os.environ["GODWIT_RUNTIME_DIR"] = str(directory)
        self.addCleanup(os.environ.pop, "GODWIT_RUNTIME_DIR")
        server, (uri,) = self.serve(self.volume.address)
        self.assertEqual(run("nbdinfo", "--size", uri).strip(), str(SIZE))
        self.assertEqual(len(list(directory.iterdir())), 1)
        server.end()
        self.assertEqual(list(directory.iterdir()), [])

    def test_no_such_volume(self):
        self.assertIn("No such file", run(GODWIT, "export", self.folder / "nothing", rc=66))
        self.assertIn("unix:PATH or HOST:PORT", run(GODWIT, "export", self.volume.address, "--listen", "here", rc=64))


if __name__ == "__main__":
    unittest.main()
