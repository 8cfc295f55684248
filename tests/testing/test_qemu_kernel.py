"""A kernel's package made ready for QEMU: what is taken of it, and what it is refused for. No QEMU is needed."""

from __future__ import annotations

import lzma
import pathlib
import shutil
import struct
import subprocess

import pytest

from pyminuteman.testing import qemu_kernel
from pyminuteman.testing.qemu_kernel import UnusablePackageError, initrd, load_order, uncompressed
from tests.support.tools import tool

VMLINUX = b"\x7fELF" + bytes(range(256)) * 40
DEPENDENCIES = """kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko kernel/fs/netfs/netfs.ko
kernel/fs/netfs/netfs.ko:
kernel/fs/fscache/fscache.ko: kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet.ko:
kernel/drivers/virtio/virtio-pci.ko.xz:
"""


def image(payload: bytes, setup_sectors: int = 4) -> bytes:
    """A bzImage with a payload at 0x40 of what follows the set-up code."""
    head = bytearray(((setup_sectors or 4) + 1) * 512)
    head[0x1F1], head[0x202:0x206] = setup_sectors, b"HdrS"
    struct.pack_into("<II", head, 0x248, 0x40, len(payload) + 4)
    return bytes(head) + bytes(0x40) + payload + struct.pack("<I", len(VMLINUX)) + bytes(100)


@pytest.mark.parametrize("setup_sectors", [0, 4, 27])
def test_the_kernel_is_unpacked(setup_sectors: int) -> None:
    assert uncompressed(image(lzma.compress(VMLINUX), setup_sectors)) == VMLINUX


def test_a_kernel_that_is_packed_by_other_means_stays_as_it_is() -> None:
    packed = image(b"\x28\xb5\x2f\xfd zstd, say")
    assert uncompressed(packed) == packed


@pytest.mark.parametrize(
    ("wrong", "why"), [(b"\x7fELF" + bytes(2000), "no bzImage"), (b"", "no bzImage"), (image(lzma.compress(VMLINUX)[:-9]), "cannot be unpacked")]
)  # fmt: skip
def test_what_is_no_kernel_is_refused(wrong: bytes, why: str) -> None:
    with pytest.raises(UnusablePackageError, match=why):
        uncompressed(wrong)


def test_modules_come_after_what_they_need_and_once() -> None:
    order = [file.rpartition("/")[2] for file in load_order(DEPENDENCIES, ["virtio_pci", "9p", "built_in", "netfs"])]
    assert order == ["virtio-pci.ko.xz", "netfs.ko", "fscache.ko", "9pnet.ko", "9p.ko"]


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content of an archive's files by name, read as cpio(5) describes the new ASCII format."""
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n :][:8], 16) for n in range(13)]
        name_at = at + 110
        name = archive[name_at : name_at + fields[11] - 1].decode()
        data_at = -(-(name_at + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            assert len(archive) == data_at
            return found
        found[name] = (fields[1], archive[data_at : data_at + fields[6]])
        at = -(-(data_at + fields[6]) // 4) * 4


def test_the_archive_is_a_cpio() -> None:
    shell = b"#!busybox\n" * 33
    found = entries(initrd(shell, {"kernel/fs/netfs.ko": b"odd", "kernel/9p.ko": b"12345678"}))
    mode, script = found.pop("init")
    assert mode == 0o100755
    assert b"for module in netfs.ko 9p.ko;" in script
    assert {name for name, (mode, _) in found.items() if mode == 0o40755} == {"bin", "dev", "modules", "newroot"}
    assert found["bin/busybox"] == (0o100755, shell)
    assert (found["modules/netfs.ko"][1], found["modules/9p.ko"][1]) == (b"odd", b"12345678")


def package(directory: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    """A Debian package with these files."""
    root = directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    control = "Package: some-thing\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: none\n"
    for name, data in ({"DEBIAN/control": control.encode()} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    made = directory / f"{len(list(directory.iterdir()))}.deb"
    subprocess.run(
        [tool("dpkg-deb", "dpkg"), "--root-owner-group", "-b", str(root), str(made)], check=True, capture_output=True
    )
    return made


def test_packages_become_a_directory_and_replace_the_one_before(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("depmod", "kmod")
    modules = "lib/modules/6.1.0-1-amd64"
    kernel = package(tmp_path, {
        "boot/vmlinuz-6.1.0-1-amd64": image(lzma.compress(VMLINUX)),
        f"{modules}/kernel/net/netfilter/ipvs/ip_vs.ko": b"",
        f"{modules}/kernel/drivers/gpu/huge.ko": b"not wanted",
        f"{modules}/modules.order": b"",
        f"{modules}/modules.builtin": b"",
    })  # fmt: skip
    busybox = package(tmp_path, {"usr/bin/busybox": b"the shell", "usr/share/doc/busybox": b"not wanted"})
    into = tmp_path / "cache" / "kernel"
    monkeypatch.setenv("PMM_QEMU_KERNEL", str(into))
    into.mkdir(parents=True)
    (into / "old").touch()
    assert qemu_kernel.main([str(kernel), str(busybox)]) == 0
    assert sorted(path.name for path in into.iterdir()) == ["initrd", "lib", "vmlinux"]
    assert (into / "vmlinux").read_bytes() == VMLINUX
    assert {path.name for path in into.rglob("*.ko")} == {"ip_vs.ko"}
    assert [path.name for path in into.parent.iterdir()] == ["kernel"]
    with pytest.raises(SystemExit):
        qemu_kernel.main([str(busybox)])
    assert (into / "vmlinux").exists()


def test_a_package_that_cannot_be_used_is_an_error_and_no_traceback(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PMM_QEMU_KERNEL", str(tmp_path / "kernel"))
    (tmp_path / "no.deb").write_bytes(b"this is no package")
    for wrong in ("no.deb", "missing.deb"):
        with pytest.raises(SystemExit):
            qemu_kernel.main([str(tmp_path / wrong)])
        assert capsys.readouterr().err.count("kernel for QEMU: ") == 1
    with pytest.raises(SystemExit):
        qemu_kernel.main([str(package(tmp_path, {"usr/bin/busybox": b"x"}))])
    assert "0 of boot/vmlinuz-*" in capsys.readouterr().err
