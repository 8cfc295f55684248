"""Debian's own kernel made ready for QEMU, out of its package and without installing it.

    python -m pyminuteman.testing.qemu_kernel LINUX_IMAGE.deb BUSYBOX_STATIC.deb

makes the directory that `directory` names: `vmlinux`, `initrd`, and of `lib/modules` what tests of
networks use. Nothing of the machine's own /boot and /lib/modules is touched or needed.
"""

from __future__ import annotations

import argparse
import lzma
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence

#: Programs that `prepare` starts.
PROGRAMS = ("dpkg-deb", "depmod")
_WANTED = re.compile(
    r"(?:boot/vmlinuz-[^/]+"
    r"|(?:usr/)?lib/modules/[^/]+/(?:modules\..*|kernel/(?:net|lib|crypto|arch|fs/(?:9p|netfs|fscache)|drivers/(?:virtio|net/(?:vxlan|ipvlan|[^/]+\.ko)))(?:/.*)?)"
    r"|(?:usr/)?bin/busybox)"
)
# What it takes to see the host's files; the rest is loaded from there.
_FIRST_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
#: Mount tag of the host's root, and how it is mounted: the host's files do not change while a guest
#: looks, or may at least be seen as they were.
ROOT_TAG = "hostroot"
MOUNT_9P = "trans=virtio,version=9p2000.L,msize=524288"
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t 9p -o ro,{options},cache=loose {tag} /newroot
exec /bin/busybox switch_root /newroot $guest_dir/init
"""


class UnusablePackageError(ValueError):
    """A package does not have what it should; the text says what."""


def directory() -> pathlib.Path:
    """Where the kernel is: $PMM_QEMU_KERNEL, or in .cache beside this package."""
    named = os.environ.get("PMM_QEMU_KERNEL")
    return pathlib.Path(named) if named else pathlib.Path(__file__).parents[2] / ".cache" / "qemu-kernel"


def prepare(packages: Sequence[pathlib.Path], into: pathlib.Path) -> str:
    """Make `into` anew from a kernel's package and busybox's; returns the kernel's release.

    Raises:
        UnusablePackageError: they do not have a kernel, its modules, or busybox.
        OSError: `into` cannot be written, or a program of PROGRAMS cannot be started.
        subprocess.CalledProcessError: one of these failed.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{into.name}-", dir=into.parent) as made:
        here = pathlib.Path(made, "new")
        here.mkdir()
        for package in packages:
            _unpack(package, here)
        (image,) = _found(here, "boot/vmlinuz-*")
        (busybox,) = _found(here, "bin/busybox")
        (modules,) = _found(here, "lib/modules/*")
        subprocess.run(["depmod", "-b", here, modules.name], check=True, env=os.environ | {"PATH": _path()})  # noqa: S603, S607
        needed = load_order((modules / "modules.dep").read_text(encoding="ascii"), _FIRST_MODULES)
        (here / "initrd").write_bytes(initrd(busybox.read_bytes(), {name: (modules / name).read_bytes() for name in needed}))
        (here / "vmlinux").write_bytes(uncompressed(image.read_bytes()))
        shutil.rmtree(here / "boot")
        shutil.rmtree(here / "bin")
        if into.exists():
            into.rename(pathlib.Path(made, "old"))
        here.rename(into)
    return modules.name


def uncompressed(image: bytes) -> bytes:
    """The ELF file in a bzImage, which saves the guest two seconds; the image itself if it is packed by other means than xz.

    The header is that of Documentation/arch/x86/boot.rst in Linux: setup_sects at 0x1f1, "HdrS" at 0x202, the payload's offset
    and length at 0x248. The payload ends with its uncompressed length in four bytes.
    """
    if image[0x202:0x206] != b"HdrS":
        raise UnusablePackageError("the kernel is no bzImage of x86")
    start = ((image[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[start + offset :][: length - 4]
    if not payload.startswith(b"\xfd7zXZ\0"):
        return image
    try:
        return lzma.decompress(payload)
    except lzma.LZMAError as error:
        raise UnusablePackageError(f"the kernel cannot be unpacked: {error}") from error


def load_order(dependencies: str, names: Sequence[str]) -> list[str]:
    """The files of modules, in an order in which they can be loaded.

    Args:
        dependencies: The text of modules.dep, where each file is followed by what it needs, which is to be loaded from the last
            to the first.
        names: Modules by name. Those that are not in the text are built into the kernel.
    """
    needs = dict(line.split(":", 1) for line in dependencies.splitlines())
    files = {pathlib.PurePath(file).name.partition(".")[0].replace("-", "_"): file for file in needs}
    wanted = [files[name] for name in names if name in files]
    return list(dict.fromkeys(each for file in wanted for each in (*reversed(needs[file].split()), file)))


def initrd(busybox: bytes, modules: dict[str, bytes]) -> bytes:
    """An archive that loads these modules, in their order, and goes on from the host's files: an uncompressed cpio of kind "newc"."""
    names = {pathlib.PurePath(file).name: data for file, data in modules.items()}
    init = _INIT.format(modules=" ".join(names), options=MOUNT_9P, tag=ROOT_TAG)
    entries = [(name, 0o40755, b"") for name in ("bin", "dev", "modules", "newroot")]
    entries += [("init", 0o100755, init.encode("ascii")), ("bin/busybox", 0o100755, busybox)]
    entries += [(f"modules/{name}", 0o100644, data) for name, data in names.items()]
    archive = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        # Inode, mode, owner, group, links, time, size, device and its numbers (4), length of the name, checksum.
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        for part in (b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode("ascii") + b"\0", data):
            archive += part + bytes(-len(archive + part) % 4)
    return bytes(archive)


def _unpack(package: pathlib.Path, here: pathlib.Path) -> None:
    """What is _WANTED of a package, below `here` without usr/."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,  # noqa: S603
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            member.name = member.name.removeprefix("./")
            if member.isfile() and _WANTED.fullmatch(member.name):
                member.name = member.name.removeprefix("usr/")
                archive.extract(member, here, filter="data")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _found(here: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    found = list(here.glob(pattern))
    if len(found) != 1:
        raise UnusablePackageError(f"{len(found)} of {pattern} in these packages, where one was expected")
    return found


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line (see the top of this file); returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pyminuteman.testing.qemu_kernel")
    parser.add_argument("packages", nargs="+", type=pathlib.Path, metavar="PACKAGE.deb")
    try:
        release = prepare(parser.parse_args(arguments).packages, directory())
    except (UnusablePackageError, OSError, subprocess.CalledProcessError, tarfile.TarError) as error:
        parser.exit(1, f"kernel for QEMU: {error}\n")
    print(f"kernel for QEMU: {release} in {directory()}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
