"""Entries of a directory of network namespaces: which there are, and what is wrong with the others. Blocks: look in a thread.

1. An entry is a namespace that is mounted there, as ``ip netns add`` does it, or a small file that holds the path of one, as dcos-net had
   it. Names with a dot in front are passed over.
2. Symbolic links in the directory are not followed, and nobody but its owner and group may write there: whoever names a namespace has it
   programmed by a process that may enter any.
3. A namespace is told from others by its inode, which stays its own while it is held open. What is found is open, and has been entered once.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from pyminuteman.capabilities import in_own_thread
from pyminuteman.errors import MinutemanError
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.namespaces import enter_open

__all__ = ["DIRECTORY", "NAMESPACES_MAX", "Entry", "Look", "check_namespaces", "look"]

DIRECTORY: Final = ""
"""Under this name is a problem that is none of a single entry."""
NAMESPACES_MAX: Final = 256
"""How many are served: each takes about five file descriptors, and the memory of its table."""
_NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_OWN: Final = "/proc/self/ns/net"
_THREADS: Final = "/proc/thread-self/ns/net"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127}")
_PATH_MAX: Final = 4096  # linux/limits.h
_LISTED_MAX: Final = 10_000
_SHOWN: Final = 3
_WHY: Final = "containers whose network namespace does not get the table reach VIPs by way of the host, or not at all"
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class _UnusableError(MinutemanError):
    """What is wrong with an entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A namespace that is in the directory.

    Attributes:
        identity: Its inode.
        descriptor: It is open here, and whoever takes it closes it; None: it was known.
    """

    identity: int
    descriptor: int | None = None

    @property
    def path(self) -> str:
        """Its path while it is open, whatever becomes of the entry."""
        return f"/proc/self/fd/{self.descriptor}"


@dataclass(slots=True)
class Look:
    """What is there, by the names of the entries."""

    entries: dict[str, Entry] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """What keeps an entry from being served; under :data:`DIRECTORY` what is wrong with all, or with too many."""


def look(directory: Path, known: Mapping[str, int], most: int = NAMESPACES_MAX) -> Look:
    """See what is in the directory.

    Args:
        directory: Where.
        known: Identities of the namespaces that are open already, by the names of their entries: they come first, and are not opened again.
        most: How many there may be.
    """
    found = Look()
    try:
        names, own = _listed(directory)
    except _UnusableError as error:
        found.problems[DIRECTORY] = f"{directory}: {error}"
        return found
    seen = {own.st_ino: "the host, which has the table anyway"}
    refused: list[str] = []
    surplus: list[str] = []
    for name in sorted(names, key=lambda name: (name not in known, name)):
        try:
            target = _target(directory / name, own.st_dev)
            if target is None:
                continue
            path, identity = target
            if identity in seen:
                raise _UnusableError(f"it is the network namespace of {seen[identity]}")
            if len(found.entries) >= most:
                surplus.append(name)
                continue
            entry = Entry(identity) if known.get(name) == identity else _opened(path, identity)
        except _UnusableError as error:
            found.problems[_shown(name)] = str(error)
        except HostSetupError as error:
            refused.append(name)
            found.problems[DIRECTORY] = f"{_some(refused)}: {error.reason}; {error.hint}"
        else:
            found.entries[name], seen[identity] = entry, name
    if surplus:
        found.problems[DIRECTORY] = f"{directory}: at most {most} namespaces are served: {_some(surplus)} left out"
    return found


def check_namespaces(directory: Path) -> Iterable[Finding]:
    """What would be served of it, and what would not."""
    found = look(directory, {})
    for entry in found.entries.values():
        if entry.descriptor is not None:
            os.close(entry.descriptor)
    what = f"{len(found.entries)} network namespaces of {directory} can be served"
    yield Finding("namespaces.served", Severity.INFO if DIRECTORY in found.problems else Severity.OK, what, _WHY)
    for name, text in sorted(found.problems.items()):
        if name == DIRECTORY:
            yield Finding("namespaces.directory", Severity.ERROR, text, _WHY)
        else:
            yield Finding("namespaces.entry", Severity.WARNING, f"{directory / name}: {text}", _WHY)


def _listed(directory: Path) -> tuple[list[str], os.stat_result]:
    """Names in it, and what the host's own namespace is."""
    try:
        if directory.stat().st_mode & stat.S_IWOTH:
            raise _UnusableError(f"anybody may write there, so nothing in it is believed: chmod o-w {directory}")
        with os.scandir(directory) as listed:
            names = [entry.name for entry in islice(listed, _LISTED_MAX) if not entry.name.startswith(".")]
        return names, Path(_OWN).stat()
    except OSError as error:
        raise _UnusableError(f"cannot be read: {error.strerror}") from None


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _shown(name: str) -> str:
    """A name as it can be printed anywhere."""
    return name if _NAME.fullmatch(name) else ascii(name)[:64]


def _target(path: Path, nsfs: int) -> tuple[str, int] | None:
    """Path and inode of the namespace that an entry stands for; None when the entry has gone.

    Raises:
        _UnusableError: It stands for none.
    """
    if not _NAME.fullmatch(path.name):
        raise _UnusableError("a name is letters, digits and _.:@+- (128 at most), and begins with one of the first three")
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise _UnusableError("it is a symbolic link, which is not followed: write the path into a file instead")
        if status.st_dev == nsfs:
            return str(path), status.st_ino
        if not stat.S_ISREG(status.st_mode):
            raise _UnusableError("it is neither a network namespace nor a file that holds the path of one")
        descriptor = os.open(path, _OPEN | os.O_NOFOLLOW)
        try:
            content = os.read(descriptor, _PATH_MAX + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _UnusableError(f"it cannot be read: {error.strerror}") from None
    return _named(content, nsfs)


def _named(content: bytes, nsfs: int) -> tuple[str, int]:
    text = content.decode("utf-8", "replace").strip()
    if not text:
        raise _UnusableError("it is empty: half written, or a namespace that is mounted where this process does not see it")
    if not text.startswith("/") or len(content) > _PATH_MAX or not text.isprintable() or "\ufffd" in text:
        raise _UnusableError("it does not hold one absolute path, and nothing else")
    try:
        status = os.stat(text)  # noqa: PTH116 - a magic link, which Path has no better word for
    except OSError as error:
        raise _UnusableError(f"{text}: {error.strerror}") from None
    if status.st_dev != nsfs:
        raise _UnusableError(f"{text} is no network namespace")
    return text, status.st_ino


def _opened(path: str, identity: int) -> Entry:
    """The namespace, open.

    Raises:
        _UnusableError: It is none of the network, or has gone.
        HostSetupError: It may not be entered.
    """
    try:
        descriptor = os.open(path, _OPEN)
    except OSError as error:
        raise _UnusableError(f"{path}: {error.strerror}") from None

    def enter() -> int:
        """Whoever opens it by the path holds the mount, too; from inside nothing is held but the namespace."""
        enter_open(descriptor, path)
        return os.open(_THREADS, _OPEN)

    try:
        if os.fstat(descriptor).st_ino != identity:
            raise _UnusableError(f"{path} is being replaced")
        if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) != _CLONE_NEWNET:
            raise _UnusableError(f"{path} is a namespace, and none of the network")
        return Entry(identity, in_own_thread(enter))
    except OSError as error:
        raise _UnusableError(f"{path} is no network namespace: {error.strerror}") from None
    finally:
        os.close(descriptor)
