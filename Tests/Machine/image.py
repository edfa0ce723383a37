"""Builds what the test VM boots: Debian's cloud kernel, and an initramfs with guest.c as its only program.

The kernel's package is downloaded and unpacked, never installed. What was built is kept in a folder
(GODWIT_MACHINE_DIR, or .build/machine) and built again when guest.c or the kernel has changed.
"""

import fcntl
import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
MODULES = ("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
METAPACKAGE = "linux-image-cloud-amd64"


def folder():
    return pathlib.Path(os.environ.get("GODWIT_MACHINE_DIR") or HERE.parents[1] / ".build/machine")


def run(*command, timeout=300, **options):
    result = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=timeout, text=True, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit status {result.returncode}\n{result.stdout}")
    return result.stdout


def download_kernel(into):
    """Unpacks the package that the metapackage stands for; into/boot and into/lib/modules have what is needed."""
    depends = run("apt-cache", "depends", METAPACKAGE)
    names = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line]
    if not names:
        raise RuntimeError(f"apt-cache knows no {METAPACKAGE} (apt-get update may help):\n{depends}")
    with tempfile.TemporaryDirectory(prefix="godwit-kernel-") as scratch:
        os.chmod(scratch, 0o755)
        run("apt-get", "download", names[0], cwd=scratch)
        package = next(pathlib.Path(scratch).glob("*.deb"))
        run("dpkg-deb", "--extract", package, into)


def cpio(files):
    """An archive as the kernel takes it (Documentation/driver-api/early-userspace/buffer-format.rst, "newc").

    :param files: (name, mode, content), a folder before what is in it
    """
    archive = bytearray()
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def build():
    """:returns: the paths of the kernel and of the initramfs"""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernels = place / "kernel"
        if not list(kernels.glob("boot/vmlinuz-*")):
            shutil.rmtree(kernels, ignore_errors=True)
            unpacked = place / "kernel.unpacked"
            shutil.rmtree(unpacked, ignore_errors=True)
            unpacked.mkdir()
            download_kernel(unpacked)
            unpacked.rename(kernels)
        kernel = next(kernels.glob("boot/vmlinuz-*"))
        source = HERE / "guest.c"
        state = hashlib.sha256(source.read_bytes() + kernel.name.encode() + pathlib.Path(__file__).read_bytes()).hexdigest()
        archive = place / f"initramfs-{state[:16]}.gz"
        if not archive.exists():
            binary = place / "init"
            run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", binary, source)
            found = {path.name.split(".")[0]: path for path in kernels.glob("**/virtio*.ko")}
            missing = [name for name in MODULES if name not in found]
            if missing:
                raise RuntimeError(f"{kernel.name} has no modules {', '.join(missing)}, or packs them")
            content = cpio([
                ("dev", 0o040755, b""), ("modules", 0o040755, b""), ("init", 0o100755, binary.read_bytes()),
                *((f"modules/{name}.ko", 0o100644, found[name].read_bytes()) for name in MODULES)])
            partial = archive.with_suffix(".partial")
            partial.write_bytes(gzip.compress(content, 6, mtime=0))
            for old in place.glob("initramfs-*.gz"):
                old.unlink()
            partial.rename(archive)
        return kernel, archive


if __name__ == "__main__":
    for path in build():
        print(path)
