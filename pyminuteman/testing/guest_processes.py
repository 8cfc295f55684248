"""The host's side of a guest: its run directory, its processes, and tidying up after both.

1. A run directory belongs to the process that holds a flock on it. The lock goes with its holder,
   however that ends, so "is the owner alive?" never depends on process ids.
2. A guest's processes form one session of their own, whose leader names the run directory in its
   arguments. UML's helpers keep those arguments and outlive a leader that is killed; QEMU is one process.
3. Hence whatever names an unlocked run directory is a stray, and `sweep` may end it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator

_PREFIX = "pmm-guest-"
# One argument begins with it: UML's own setting, and the kernel's command line that QEMU is given.
_MARKS = re.compile(f"(?:uml_dir|guest_dir)=(/[^ ]*/{_PREFIX}[^ ]*)".encode())
# An unlocked directory without its init may be about to be locked by a process just starting.
_BIRTH_SECONDS = 60.0
# SIGKILL takes effect at once; this only bounds the wait for a process stuck in the host kernel.
_END_SECONDS = 5.0


@contextlib.contextmanager
def run_directory() -> Iterator[pathlib.Path]:
    """A new locked run directory, removed at the end."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_base()))
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def uml_marks(run_dir: pathlib.Path) -> list[str]:
    """The arguments of UML by which `sweep` knows a process as one of `run_dir`."""
    return [f"umid={run_dir.name}", f"uml_dir={run_dir}"]


def qemu_mark(run_dir: pathlib.Path) -> str:
    """How the kernel's command line has to begin, for the same purpose; its first program finds it in its environment."""
    return f"guest_dir={run_dir}"


def end_session(leader: int) -> None:
    """Kill every process of the session that `leader` leads or led, and wait until they are gone."""
    if leader == os.getsid(0):
        raise ValueError("that is our own session")
    deadline = time.monotonic() + _END_SECONDS  # noqa: TID251 (a driver, as all of this file)
    while time.monotonic() < deadline:  # noqa: TID251
        alive = [pid for pid, session in _alive() if session == leader]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not alive:
            return
        time.sleep(0.002)


def sweep() -> list[str]:
    """End and remove what guests left whose harness was killed; returns their run directories."""
    sessions: dict[str, set[int]] = {}
    for _, session, run_dir in _of_guests():
        sessions.setdefault(run_dir, set()).add(session)
    found = {str(path) for path in pathlib.Path(_base()).glob(f"{_PREFIX}*")} | set(sessions)
    swept = []
    for run_dir in sorted(found):
        with _abandoned(run_dir) as abandoned:
            if abandoned:
                for session in sessions.get(run_dir, ()):
                    if session != os.getsid(0):
                        end_session(session)
                shutil.rmtree(run_dir, ignore_errors=True)
                swept.append(run_dir)
    return swept


def free_cpu() -> int:
    """The core, of those this process may use, that carries the fewest guests' processes."""
    load = dict.fromkeys(sorted(os.sched_getaffinity(0)), 0)
    for pid, _, _ in _of_guests():
        with contextlib.suppress(OSError):
            for cpu in os.sched_getaffinity(pid) & load.keys():
                load[cpu] += 1
    return min(load, key=load.__getitem__)


@contextlib.contextmanager
def _abandoned(run_dir: str) -> Iterator[bool]:
    """Whether nobody owns `run_dir`; while this is entered, nobody else sweeps it."""
    try:
        lock = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        yield isinstance(error, FileNotFoundError)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(lock)
        young = time.time() - status.st_mtime < _BIRTH_SECONDS  # noqa: TID251
        born = pathlib.Path(run_dir, "init").exists() or not young
        yield born and status.st_uid == os.geteuid()
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)


def _alive() -> Iterator[tuple[int, int]]:
    """Process id and session of every process that is not a zombie."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_bytes()
                # "pid (name) state parent group session ...", where name may contain anything.
                state, _, _, session = stat[stat.rindex(b")") + 2 :].split()[:4]
                if state not in (b"Z", b"X"):
                    yield int(entry.name), int(session)


def _of_guests() -> Iterator[tuple[int, int, str]]:
    """Process id, session and run directory of every process of a guest, anybody's."""
    for pid, session in _alive():
        with contextlib.suppress(OSError):
            arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            for found in filter(None, map(_MARKS.match, arguments)):
                yield pid, session, os.fsdecode(found[1])


def _base() -> str:
    """Where run directories go: safe in a kernel command line, short enough for a socket's path."""
    base = tempfile.gettempdir()
    return base if re.fullmatch(r"[\w/.+-]{1,60}", base) else "/tmp"  # noqa: S108
