"""A command on a guest kernel, whichever that is: what `kernel_guest` and `qemu_guest` have in common.

A guest's root is the host's file system, read-only, with fresh /tmp, /run and /var/tmp; the working
directory, or what is named instead of it, can be written. Its command runs as root. Standard output
and error are passed on as they come, byte for byte. The exit code is the command's (126, 127 and
128+N as in a shell); 124: out of time; 125: the guest ended without one (a panic, say).
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import dataclasses
import fnmatch
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from pyminuteman.testing import guest_init, guest_processes

TIMED_OUT = 124
DIED = 125
#: Loaded at boot; names that a kernel does not have are passed over. The kernel loads others
#: when asked for them, but the first test to ask would pay for that.
MODULES = (
    *("ip_vs", "ip_vs_pe_sip", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_lblc"),
    *("ip_vs_lblcr", "ip_vs_dh", "ip_vs_sh", "ip_vs_sed", "ip_vs_nq", "ip_vs_fo", "ip_vs_ovf"),
    *("ip_vs_mh", "dummy", "veth", "bridge", "sch_netem", "ipip", "ip_gre", "fou", "ipv6"),
    *("nf_conntrack", "ip_tables", "ip6_tables", "iptable_nat", "ip6table_nat", "iptable_filter"),
    *("iptable_mangle", "xt_MASQUERADE", "xt_MARK", "xt_mark", "xt_comment", "xt_ipvs"),
    "xt_conntrack",
)
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_*", "TERM", "TZ", "USER", "CI", "COLUMNS", "LINES", "NO_COLOR"),
    *("FORCE_COLOR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HYPOTHESIS_*", "PMM_*", "PYTHON*"),
    *("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"),
)
Sink = Callable[[bytes], object]


class GuestUnavailableError(RuntimeError):
    """No guest can be booted on this machine; nothing was started. The text says what to install."""


@dataclasses.dataclass(frozen=True)
class CompletedGuest:
    """What a guest left: see `run_to_its_end`."""

    returncode: int
    stdout: bytes
    stderr: bytes
    console: str


@dataclasses.dataclass(frozen=True)
class Started:
    """A guest's process and the host's ends of its streams, which `AnyGuest.run` closes."""

    process: subprocess.Popen[bytes]
    readers: tuple[int, int, int, int]
    """Of the kernel's console, the command's standard output and error, and the channel."""
    to_guest: int


class Options(TypedDict, total=False):
    """What `AnyGuest` can be told by name."""

    mem: str
    rw: Sequence[str] | None
    ro: Sequence[str]
    env: Mapping[str, str] | None
    cwd: str | None
    modules: Sequence[str]
    timeout: float | None
    files: Mapping[str, bytes] | None


def forwarded_environment(**more: str) -> dict[str, str]:
    """What of this process's environment means something in a guest, with `more` added.

    PATH gets the sbin directories. COLUMNS and LINES tell the size of the terminal, if any.
    """
    found = {k: v for k, v in os.environ.items() if any(fnmatch.fnmatch(k, p) for p in _PASSED_ON)}
    found["PATH"] = search_path()
    for descriptor in (1, 2, 0):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if size.columns and size.lines:
                found = {"COLUMNS": str(size.columns), "LINES": str(size.lines)} | found
                break
    return found | more


class AnyGuest(abc.ABC):
    """One command on one guest kernel: nothing starts before `run`, nothing is left after it.

    Attributes:
        console: What the guest kernel said so far.
        timed_out: Whether `run` ended for want of time.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        mem: str = "1G",
        rw: Sequence[str] | None = None,
        ro: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        modules: Sequence[str] = MODULES,
        timeout: float | None = 120.0,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Plan a guest.

        Args:
            command: The program and its arguments; run as root, input from /dev/null.
            mem: The guest's memory: a number and K, M or G.
            rw: Host directories the guest may write. Default: only `cwd`.
            ro: Host directories to show that a fresh /tmp, /run or /var/tmp would hide. `cwd` and
                this Python's own directories are shown in any case.
            env: The command's whole environment. Default: `forwarded_environment()`.
            cwd: Where the command starts, also on the host. Default: here.
            modules: Kernel modules to load before.
            timeout: Seconds from boot to power-off; None waits for ever.
            files: Placed in the guest's /run/guest, by name.

        Raises:
            ValueError: `mem` is no size; a text has a NUL in it; `rw` names the root directory.
            NotADirectoryError: `cwd`, or one of `rw` or `ro`, is not a directory.
        """
        if not re.fullmatch(r"[1-9]\d*[KMG]", mem, re.IGNORECASE):
            raise ValueError(f"mem={mem!r}: want a number and K, M or G, such as 512M")
        self.timeout, self._mem, self._modules = timeout, mem, modules
        self._cwd = os.path.realpath(cwd or pathlib.Path.cwd())
        writable = [self._cwd] if rw is None and self._cwd != "/" else rw or []
        self._binds = {os.path.realpath(d): False for d in (self._cwd, sys.prefix, sys.base_prefix, *ro)}
        self._binds = {d: writes for d, writes in self._binds.items() if guest_init.is_hidden(d)}
        self._binds |= {os.path.realpath(d): True for d in writable}
        for directory in (self._cwd, *self._binds):
            if not pathlib.Path(directory).is_dir():
                raise NotADirectoryError(f"{directory} is not a directory")
        if "/" in self._binds:
            raise ValueError("rw: the guest cannot write the root directory; name one below it")
        self._env = dict(forwarded_environment() if env is None else env)
        self._env.setdefault("PATH", search_path())
        self._env["MODPROBE_OPTIONS"] = "-d /run/kmod"
        self._command = list(command)
        if "\0" in "".join((*self._command, *self._env, *self._env.values())):
            raise ValueError("a command or environment cannot contain NUL")
        self._files = dict(files or {})
        self.console, self.timed_out = bytearray(), False
        self._lock = threading.Lock()  # over the next four: `kill` and `send` come from anywhere
        self._killed, self._pidfd, self._to_guest = False, -1, -1
        self._failure: Exception | None = None

    @abc.abstractmethod
    def why_unavailable(self) -> str | None:
        """None when this kind of guest can be booted here, else the reason why not, with the cure."""

    @abc.abstractmethod
    def _platform(self, run_dir: pathlib.Path) -> guest_init.Platform:
        """How this kind of guest sees the host and talks to it."""

    @abc.abstractmethod
    def _start(self, run_dir: pathlib.Path) -> Started:
        """Start the guest, whose files are in `run_dir`; see `launch`."""

    def run(self, out: Sink | None = None, err: Sink | None = None, channel: Sink | None = None) -> int:
        """Boot, stream until the guest ends, tidy up, and return the command's exit code.

        Each sink is called with each piece of its stream, from a thread of its own. Defaults:
        standard output and error, and nothing for the channel (CHANNEL in the guest). 124 is
        out of time, and 125 a guest that ended without an exit code: see `console`.

        Raises:
            GuestUnavailableError: as `why_unavailable` says; nothing was started.
            Exception: what a sink raised; the guest was ended.
        """
        if reason := self.why_unavailable():
            raise GuestUnavailableError(reason)
        guest_processes.sweep()
        sinks = (self.console.extend, out or _to_stdout, err or _to_stderr, channel or len)
        with guest_processes.run_directory() as run_dir:
            self._write_files(run_dir)
            started = self._start(run_dir)
            with self._lock:
                self._to_guest = started.to_guest
                # A pidfd tells the end without reaping, so that the session's number stays ours.
                self._pidfd = os.pidfd_open(started.process.pid)
            pumps = [
                threading.Thread(target=self._pump, args=pair, name="guest-stream", daemon=True)
                for pair in zip(started.readers, sinks, strict=True)
            ]
            try:
                for pump in pumps:
                    pump.start()
                self._wait()
            finally:
                self._end(started.process)
            for pump in pumps:
                pump.join()
            if self._failure is not None:
                raise self._failure
            status = run_dir / "status"
            code = int(status.read_text(encoding="ascii")) if status.exists() else DIED
        return TIMED_OUT if self.timed_out else code

    def send(self, data: bytes) -> None:
        """Write to CHANNEL. Only once the command has written there is it sure to be read.

        Raises:
            BrokenPipeError: the guest is not running.
        """
        with self._lock:
            if self._to_guest < 0:
                raise BrokenPipeError("the guest is not running")
            os.write(self._to_guest, data)

    def kill(self) -> None:
        """End the guest, from any thread; `run` then returns 125."""
        with self._lock:
            self._killed = True
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _write_files(self, run_dir: pathlib.Path) -> None:
        planned = self._files | guest_init.boot_files(
            run_dir, self._command, cwd=self._cwd, env=self._env, binds=self._binds,
            modules=self._modules, platform=self._platform(run_dir),
        )  # fmt: skip
        for name, data in planned.items():
            (run_dir / name).write_bytes(data)
            (run_dir / name).chmod(0o755)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not self._killed:
            self.timed_out = not poll.poll(None if self.timeout is None else self.timeout * 1000)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        guest_processes.end_session(process.pid)
        process.wait()
        with self._lock:
            os.close(self._pidfd)
            os.close(self._to_guest)
            self._pidfd = self._to_guest = -1

    def _pump(self, descriptor: int, sink: Sink) -> None:
        with os.fdopen(descriptor, "rb", 0) as stream:
            while data := stream.read(65536):
                try:
                    sink(data)
                except Exception as failure:  # noqa: BLE001 (raised again by run)
                    self._failure = failure
                    self.kill()
                    return


def launch(command: Sequence[str], env: Mapping[str, str], console: int, given: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a guest's process in a session of its own; it dies when the calling thread does.

    Args:
        command: The program and its arguments.
        env: Its whole environment.
        console: Descriptor for what the program itself says.
        given: Descriptors that the program inherits, `console` among them; closed here.
    """
    process = subprocess.Popen(  # noqa: S603 (the caller's command runs in the guest, by an argv)
        ["setpriv", "--pdeathsig", "KILL", *command],  # noqa: S607
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        pass_fds=given,
        start_new_session=True,
    )
    for descriptor in given:
        os.close(descriptor)
    return process


