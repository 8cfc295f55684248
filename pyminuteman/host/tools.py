"""Programs of the host that carry out what the kernel's interfaces make hard: nft and iptables. Bounded in time and in output."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from pyminuteman.capabilities import Capability, add_ambient, in_own_thread
from pyminuteman.host.namespaces import in_namespace

__all__ = ["TIMEOUT_SECONDS", "Answer", "find", "run"]

TIMEOUT_SECONDS: Final = 30.0
"""The longest that one may take: a transaction of 50,000 elements takes about one second."""
_SYSTEM_PATHS: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_ERROR_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said."""

    code: int
    """Its exit code; 127 when there is no such program, 124 when its time was up."""
    output: str = ""
    error: str = ""
    """One line."""

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked for."""
        return self.code == 0


def find(name: str) -> str | None:
    """The path of a program: the system's own directories first, for a service's PATH may be anything."""
    return shutil.which(name, path=_SYSTEM_PATHS)


def run(command: Sequence[str], *, stdin: str = "", netns: str | None = None, extra: Mapping[str, str] | None = None) -> Answer:
    """Run a program, in a network namespace.

    It is handed CAP_NET_ADMIN and CAP_NET_RAW where we have them: a process without root loses its capabilities to ``exec`` otherwise.

    Raises:
        HostSetupError: The namespace cannot be entered.
    """
    path = find(command[0])
    if path is None:
        return Answer(127, error=f"there is no {command[0]} on this machine")
    work = partial(_run, [path, *command[1:]], stdin, extra or {})
    # Not in the caller's thread: the rights that are handed on are the thread's, and others' programs may be started from there, too.
    return in_own_thread(work) if netns is None else in_namespace(netns, work)


def _run(command: Sequence[str], stdin: str, extra: Mapping[str, str]) -> Answer:
    with suppress(OSError):  # the program says what it lacks
        add_ambient({Capability.NET_ADMIN, Capability.NET_RAW})
    environment = {"PATH": _SYSTEM_PATHS, "LC_ALL": "C.UTF-8", "HOME": "/", **extra}
    try:
        done = subprocess.run(  # noqa: S603 - a path that we have found, and arguments of our own
            command,
            input=stdin.encode(),
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
            env=environment,
            cwd="/",
            start_new_session=True,  # no terminal's ^C half way
        )
    except subprocess.TimeoutExpired:
        return Answer(124, error=f"{os.path.basename(command[0])} did not end within {TIMEOUT_SECONDS:g} s")  # noqa: PTH119
    except OSError as error:
        return Answer(126, error=f"{command[0]}: {error.strerror}")
    said = " ".join(done.stderr.decode("utf-8", "replace").split())
    return Answer(done.returncode, done.stdout.decode("utf-8", "replace"), said[:_ERROR_MAX])
