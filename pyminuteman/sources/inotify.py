"""What happens in a directory, as the kernel tells it (inotify(7)): a small wrapper on ctypes, read without threads.

Invariants:

1. Nothing that happens after :meth:`DirectoryWatch.renew` is missed: it is among what the next :meth:`DirectoryWatch.wait` gives, or that
   says that everything may have changed (the kernel's queue ran over, the directory is another one now).
2. Memory is bounded, however much happens.

The directory is watched, not the files in it: a file that is replaced by renaming another over it is a new inode, of which a watch on the
old one never hears. Its parent is watched too, for the directory itself may be replaced, or a symbolic link to it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

import trio

from pyminuteman.libc import libc
from pyminuteman.sources.base import SourceError

__all__ = ["Changes", "DirectoryWatch", "Event", "Inotify", "parse_events"]

# sys/inotify.h
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
IN_UNMOUNT: Final = 0x2000
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x0100_0000

_INSIDE: Final = IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
_WHOLE: Final = IN_CLOSE_WRITE | IN_MOVED_TO
"""After these a file is as its writer wanted it."""
_BEGUN_OR_GONE: Final = IN_CREATE | IN_MOVED_FROM | IN_DELETE
_GONE: Final = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED
_HEADER: Final = struct.Struct("=iIII")
_READ_BYTES: Final = 1 << 16
_NAMES_MAX: Final = 4096
"""Names that are remembered between two looks; with more of them, everything is looked at."""
_HINTS: Final = {
    errno.EMFILE: "too many programs of this user watch files: raise the sysctl fs.inotify.max_user_instances",
    errno.ENOSPC: "too many files are watched by this user: raise the sysctl fs.inotify.max_user_watches",
}


class Event(NamedTuple):
    """One record of inotify(7). The name is empty when it is about the watched directory itself."""

    watch: int
    mask: int
    name: str


def parse_events(buffer: bytes) -> Iterator[Event]:
    """The records of one read. Pure."""
    at = 0
    while at < len(buffer):
        watch, mask, _cookie, size = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size
        name = buffer[at : at + size].partition(b"\0")[0]
        at += size
        yield Event(watch, mask, os.fsdecode(name))


def _checked(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, _HINTS.get(number, os.strerror(number)), path)
    return result


class Inotify:
    """An inotify instance; close it.

    Raises:
        OSError: The kernel has none to give; the text says what to do.
    """

    def __init__(self) -> None:
        """Get one, which no child process inherits."""
        self._descriptor = _checked(libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")

    def add(self, path: Path, mask: int) -> int:
        """Watch a path (a symbolic link is followed), or change what is watched of it. Gives the number of the watch.

        Raises:
            OSError: It is not there, may not be read, is no directory where the mask has IN_ONLYDIR; or there are too many watches.
        """
        return _checked(libc().inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask)), str(path))

    def remove(self, watch: int) -> None:
        """End a watch; one that has ended by itself is no error."""
        libc().inotify_rm_watch(self._descriptor, watch)

    async def read(self) -> list[Event]:
        """What has happened: one or more events, waiting for the first."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                return list(parse_events(os.read(self._descriptor, _READ_BYTES)))
            except BlockingIOError:
                continue

    def close(self) -> None:
        """End all watches. A second call does nothing."""
        if self._descriptor >= 0:
            trio.lowlevel.notify_closing(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(slots=True)
class Changes:
    """What may have changed in a directory since the last look.

    Attributes:
        everything: Anything may have: names were lost, or it is another directory.
        names: Files that something happened to.
        whole: Of these, the ones whose writer has finished (closed it, or moved it here).
    """

    everything: bool
    names: set[str]
    whole: set[str]

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)


class DirectoryWatch:
    """Waits for something to change in a directory, which may come, go and be replaced. A context manager.

    Attributes:
        directory: Its path.
        overflows: How often the kernel's queue ran over.
        unwatched: Why the kernel does not watch it, though it is there; empty when it does. Changes are then found by looking alone.
    """

    def __init__(self, directory: Path) -> None:
        """Nothing is watched before :meth:`renew`."""
        self.directory = directory
        self.overflows = 0
        self.unwatched = ""
        self._inotify: Inotify | None = None
        self._inside = self._above = -1
        self._watched: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def renew(self) -> bool:
        """See that the directory that is now at that path is watched; call it before each look. True if it was not.

        Raises:
            SourceError: There is no such directory. If its parent is there, the next :meth:`wait` hears of it when it comes.
        """
        self.unwatched = ""
        try:
            if self._inotify is None:
                self._inotify = Inotify()
            if self._above < 0:
                self._above = self._inotify.add(self.directory.parent, _INSIDE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
        except OSError as error:
            self.unwatched = error.strerror or str(error)
        try:
            status = self.directory.stat()
            there = (status.st_dev, status.st_ino)
            if there == self._watched and self._inside >= 0:
                return False
            self._forget()
            if self._inotify is not None:
                self._inside = self._inotify.add(self.directory, _INSIDE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
                self._watched = there
        except OSError as error:
            if error.errno not in _HINTS:
                self._forget()
                raise SourceError(f"{self.directory}: cannot be read: {error.strerror}") from None
            self.unwatched = error.strerror or str(error)
        return True

    def _forget(self) -> None:
        if self._inside >= 0 and self._inotify is not None and self._inside != self._above:
            self._inotify.remove(self._inside)
        self._inside, self._watched = -1, None

    async def wait(self, seconds: float, *, quiet_seconds: float = 0.1, most_seconds: float = 1.0) -> Changes:
        """Wait until something happens, and then until nothing more does for a moment, so that one look serves for all of it.

        Args:
            seconds: How long to wait for something to happen.
            quiet_seconds: How long nothing more has to happen.
            most_seconds: However much goes on happening, no longer than this after the first.
        """
        changes = Changes(everything=False, names=set(), whole=set())
        inotify = self._inotify
        if inotify is None:
            await trio.sleep(seconds)
            return changes
        end = trio.current_time() + seconds
        while not changes:
            with trio.move_on_at(end) as scope:
                self._take(await inotify.read(), changes)
            if scope.cancelled_caught:
                return changes
        end = trio.current_time() + most_seconds
        while True:
            with trio.move_on_at(min(end, trio.current_time() + quiet_seconds)) as scope:
                self._take(await inotify.read(), changes)
            if scope.cancelled_caught:
                return changes

    def _take(self, events: list[Event], changes: Changes) -> None:
        for event in events:
            if event.mask & IN_Q_OVERFLOW:
                self.overflows += 1
                changes.everything = True
            elif event.watch == self._inside and event.name:
                self._name(event, changes)
            elif event.watch == self._inside and event.mask & _GONE:
                self._forget()
                changes.everything = True
            elif event.watch == self._above:
                if not event.name and event.mask & _GONE and self._inotify is not None:
                    self._inotify.remove(self._above)
                    self._above = -1
                changes.everything |= event.name in {"", self.directory.name}

    @staticmethod
    def _name(event: Event, changes: Changes) -> None:
        if len(changes.names) >= _NAMES_MAX:
            changes.everything = True
            return
        changes.names.add(event.name)
        if event.mask & _WHOLE:
            changes.whole.add(event.name)
        elif event.mask & _BEGUN_OR_GONE:
            changes.whole.discard(event.name)
