"""Run a command as root on a real Linux kernel (user-mode-linux) without being root.

    python -m pyminuteman.testing.kernel_guest [--mem 1G] [--rw DIR]... [--timeout S] [--cpu N] \
        -- CMD ARG...

`pyminuteman.testing.guest` says what the command sees, and what the exit codes are; where a guest
ended without one, its console is shown.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Unpack

from pyminuteman.testing import guest as any_guest
from pyminuteman.testing import guest_init, guest_processes, uml_registers
from pyminuteman.testing.guest import DIED as DIED
from pyminuteman.testing.guest import MODULES as MODULES
from pyminuteman.testing.guest import TIMED_OUT as TIMED_OUT
from pyminuteman.testing.guest import AnyGuest, Options, Started
from pyminuteman.testing.guest import CompletedGuest as CompletedGuest
from pyminuteman.testing.guest import GuestUnavailableError as GuestUnavailableError
from pyminuteman.testing.guest import Sink as Sink
from pyminuteman.testing.guest import forwarded_environment as forwarded_environment
from pyminuteman.testing.guest_init import FILES as FILES
from pyminuteman.testing.guest_processes import sweep as sweep
from pyminuteman.testing.network_namespace import fresh_network_namespace as fresh_network_namespace

INSTALL = "apt-get install --no-install-recommends user-mode-linux kmod iproute2 iptables ipvsadm"
#: Where the command finds the two-way stream of `Guest.run(channel=...)` and `Guest.send`.
CHANNEL = "/dev/tty3"
_MODULES_DIRECTORY = "/usr/lib/uml/modules"  # where Debian's package puts them
_PLATFORM = guest_init.Platform(
    ttys=("/dev/tty1", "/dev/tty2", CHANNEL),
    modules_directory=_MODULES_DIRECTORY,
    # Host directories come from one writable mount by bind: hostfs options cannot quote.
    mounts=[f"none {guest_init.HOST} hostfs X-mount.mkdir"],
)
# Without these the boot takes 2.5 s: the blacklisted calls benchmark checksums and prepare file
# systems that a test guest never mounts, and lpj saves measuring the speed of a delay loop.
_BOOT_OPTIONS = (
    "initcall_blacklist=raid6_select_algo,calibrate_xor_blocks,init_btrfs_fs,init_jfs_fs,init_zswap",
    *("pty.legacy_count=0", "lpj=18522112", "ssl=null", "con=null", "quiet", "loglevel=4"),
    *("root=/dev/root", "rootfstype=hostfs", "hostfs=/", "ro"),
)


def available() -> str | None:
    """None when a guest can be booted here, else the reason why not, with the cure."""
    missing = any_guest.missing_programs(_uml(), "modprobe", "ip", "setpriv", "taskset")
    if not missing and not pathlib.Path(_MODULES_DIRECTORY).is_dir():
        missing = [_MODULES_DIRECTORY]
    if missing:
        return f"user-mode-linux cannot run: no {', '.join(missing)} (try: {INSTALL})"
    if uml_registers.needed() and uml_registers.compiler() is None:
        return "user-mode-linux cannot run on this CPU (AMX) without a small fix that needs a C \
compiler: no cc (try: apt-get install --no-install-recommends gcc libc6-dev)"
    return None


class Guest(AnyGuest):
    """A command on user-mode-linux: see `AnyGuest`."""

    def __init__(self, command: Sequence[str], *, cpu: int | None = None, **options: Unpack[Options]) -> None:
        """Plan a guest.

        Args:
            command: The program and its arguments; run as root, input from /dev/null.
            cpu: The host core that carries the guest. UML has one CPU and loses a factor of four
                when it wanders. Default: the one with the fewest guests.
            options: Those of `AnyGuest`, and its errors.
        """
        super().__init__(command, **options)
        self._cpu = cpu

    def why_unavailable(self) -> str | None:
        """See `available`."""
        return available()

    def _platform(self, _: pathlib.Path) -> guest_init.Platform:
        return _PLATFORM

    def _start(self, run_dir: pathlib.Path) -> Started:
        env = self._host_environment(run_dir)
        pipes = [os.pipe() for _ in range(5)]
        (from_host, to_guest), *readers_and_writers = pipes
        console, out, err, channel = (writer for _, writer in readers_and_writers)
        cpu = guest_processes.free_cpu() if self._cpu is None else self._cpu
        command = ["taskset", "-c", str(cpu), _uml()]
        command += [f"mem={self._mem}", *guest_processes.uml_marks(run_dir), f"init={run_dir}/init"]
        command += [f"con0=null,fd:{console}", f"con1=null,fd:{out}", f"con2=null,fd:{err}"]
        command += [f"con3=fd:{from_host},fd:{channel}", *_BOOT_OPTIONS]
        process = any_guest.launch(command, env, console, (from_host, console, out, err, channel))
        first, second, third, fourth = (reader for reader, _ in readers_and_writers)
        return Started(process, (first, second, third, fourth), to_guest)

    def _host_environment(self, run_dir: pathlib.Path) -> dict[str, str]:
        env = {"PATH": any_guest.search_path(), "HOME": str(run_dir)}
        # UML's memory is an executable mapping of a file: on /dev/shm, unless TMPDIR says else.
        # Containers often have a /dev/shm of 64 MB, or one mounted noexec.
        size = int(self._mem[:-1]) << {"K": 10, "M": 20, "G": 30}[self._mem[-1].upper()]
        try:
            shm = os.statvfs("/dev/shm")  # noqa: S108
            fits = shm.f_bavail * shm.f_frsize >= size and not shm.f_flag & os.ST_NOEXEC
        except OSError:
            fits = False
        if not fits:
            env["TMPDIR"] = str(run_dir)
        if uml_registers.needed():
            try:
                env["LD_PRELOAD"] = str(uml_registers.build(run_dir))
            except RuntimeError as error:
                raise GuestUnavailableError(str(error)) from error
        return env


def run_in_guest(command: Sequence[str], **options: Unpack[Options]) -> CompletedGuest:
    """Run a command in a guest of its own and return its exit code and output.

    Arguments and errors are those of `Guest` and `Guest.run`.
    """
    return any_guest.run_to_its_end(Guest(command, **options))


def _uml() -> str:
    return os.environ.get("PMM_UML") or "linux.uml"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line (see the top of this file); returns the exit code."""
    what = "Run a command as root on a real Linux kernel (user-mode-linux)."
    parser = any_guest.argument_parser("kernel_guest", what)
    parser.add_argument("--cpu", type=int, help="host core to run on")
    return any_guest.run_command_line(parser, arguments, Guest)


if __name__ == "__main__":
    sys.exit(main())
