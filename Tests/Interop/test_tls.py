"""NBD under TLS: others' clients at `godwit export --tls`, and Godwit at others' servers."""

import json
import pathlib
import re
import shutil
import subprocess
import unittest

import nbd

from servers import Server, connect_tcp, free_port, nbdkit
from receiving import Process
from serving import GODWIT, SIZE, ServingTest, noise, run

OPERATIONS = pathlib.Path(__file__).parents[2] / "Docs" / "Operations.md"
QEMU_PRIORITIES = "NORMAL:-VERS-ALL:+VERS-TLS"


def documented_certificates(folder):
    """Does what Docs/Operations.md says, as it stands there: makes ca, server and client."""
    chapter = OPERATIONS.read_text().split("## Certificates for TLS", 1)[1]
    commands = re.search(r"```\n(.*?)```", chapter, re.DOTALL)[1]
    subprocess.run(["sh", "-e", "-c", commands], cwd=folder, check=True, capture_output=True)


class TLSTest(ServingTest):
    def setUp(self):
        super().setUp()
        documented_certificates(self.folder)
        self.server, self.client = self.folder / "server", self.folder / "client"
        # One that trusts the server, and can show nothing.
        self.stranger = self.folder / "stranger"
        self.stranger.mkdir()
        shutil.copy(self.client / "ca-cert.pem", self.stranger)
        # One of another CA, which trusts the server all the same.
        self.impostor = self.folder / "impostor"
        self.impostor.mkdir()
        documented_certificates(self.impostor)
        self.impostor /= "client"
        shutil.copy(self.client / "ca-cert.pem", self.impostor)

    def known(self, uri, folder=None):
        """The URI with a client's certificates."""
        return uri + ("&" if "?" in uri else "?") + f"tls-certificates={folder or self.client}"


class OurServer(TLSTest):
    def export_tcp(self, *arguments):
        server, (uri,) = self.serve(
            self.volume.address, "--listen", "0.0.0.0:0", "--tls", self.server, *arguments)
        self.assertRegex(uri, r"^nbds://0\.0\.0\.0:[0-9]+/")
        return server, uri.replace("0.0.0.0", "localhost")

    def qemu(self, uri, folder, **more):
        """The arguments of QEMU's tools for an export."""
        port = re.search(r":([0-9]+)/", uri)[1]
        creds = {"id": "t", "endpoint": "client", "dir": folder, **more}
        image = {
            "driver": "nbd", "server.type": "inet", "server.host": "localhost", "server.port": port,
            "export": self.volume.name, "tls-creds": "t"}
        return ["--object", "tls-creds-x509," + ",".join(f"{k}={v}" for k, v in creds.items()), "--image-opts",
                ",".join(f"{k}={v}" for k, v in image.items())]

    def test_libnbd(self):
        server, uri = self.export_tcp()
        uri = self.known(uri)
        found = json.loads(run("nbdinfo", "--json", uri))
        self.assertTrue(found["TLS"])
        self.assertEqual(found["exports"][0]["export-size"], SIZE)
        local, back = self.file(noise(SIZE)), self.folder / "back"
        run("nbdcopy", "--connections=4", "--flush", local, uri)
        run("nbdcopy", "--connections=4", uri, back)
        self.assertEqual(back.read_bytes(), local.read_bytes())
        server.end()
        self.assertEqual(self.volume.bytes(), local.read_bytes())

    def test_unix(self):
        server, uri = self.export("--tls", self.server)
        self.assertEqual(uri, f"nbds+unix:///{self.volume.name}?socket={self.socket}")
        self.assertEqual(run("nbdinfo", "--size", self.known(uri)).strip(), str(SIZE))
        self.end(server)

    def test_qemu(self):
        server, uri = self.export_tcp()
        local, back = self.file(noise(SIZE)), self.folder / "back"
        run("qemu-img", "convert", "-n", "-f", "raw", local, "--target-image-opts",
            *[word for word in self.qemu(uri, self.client) if word != "--image-opts"])
        run("qemu-img", "convert", *self.qemu(uri, self.client), "-O", "raw", back)
        self.assertEqual(back.read_bytes(), local.read_bytes())
        server.end()

    def test_versions(self):
        server, uri = self.export_tcp()
        for version in ("1.2", "1.3"):
            run("qemu-img", "info", *self.qemu(uri, self.client, priority=QEMU_PRIORITIES + version))
        for version in ("1.0", "1.1"):
            run("qemu-img", "info", *self.qemu(uri, self.client, priority=QEMU_PRIORITIES + version), rc=1)
            self.wait_until(lambda: "no version of TLS that both ends speak" in server.errors())
        server.end()

    def test_who_is_let_in(self):
        server, uri = self.export_tcp()
        run("nbdinfo", self.known(uri, self.stranger), rc=1)
        self.wait_until(lambda: "it has shown no certificate" in server.errors())
        run("nbdinfo", self.known(uri, self.impostor), rc=1)
        self.wait_until(lambda: "its certificate is by no CA" in server.errors())
        run("qemu-img", "info", *self.qemu(uri, self.impostor), rc=1)
        self.assertIn("TLS", run("nbdinfo", uri.replace("nbds://", "nbd://"), rc=1))
        self.assertEqual(run("nbdinfo", "--size", self.known(uri)).strip(), str(SIZE))
        server.end()

    def test_everybody_is_let_in_where_that_was_asked_for(self):
        server, uri = self.export_tcp("--tls-no-verify-peer")
        for folder in (self.stranger, self.impostor):
            self.assertEqual(run("nbdinfo", "--size", self.known(uri, folder)).strip(), str(SIZE))
        run("nbdinfo", uri.replace("nbds://", "nbd://"), rc=1)
        server.end()

    def test_what_is_refused_at_the_start(self):
        listen = "--listen", "127.0.0.1:0"
        self.assertIn("--tls", run(GODWIT, "export", self.volume.address, "--listen", "0.0.0.0:0", rc=77))
        self.assertIn("give one of them", run(
            GODWIT, "export", self.volume.address, *listen, "--tls", self.server, "--insecure", rc=64))
        self.assertIn("give --tls", run(GODWIT, "export", self.volume.address, *listen, "--tls-no-verify-peer", rc=64))
        key = self.server / "server-key.pem"
        key.chmod(0o644)
        said = run(GODWIT, "export", self.volume.address, *listen, "--tls", self.server, rc=77)
        self.assertIn(f"chmod o= {key}", said)
        key.unlink()
        self.assertIn(str(key), run(GODWIT, "export", self.volume.address, *listen, "--tls", self.server, rc=73))
        self.assertIn("no such folder", run(
            GODWIT, "export", self.volume.address, *listen, "--tls", self.folder / "none", rc=73))