def run_to_its_end(guest: AnyGuest) -> CompletedGuest:
    """Run a guest and return its exit code and output; errors are those of `AnyGuest.run`."""
    out, err = bytearray(), bytearray()
    code = guest.run(out.extend, err.extend)
    return CompletedGuest(code, bytes(out), bytes(err), guest.console.decode(errors="replace"))


def missing_programs(*names: str) -> list[str]:
    """Those of `names` that are not to be found."""
    return [name for name in names if not shutil.which(name, path=search_path())]


def search_path() -> str:
    """PATH, with the sbin directories."""
    return os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"


def _to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _to_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def argument_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser of what every guest's command line has."""
    parser = argparse.ArgumentParser(prog=f"python -m pyminuteman.testing.{module}", description=description)
    parser.add_argument("--mem", default="1G", help="memory of the guest (default 1G)")
    parser.add_argument("--rw", action="append", metavar="DIR", help="writable; default: here")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds (default 120)")
    parser.add_argument("command", nargs="+")
    return parser


def run_command_line(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, plan: Callable[..., AnyGuest]) -> int:
    """Do what a command line says; returns the exit code.

    Args:
        parser: As `argument_parser` made it; its other options are handed to `plan`, too.
        arguments: Those of the command line; None: of this process.
        plan: Makes a guest of the command and the options.
    """
    args = vars(parser.parse_args(arguments))
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the guest goes too
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        guest = plan(args.pop("command"), **args)
        code = guest.run()
    except (GuestUnavailableError, ValueError, NotADirectoryError) as error:
        parser.exit(DIED, f"kernel guest: {error}\n")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if guest.timed_out:
        print(f"kernel guest: out of time ({args['timeout']:g} s)", file=sys.stderr)  # noqa: T201
    elif code == DIED:
        console = guest.console.decode(errors="replace")
        print(f"kernel guest: it ended without an exit code:\n{console[-8000:]}", file=sys.stderr)  # noqa: T201
    return code
