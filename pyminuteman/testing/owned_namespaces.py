"""Named network namespaces that say whose they are, so that nobody has to tidy up after a test that was killed.

A name is `minuteman-OWNER-START-COUNT-NODE`: the process that made it, when that process started (in ticks since boot, which tells
it from a later process of the same id), which of its clusters it is, and what it is in the cluster.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator

from pyminuteman.libc import error_of, libc

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where iproute2 is, also for those who have become root by `su`

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_NETNS = pathlib.Path("/run/netns")  # where iproute2 keeps the named ones
_NAME = re.compile(r"(?P<stem>minuteman-(?P<owner>\d+)-(?P<start>\d+)-\d+)-\w+")
_COMMAND_TIMEOUT_SECONDS = 60.0
_END_TIMEOUT_SECONDS = 10.0
_numbers = itertools.count()


class CommandFailedError(Exception):
    """A command of iproute2 said no; the text is the command and its words. Lines before the one it stopped at were carried out."""


def unused_stem() -> str:
    """What the names of a new cluster of this process begin with."""
    return f"minuteman-{os.getpid()}-{_start_ticks(os.getpid())}-{next(_numbers)}"


def of_stem(stem: str) -> list[str]:
    """The names there are that begin so."""
    return [name for name, found in _ours() if found["stem"] == stem]


def sweep() -> list[str]:
    """Kill and delete what dead owners left; those of live processes are left alone.

    Returns:
        The names of the namespaces that were deleted.

    Raises:
        TimeoutError: a process in them did not end.
    """
    orphans = [name for name, found in _ours() if _start_ticks(int(found["owner"])) != int(found["start"])]
    delete(orphans)
    return orphans


def delete(names: list[str]) -> None:
    """Kill what runs in these namespaces, whoever started it there, but for this process; then delete them.

    Raises:
        TimeoutError: a process did not end; nothing is deleted.
    """
    if not names:
        return
    namespaces = set()
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # another sweeper was quicker
            namespaces.add(_identity(_NETNS / name))
    deadline = time.perf_counter() + _END_TIMEOUT_SECONDS
    while left := _kill_in(namespaces):
        if time.perf_counter() > deadline:
            raise TimeoutError(f"processes {left} in network namespaces do not end")
        time.sleep(0.005)
    # One that was not made to its end, or that somebody else has just deleted, is no reason to keep the others.
    with contextlib.suppress(CommandFailedError):
        run_lines((f"netns delete {name}" for name in names), force=True)


@contextlib.contextmanager
def thread_inside(name: str) -> Iterator[None]:
    """Have the calling thread in a named namespace; what it opens and starts there stays there."""

    def enter(descriptor: int) -> None:
        if libc().setns(descriptor, _CLONE_NEWNET) != 0:
            raise error_of(f"setns({name})")

    with contextlib.ExitStack() as stack:
        # Both are open before the thread moves, so that the way back cannot fail for want of a descriptor.
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, home)
        there = os.open(_NETNS / name, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, there)
        enter(there)
        stack.callback(enter, home)
        yield


def run_lines(lines: Iterable[str], *, namespace: str | None = None, command: str = "ip", force: bool = False) -> None:
    """Have one process of `ip` or `bridge` carry out all lines: its start costs more than most of what is asked for.

    Raises:
        CommandFailedError: a line was refused, and those after it not tried; with `force` they were.
    """
    where = ["-n", namespace] if namespace else []
    run_command([command, *where, *(["-force"] if force else []), "-batch", "-"], "\n".join(lines) + "\n")


def run_command(command: list[str], text: str = "") -> str:
    """What a command prints when it is given `text`.

    Raises:
        CommandFailedError: it ended with another status than 0.
    """
    done = subprocess.run(  # noqa: S603 - our own words
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": PATH, "LC_ALL": "C"},
        timeout=_COMMAND_TIMEOUT_SECONDS,
    )
    if done.returncode != 0:
        raise CommandFailedError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _ours() -> list[tuple[str, re.Match[str]]]:
    return [(entry.name, found) for entry in sorted(_NETNS.glob("minuteman-*")) if (found := _NAME.fullmatch(entry.name))]


def _start_ticks(pid: int) -> int | None:
    """When a process started; None if there is no live one of this id."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): the name, field 2, may have blanks and brackets; field 3 is the state, 22 the start.
    columns = status.rpartition(")")[2].split()
    return None if columns[0] in "ZX" else int(columns[19])


def _kill_in(namespaces: set[tuple[int, int]]) -> list[int]:
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if int(entry.name) != os.getpid() and _identity(entry / "ns/net") in namespaces:
                os.kill(int(entry.name), signal.SIGKILL)
                found.append(int(entry.name))
    return found


def _identity(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