class Receiving(TLSTest):
    """A move to a receiver of another host, as far as it can tell."""

    def test_a_move(self):
        far = self.folder / "far"
        far.mkdir()
        receiver = Process(
            self, "receive", "--listen", "0.0.0.0:0", "--tls", self.server, "--allow", f"file:{far}")
        line = receiver.line()
        self.assertRegex(line, r"^listening on godwits://0\.0\.0\.0:[1-9][0-9]*/$")
        where = line.removeprefix("listening on ").replace("0.0.0.0", "localhost")
        source, move = self.file(noise(SIZE)), (GODWIT, "migrate", "--progress", "none")
        target = f"{where}file:{far}/v"
        for folder, said in (self.stranger, "client-cert.pem"), (self.impostor, "the one that client-cert.pem"):
            self.assertIn(said, run(*move, source, self.known(target, folder), rc=77))
        self.assertIn("godwits://", run(*move, source, target.replace("godwits", "godwit"), rc=77))
        self.assertEqual(list(far.iterdir()), [])
        run(*move, source, self.known(target), "--connections", "4", "--verify")
        self.assertEqual((far / "v").read_bytes(), source.read_bytes())
        self.assertEqual(receiver.end(), 0)
        self.assertIn("it has shown no certificate", receiver.said())


class OurClient(TLSTest):
    def start(self, function, *words, **options):
        server = function(str(self.folder), *map(str, words), **options)
        self.addCleanup(server.kill)
        return server

    def nbdkit(self, *words):
        server = self.start(nbdkit, *words, "memory", str(SIZE))
        return server.address.replace("nbd+unix", "nbds+unix")

    def qemu_nbd(self, disk):
        """Over TCP, as QEMU's tools had TLS first."""
        port = free_port()
        server = Server(
            str(self.folder), "qemu-nbd", [
                "qemu-nbd", "--persistent", "--shared=8", "--bind=127.0.0.1", f"--port={port}", "--format=raw",
                "--object", f"tls-creds-x509,id=t,endpoint=server,dir={self.server},verify-peer=yes", "--tls-creds=t",
                str(disk)], f"nbds://localhost:{port}")
        self.addCleanup(server.kill)
        return server.wait(connect_tcp(port)).address

    def move(self, uri):
        """There and back."""
        local, back = self.file(noise(SIZE)), self.folder / "moved"
        run(GODWIT, "migrate", local, uri, "--verify", "--overwrite")
        run(GODWIT, "migrate", uri, back, "--verify")
        self.assertEqual(back.read_bytes(), local.read_bytes())
        back.unlink()

    def test_nbdkit(self):
        self.move(self.known(self.nbdkit("--tls=require", f"--tls-certificates={self.server}", "--tls-verify-peer")))

    def test_qemu_nbd(self):
        uri = self.qemu_nbd(self.file(bytes(SIZE), "disk"))
        self.move(self.known(uri))
        self.move(self.known(uri.replace("localhost", "127.0.0.1")))

    def test_who_isnt_let_in(self):
        uri = self.nbdkit("--tls=require", f"--tls-certificates={self.server}", "--tls-verify-peer")
        for folder in (self.stranger, self.impostor):
            self.assertIn("client-cert.pem", run(GODWIT, "map", self.known(uri, folder), rc=77))
        self.assertIn("nbds+unix://", run(GODWIT, "map", uri.replace("nbds+", "nbd+"), rc=77))

    def test_who_isnt_believed(self):
        uri = self.nbdkit("--tls=require", f"--tls-certificates={self.server}")
        other = self.folder / "other"
        other.mkdir()
        documented_certificates(other)
        self.assertIn("by no CA", run(GODWIT, "map", self.known(uri, other / "client"), rc=77))
        self.assertIn("for storage-2.example", run(GODWIT, "map", self.known(uri) + "&tls-hostname=storage-2.example", rc=77))
        run(GODWIT, "map", self.known(uri) + "&tls-hostname=storage-1.example")
        run(GODWIT, "map", self.known(uri, other / "client") + "&tls-verify-peer=false")

    def test_there_is_no_way_down(self):
        self.assertIn("refused TLS", run(GODWIT, "map", self.known(self.nbdkit("--tls=off")), rc=66))


