"""Run a command as root on Debian's own kernel, in QEMU, without being root: `kernel_guest` on a second kernel.

    python -m pyminuteman.testing.qemu_guest [--mem 1G] [--rw DIR]... [--timeout S] [--cpus N] -- CMD ARG...

It has what user-mode-linux lacks: several CPUs, and nftables. The processor is emulated (no rights or hardware are needed for
that), so that a guest takes three seconds to boot and then computes at a tenth of the host's speed.
"""

from __future__ import annotations

import os
import pathlib
import platform
import socket
import sys
from collections.abc import Sequence
from typing import Unpack

from pyminuteman.testing import guest as any_guest
from pyminuteman.testing import guest_init, guest_processes, qemu_kernel
from pyminuteman.testing.guest import AnyGuest, CompletedGuest, Options, Started

#: Where the command finds the two-way stream of `Guest.run(channel=...)` and `Guest.send`.
CHANNEL = "/dev/ttyS3"
#: Loaded at boot.
MODULES = (
    *any_guest.MODULES,
    *("nf_tables", "nft_compat", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_reject_inet", "nft_fib_inet"),
    *("xt_addrtype", "xt_nat", "xt_tcpudp", "xt_set", "ip6table_filter", "ipt_REJECT", "ip6t_REJECT", "br_netfilter"),
)
_PROGRAM = "qemu-system-x86_64"
_MACHINE = (
    *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults", "-no-user-config"),
    *("-display", "none", "-no-reboot"),
)
# A panic ends QEMU at once (-no-reboot). Nothing is to be learnt about clocks, speculation or disks.
_BOOT_OPTIONS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr audit=0 raid=noautodetect"
)
_CACHED, _PLAIN = f"{qemu_kernel.MOUNT_9P},cache=loose", f"{qemu_kernel.MOUNT_9P},cache=none"
# What udev would have made: `nft -f -` opens /dev/stdin, for one.
_DEVICES = """ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout; ln -s fd/2 /dev/stderr"""


def available() -> str | None:
    """None when a guest can be booted here, else the reason why not, with the cure."""
    missing = any_guest.missing_programs(_PROGRAM, "setpriv")
    kernel = qemu_kernel.directory()
    missing += [str(kernel / name) for name in ("vmlinux", "initrd", "lib/modules") if not (kernel / name).exists()]
    if missing:
        return f"no guest in QEMU: no {', '.join(missing)} (try: tools/install.sh qemu)"
    if platform.machine() != "x86_64":
        return "no guest in QEMU: the host's programs are to run in it, which has an x86_64 processor"
    return None


class Guest(AnyGuest):
    """A command on Debian's kernel in QEMU: see `AnyGuest`. Its kernel is as `qemu_kernel` made it."""

    def __init__(self, command: Sequence[str], *, cpus: int = 2, **options: Unpack[Options]) -> None:
        """Plan a guest.

        Args:
            command: The program and its arguments; run as root, input from /dev/null.
            cpus: How many it has, from 1 to 8; each is a thread of QEMU.
            options: Those of `AnyGuest`, and its errors.

        Raises:
            ValueError: `cpus` is none of these.
        """
        if not 1 <= cpus <= 8:  # noqa: PLR2004 (said above)
            raise ValueError(f"cpus={cpus}: want 1 to 8")
        super().__init__(command, **({"modules": MODULES} | options))
        self._cpus = cpus
        self._tags = {directory: f"rw{n}" for n, (directory, writable) in enumerate(self._binds.items()) if writable}

    def why_unavailable(self) -> str | None:
        """See `available`."""
        return available()

    def _platform(self, run_dir: pathlib.Path) -> guest_init.Platform:
        return guest_init.Platform(
            ttys=("/dev/ttyS1", "/dev/ttyS2", CHANNEL),
            modules_directory=str(qemu_kernel.directory().resolve() / "lib/modules"),
            first_mounts=["dev /dev devtmpfs mode=0755"],
            # Bound without what is mounted below it: the host's /tmp is still there.
            mounts=[f"/ {guest_init.HOST} none bind,X-mount.mkdir"],
            sources={directory: (tag, "9p", _CACHED) for directory, tag in self._tags.items()}
            | {str(run_dir): ("run", "9p", _PLAIN)},
            prepare=_DEVICES,
        )

    def _start(self, run_dir: pathlib.Path) -> Started:
        ours, theirs = zip(*(socket.socketpair() for _ in range(4)), strict=True)
        console, out, err, channel = (each.detach() for each in ours)
        given = [each.detach() for each in theirs]
        kernel = qemu_kernel.directory()
        command = [_PROGRAM, *_MACHINE, "-smp", str(self._cpus), "-m", self._mem]
        command += ["-kernel", str(kernel / "vmlinux"), "-initrd", str(kernel / "initrd")]
        command += ["-append", f"{guest_processes.qemu_mark(run_dir)} {_BOOT_OPTIONS}"]
        for name, descriptor in zip(("console", "out", "err", "channel"), given, strict=True):
            command += ["-chardev", f"socket,id={name},fd={descriptor}"]
        # Three devices of PCI: two of ISA's would share an interrupt. Linux counts them by their addresses.
        command += ["-device", "isa-serial,chardev=console"]
        for at, name in enumerate(("out", "err", "channel"), 4):
            command += ["-device", f"pci-serial,addr={at:#x},chardev={name}"]
        command += _export(qemu_kernel.ROOT_TAG, "/", "readonly=on") + _export("run", str(run_dir))
        for directory, tag in self._tags.items():
            command += _export(tag, directory)
        env = {"PATH": any_guest.search_path(), "HOME": str(run_dir)}
        # What QEMU complains about comes with the console's text.
        process = any_guest.launch(command, env, given[0], given)
        return Started(process, (console, out, err, channel), os.dup(channel))


def run_in_guest(command: Sequence[str], *, cpus: int = 2, **options: Unpack[Options]) -> CompletedGuest:
    """Run a command in a guest of its own and return its exit code and output.

    Arguments and errors are those of `Guest` and `Guest.run`.
    """
    return any_guest.run_to_its_end(Guest(command, cpus=cpus, **options))


def _export(tag: str, directory: str, *more: str) -> list[str]:
    """The arguments by which QEMU lends a directory to the guest."""
    path = directory.replace(",", ",,")  # as QEMU wants it in a list of options
    backend = ",".join(("local", f"id={tag}", f"path={path}", "security_model=none", "multidevs=remap", *more))
    return ["-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line (see the top of this file); returns the exit code."""
    parser = any_guest.argument_parser("qemu_guest", "Run a command as root on Debian's own kernel, in QEMU.")
    parser.add_argument("--cpus", type=int, default=2, help="how many it has (default 2)")
    return any_guest.run_command_line(parser, arguments, Guest)


if __name__ == "__main__":
    sys.exit(main())