class Proxy(TLSTest):
    def test_a_server_in_clear_is_served_under_tls(self):
        behind = nbdkit(str(self.folder), "memory", str(SIZE))
        self.addCleanup(behind.kill)
        server, (uri,) = self.serve(
            behind.address, "--listen", f"unix:{self.socket}", "--tls", self.server, "--name", "v")
        local, back = self.file(noise(SIZE)), self.folder / "back"
        run("nbdcopy", "--flush", local, self.known(uri))
        run("nbdcopy", self.known(uri), back)
        self.assertEqual(back.read_bytes(), local.read_bytes())
        run("nbdcopy", behind.address, back)
        self.assertEqual(back.read_bytes(), local.read_bytes())
        handle = run("nbdinfo", "--json", self.known(uri))
        self.assertTrue(json.loads(handle)["exports"][0]["can_trim"])
        self.end(server)


class Moving(TLSTest):
    def test_a_volume_is_moved_beneath_a_client_under_tls(self):
        target = self.folder / "target"
        words = "migrate", "--live", "--progress", "none", "--export-name", "v", "--export", "0.0.0.0:0"
        self.assertIn("--tls", run(GODWIT, *words, self.volume.address, target, rc=77))
        self.assertFalse(target.exists())
        # It takes some seconds, in which the client comes.
        self.volume.path.write_bytes(noise(SIZE, seed=2))
        move = Process(self, *words, "--tls", self.server, "--bandwidth", "8M", self.volume.address, target)
        self.wait_until(lambda: "serving at nbds://" in move.said(), 60)
        uri = re.search(r"nbds://\S+", move.said())[0].replace("0.0.0.0", "localhost")
        for folder in (self.stranger, self.impostor):
            run("nbdinfo", self.known(uri, folder), rc=1)
        run("nbdinfo", uri.replace("nbds://", "nbd://"), rc=1)
        client = nbd.NBD()
        client.set_uri_allow_local_file(True)
        client.connect_uri(self.known(uri))
        self.assertNotIn("its clients are at the target", move.said())
        self.assertTrue(client.get_tls_negotiated())
        data = noise(SIZE)
        for start in range(0, SIZE, 1 << 20):
            client.pwrite(data[start:start + (1 << 20)], start)
        self.wait_until(lambda: "its clients are at the target" in move.said() or move.process.poll() is not None, 60)
        self.assertIsNone(move.process.poll(), move.said())
        self.assertEqual(client.pread(1 << 20, 5 << 20), data[5 << 20:6 << 20])
        client.pwrite(b"after", 9)
        client.flush()
        client.shutdown()
        self.assertEqual(move.process.wait(30), 0, move.said())
        self.assertEqual(target.read_bytes(), data[:9] + b"after" + data[14:])


if __name__ == "__main__":
    unittest.main()
